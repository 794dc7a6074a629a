"""The comparison says what the runs printed, and warns of runs that learned nothing."""

import math
import re
import shutil
import subprocess
import sys

import pytest
from builders.training import OURS, ROOT, TINY, TRAINING, run, train

from entropy_mask_plugin.reporting import comparison, training_log
from entropy_mask_plugin.studies.record import account
from entropy_mask_plugin.system.errors import UsageError


@pytest.fixture(scope="module")
def runs(data_bin, teacher, tmp_path_factory):
    """Two real runs with their logs, as the quick start keeps them."""
    folder = tmp_path_factory.mktemp("runs")
    policies = {"random": ["--mask-strategy", "random"],
                "init": ["--mask-strategy", "high", "--teacher", teacher, "--self-mask-from-epoch", "2",
                         "--kd-weight", "0.5"]}
    for name, flags in policies.items():
        done = run("fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, "--save-dir", folder / name,
                   "--max-epoch", "2", "--save-interval-updates", "4", *flags)
        assert done.returncode == 0, done.stderr
        (folder / name / "train.log").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_a_run_is_read_as_fairseq_printed_it(runs):
    init = training_log.read_pretraining_run(str(runs / "init"))
    printed = re.findall(r"\| valid \|.* loss ([\d.]+) \| accuracy ([\d.]+).* num_updates (\d+)",
                         (runs / "init" / "train.log").read_text())
    assert [(log["loss"], log["accuracy"], log["num_updates"]) for log in init.valid] == [
        tuple(map(float, numbers)) for numbers in printed]
    assert [log["epoch"] for log in init.train] == [1, 2]
    after_epoch_1 = init.train[0]["num_updates"]
    assert init.events() == [(after_epoch_1, "self-masking begins"), (0, "distillation begins")]
    assert training_log.read_pretraining_run(str(runs / "random")).events() == []


@pytest.mark.slow
def test_training_time_is_read_as_it_was_logged(runs):
    lines = [*(runs / "init" / "train.log").read_text().splitlines(),
             "x | INFO | train_inner | epoch 002:  9 / 9 loss=9.0, num_updates=9, lr=1, hours=2e-05, wall=3"]
    logged = training_log.hours_of(lines)
    updates, hours = zip(*logged)
    assert dict(logged)[9] == 2e-05 and list(updates) == sorted(set(updates))
    run = training_log.read_pretraining_run(str(runs / "init"))
    assert [update for update, _ in run.hours] == list(range(1, run.train[-1]["num_updates"].__int__() + 1))
    times = [hours for _, hours in run.hours]
    assert times == sorted(times) and 0 < times[0] < times[-1] < 0.1
    assert list(run.hours_at([1, 2])) == times[:2]


def without_line_of_epoch(run, epoch, folder):
    shutil.copytree(run, folder)
    lines = (folder / "train.log").read_text().splitlines(keepends=True)
    (folder / "train.log").write_text("".join(line for line in lines if f"| train | epoch {epoch:03} |" not in line))
    return training_log.read_pretraining_run(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_killed_before_the_line_about_an_epoch_keeps_its_epochs(epoch, runs, tmp_path):
    whole = training_log.read_pretraining_run(str(runs / "init"))
    killed = without_line_of_epoch(runs / "init", epoch, tmp_path / "init")
    assert [(log["epoch"], log["num_updates"]) for log in killed.train] == [
        (log["epoch"], log["num_updates"]) for log in whole.train]
    assert killed.events() == whole.events() != []
    assert killed.train[2 - epoch] == whole.train[2 - epoch] and "loss" not in killed.train[epoch - 1]
    last_known = f"| {whole.train[2 - epoch]['entropy']:.2f} "
    assert last_known in comparison.comparison_table([killed], None).markdown()
    written = account(str(tmp_path / "init"))
    assert written["flops"] == pytest.approx(account(str(runs / "init"))["flops"], rel=0.1)  # epochs differ in tokens
    assert not written["events_not_reached"] and (written["train_loss_bits"] is None) == (epoch == 2)


@pytest.mark.slow
def test_what_an_epoch_would_begin_has_not_begun_before_it(runs):
    once = training_log.read_pretraining_run(str(runs / "init"))
    once.train = once.train[:1]
    assert once.events() == [(0, "distillation begins")]


@pytest.mark.slow
def test_a_resumed_log_counts_each_update_once(runs):
    lines = (runs / "random" / "train.log").read_text().splitlines()
    valid = [log for kind, log in training_log.parse_log(lines + lines) if kind == "valid"]
    once = training_log.last_of(valid)
    assert len(valid) == 2 * len(once)
    assert [log["num_updates"] for log in once] == sorted({log["num_updates"] for log in once})


@pytest.mark.slow
def test_the_table_shows_the_last_validation_and_unknown_entropies_as_such(runs):
    both = [training_log.read_pretraining_run(str(runs / name)) for name in ("random", "init")]
    header, _, random, init = ([cell.strip() for cell in line.split("|")[1:-1]]
                               for line in comparison.comparison_table(both, 8.0).markdown().splitlines()[:4])
    random, init = dict(zip(header, random)), dict(zip(header, init))
    assert init["masks"] == "high, teacher, self from epoch 2, KD 0.5 from epoch 1" and random["masks"] == "random"
    assert init["valid loss"] == f"{both[1].valid[-1]['loss']:.3f}"
    assert float(init["mean entropy: masked tokens"]) > float(init["all tokens"]) > 0
    assert random["mean entropy: masked tokens"] == random["all tokens"] == "–"  # nothing was scored


def test_unigram_entropy_is_that_of_the_counts(tmp_path):
    (tmp_path / "dict.txt").write_text("a 2\nb 1\nc 1\nnever 0\n")
    assert training_log.dictionary_unigram_entropy(str(tmp_path / "dict.txt")) == pytest.approx(1.5)


@pytest.mark.slow
def test_a_run_on_the_plateau_is_named(runs):
    random = training_log.read_pretraining_run(str(runs / "random"))
    loss = random.valid[-1]["loss"]
    assert "random is on the plateau: valid loss" in comparison.plateau_warnings([random], loss)[0]
    assert comparison.plateau_warnings([random], loss + 0.31) == []
    assert math.isfinite(loss)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_a_picture(runs, data_bin):
    command = [sys.executable, ROOT / "scripts" / "compare_runs.py", runs / "random", runs / "init", "--dict",
               f"{data_bin}/dict.txt", "--out", runs / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (runs / "out" / "comparison.md").read_text() in done.stdout
    assert (runs / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no train.log found"):
        training_log.read_pretraining_run(str(tmp_path))


@pytest.mark.parametrize("content", [None, "no counts here\n", b"\xff\xfe"])
def test_a_file_that_is_no_dictionary_is_named(content, tmp_path):
    if content is not None:
        (tmp_path / "d").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match="--dict: .*d cannot be read"):
        training_log.dictionary_unigram_entropy(tmp_path / "d")


def test_a_run_of_another_task_is_not_compared(data_bin, tmp_path):
    train(data_bin, str(tmp_path), "--max-update", "1",
          task=["--task", "masked_lm", "--criterion", "masked_lm", "--tokens-per-sample", "16"])
    (tmp_path / "train.log").touch()
    with pytest.raises(UsageError, match="a run of --task masked_lm found, expected --task and --criterion entropy_ma"):
        training_log.read_pretraining_run(str(tmp_path))


def test_a_log_of_hydra_is_read_too():
    line = "[2026-11-21 03:00:00,123][valid][INFO] - epoch 001 | valid on 'valid' subset | loss 8.5 | num_updates 4"
    assert list(training_log.parse_log([line])) == [("valid", {"epoch": 1, "loss": 8.5, "num_updates": 4.0})]


def guided_run(**task):
    flags = {"task": {"mask_strategy": "high", "teacher": None, "self_mask_from_epoch": 2, **task},
             "criterion": {"kd_weight": 0.0}, "optimization": {"max_epoch": 4, "max_update": 0}}
    train_logs = [{"epoch": epoch, "num_updates": 10.0 * epoch, "wpb": 1.0, "guided": guided}
                  for epoch, guided in ((1, 0.0), (2, 0.2), (3, 0.3))]
    return training_log.PretrainingRun("mine", flags, [{"num_updates": 30.0, "loss": 5.0, "accuracy": 0.2}], train_logs,
                                       [(30, 0.1)], 50)


def test_the_picture_shows_how_many_masks_should_follow_the_scores_and_did(tmp_path, monkeypatch):
    run = guided_run(guided_fraction="0:0.4")
    updates, intended = comparison.intended_guided(run)
    assert updates == [0, 10, 10, 20, 20, 30]
    assert intended == pytest.approx([0, 0, 10, 20, 20, 30])  # random masks in epoch 1; in %, of 40 updates in all
    panels = []
    monkeypatch.setattr(comparison, "save", lambda figure, file: panels.extend(figure.axes))
    comparison.draw_comparison([run, guided_run()], 7.0, str(tmp_path / "x.png"))
    lines = {line.get_linestyle(): line.get_xydata().tolist() for line in panels[2].lines if len(line.get_xdata())}
    assert lines["None"] == [[5, 0], [15, 20], [25, 30]]
    assert lines["--"] == [list(pair) for pair in zip(updates, intended)]
    assert comparison.describe_masks(run.flags) == "high, random, self from epoch 2, 0:0.4 guided"


def test_without_partly_guided_runs_the_picture_has_two_panels(tmp_path, monkeypatch):
    panels = []
    monkeypatch.setattr(comparison, "save", lambda figure, file: panels.extend(figure.axes))
    comparison.draw_comparison([guided_run(), guided_run(mask_strategy="random", guided_fraction="0.5")], None, "x.png")
    assert len(panels) == 2


def test_accuracy_on_minimal_pairs_has_a_column_and_a_panel_where_a_run_has_it(monkeypatch):
    with_pairs, without = guided_run(mask_strategy="random"), guided_run(mask_strategy="random")
    for each in (with_pairs, without):
        each.train = [{**log, "loss": 6.0} for log in each.train]
    with_pairs.name = "pairs"
    with_pairs.valid = [{"num_updates": 20.0, "loss": 5.5, "accuracy": 0.1, "pairs_accuracy": 0.5},
                        {"num_updates": 30.0, "loss": 5.0, "accuracy": 0.2, "pairs_accuracy": 0.625}]
    table = comparison.comparison_table([with_pairs, without], None)
    assert table.header[-1] == "minimal pairs" and [row[-1] for row in table.rows] == ["62.5%", "–"]
    assert "minimal pairs" not in comparison.comparison_table([without], None).header
    panels = []
    monkeypatch.setattr(comparison, "save", lambda figure, file: panels.append(figure.axes))
    comparison.draw_comparison([with_pairs, guided_run(guided_fraction="0:0.4")], None, "x.png")
    comparison.draw_comparison([without], None, "x.png")
    (loss, accuracy, pairs, guided), two = panels
    assert len(two) == 2 and pairs.get_title() == "minimal pairs" and "follow" in guided.get_title()
    line, chance = pairs.lines
    assert line.get_xydata().tolist() == [[20, 50], [30, 62.5]] and set(chance.get_ydata()) == {50}


def test_accuracy_on_minimal_pairs_is_read_from_the_log():
    line = "2026 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 8.3 | pairs_accuracy 0.49 | num_updates 4"
    assert list(training_log.parse_log([line])) == [
        ("valid", {"epoch": 1, "loss": 8.3, "pairs_accuracy": 0.49, "num_updates": 4.0})]
