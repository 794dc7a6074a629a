"""The paper's studies: their commands, a killed and resumed run, what the tables say of planted records."""

import contextlib
import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.glue import planted, write_glue, write_settings, write_trial
from builders.huggingface import make_folder
from builders.training import MODULES, OURS, ROOT, TINY, docstrings, make_bert_vocabulary, parse, same_weights, train

from entropy_mask_plugin import cli
from entropy_mask_plugin.config import Corruption, EntropyMaskedLMConfig, corruption_of
from entropy_mask_plugin.glue.metrics import Predictions, official_score
from entropy_mask_plugin.glue.paper import PAPER_CELLS, PAPER_ROWS, is_single_class_score
from entropy_mask_plugin.glue.tasks import TASKS
from entropy_mask_plugin.models.flops import macs_of_step
from entropy_mask_plugin.reporting.training_log import read_pretraining_run
from entropy_mask_plugin.studies import curves, identity, plan, report, results, run, tables
from entropy_mask_plugin.studies.conditions import CONDITIONS, STUDIES, condition_names
from entropy_mask_plugin.studies.options import StudyOptions, owned, resolve
from entropy_mask_plugin.studies.plan import StudyTrial, plan_of
from entropy_mask_plugin.studies.record import account, flops_per_token, model_of_settings, peak_gpu_memory_bytes
from entropy_mask_plugin.studies.scales import SCALES
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.system.processes import ProcessFailed


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    return str(write_glue(tmp_path_factory.mktemp("glue") / "tasks"))


def resolved(*flags, **more):
    return resolve(StudyOptions(*flags, **more))


def options(data_bin, glue, out="run", **more):
    settings = dict(studies=list(STUDIES), scale="smoke", glue=glue, out=str(out), seeds=[1], tasks=["rte"])
    settings["data"] = [data_bin] * (1 + ("corpus" in more.get("studies", STUDIES)))
    return resolved(**{**settings, **more})


# ---- commands


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["bertlet", "bert_base"])
@pytest.mark.parametrize("scale", SCALES)
def test_every_command_of_every_study_is_understood(scale, arch, data_bin, glue):
    wanted = plan_of(options(data_bin, glue, scale=scale, arch=arch))
    steps = {step.folder: step for steps in wanted.values() for step in steps}
    assert len(wanted) == len(CONDITIONS) and len(steps) > len(wanted)
    trainings = 0
    for step in steps.values():
        assert "{" not in step.shell_line()
        module, *words = step.command[2:]
        if module == "fairseq_cli.train":
            cfg = parse(words)
            assert cfg.task.tokens_per_sample == SCALES[scale].length and cfg.model._name == arch
            trainings += 1
        else:
            assert module == "entropy_mask_plugin.cli" and words[0] in ("glue", "build-entropy-cache")
            cli.parse(words[0], words[1:])
    assert trainings == 1 + sum(row.flags is not None for row in CONDITIONS.values())


def pretraining_of(row, data_bin, glue, **more):
    """What fairseq makes of the flags of a row's pretraining."""
    wanted = plan_of(options(data_bin, glue, **more))
    trial = next(trial for trial in wanted if trial.condition == row)
    return parse(next(step for step in wanted[trial] if step.kind == "pretraining").command[3:])


@pytest.mark.parametrize("row, expected", {
    "random": dict(mask_strategy="random", teacher=None, entropy_cache=None),
    "random-static": dict(mask_strategy="random", static_masks=True),
    "high": dict(mask_strategy="high", self_mask_from_epoch=None),
    "low": dict(mask_strategy="low"), "mid": dict(mask_strategy="mid"), "marginal": dict(mask_strategy="marginal"),
    "alternating": dict(mask_strategy="alternating"),
    "high-cold": dict(mask_strategy="high", self_mask_from_epoch=1, teacher=None),
    "high-init": dict(mask_strategy="high", self_mask_from_epoch=2),
    "high-frozen": dict(mask_strategy="high"),
    "high-40": dict(mask_strategy="high", mask_prob="0.4"), "low-one": dict(mask_strategy="low", mask_count=1),
    "kd-only": dict(mask_strategy="random", kd_weight=0.5, kd_start_epoch=1),
    "kd-complete": dict(mask_strategy="high", self_mask_from_epoch=2, kd_weight=0.5, kd_start_epoch=1),
    "kd-after-init": dict(mask_strategy="high", self_mask_from_epoch=2, kd_weight=0.5, kd_start_epoch=2),
    "random-30-15": dict(mask_strategy="random", mask_prob="0.3:0.15"),
    "cold-half-sequences": dict(mask_strategy="high", self_mask_from_epoch=1, guided_fraction="0.5",
                                guided_by="sequences", teacher=None),
    "init-ramp-ema-30": dict(mask_strategy="high", self_mask_from_epoch=2, guided_fraction="0:0.5", mask_prob="0.3",
                             self_mask_model="ema", store_ema=True, teacher=None),
    "high-init-half": dict(mask_strategy="high", self_mask_from_epoch=2, guided_fraction="0.5"),
    "gumbel": dict(mask_strategy="gumbel", teacher=None),
    "contextual": dict(mask_strategy="high", entropy_folds=7),
    "accuracy": dict(mask_strategy="gumbel", mask_score="accuracy", teacher=None),
}.items(), ids=str)
def test_a_condition_is_the_policy_that_its_name_says(row, expected, data_bin, glue):
    cfg = pretraining_of(row, data_bin, glue)
    flags = {**cfg.ema, **cfg.task, **cfg.criterion}
    assert {name: flags[name] for name in expected} == expected
    by_teacher = expected["mask_strategy"] != "random" and expected.get("self_mask_from_epoch") != 1 and (
        "teacher" not in expected)
    assert bool(flags["entropy_cache"]) == by_teacher
    assert bool(flags["teacher"]) == (by_teacher or "kd_weight" in expected)
    assert corruption_of(cfg.task)[1:] == (0, 0)
    both = pretraining_of(row, data_bin, glue, corruptions=["80-10-10"])
    assert corruption_of(both.task)[1:] == (0.1, 0.1)


def test_rows_are_compared_with_rows_that_are_there():
    for condition in CONDITIONS.values():
        assert condition.baseline in CONDITIONS and (condition.pretraining or "random") in CONDITIONS
        assert CONDITIONS[condition.baseline].corpus == condition.corpus or condition.baseline == "random"
    for study, names in STUDIES.items():
        assert set(names) <= set(CONDITIONS) and len(condition_names([study])) == len(names)
    assert {name for names in STUDIES.values() for name in names} == set(CONDITIONS)


def test_a_frozen_row_fine_tunes_the_model_of_another_without_pretraining_it_again(data_bin, glue):
    wanted = plan_of(options(data_bin, glue, studies=["teacher-masking", "frozen"]))
    high, frozen = wanted[StudyTrial("high", "all-mask", 1)], wanted[StudyTrial("high-frozen", "all-mask", 1)]
    assert [step.kind for step in high] == ["teacher", "entropies", "pretraining", "fine-tuning"]
    assert high[:3] == frozen[:3] and high[3] != frozen[3] and "--freeze-encoder" in frozen[3].command
    words = frozen[3].command
    assert words[len(words) - 1 - words[::-1].index("--max-epochs") + 1] == "1"  # section 3.3: for one epoch


def test_rows_wait_for_what_they_use_alone(data_bin, glue):
    """A row without teacher neither needs its training nor says that it did."""
    plan = plan_of(options(data_bin, glue))
    kinds = {trial.condition: [step.kind for step in steps] for trial, steps in plan.items()}
    assert kinds["random"] == kinds["high-cold"] == kinds["no-pretraining"] == ["pretraining", "fine-tuning"]
    assert kinds["the-teacher"] == ["teacher", "fine-tuning"]
    assert kinds["kd-only"] == ["teacher", "pretraining", "fine-tuning"]
    corpora = plan_of(options(data_bin, glue))[StudyTrial("high-init-corpus-2", "all-mask", 1)]
    assert corpora[1].folder.endswith("corpus2")


@pytest.mark.parametrize("more, expected", [
    ((), []), (("--precision", "bf16"), ["--precision", "bf16"]),
    (("--precision=bf16", "--lr", "1"), ["--precision", "bf16"]),
    (("--precision", "bf16", "--precision=fp32", "--entropy-precision=bf16"),
     ["--precision", "fp32", "--entropy-precision", "bf16"]),
], ids=str)
def test_entropies_are_computed_as_the_training_will_ask_for_them(more, expected, data_bin, glue):
    wanted = options(data_bin, glue, studies=["self-masking"], extra_args=(*more, "--cpu"))
    step = plan_of(wanted)[StudyTrial("high", "all-mask", 1)][1]
    assert list(step.command[step.command.index("--tokens-per-sample") + 2 :]) == [*expected, "--cpu"]


def test_the_learning_rate_decays_over_the_updates_that_there_will_be(data_bin, glue, tmp_path):
    cfg = pretraining_of("random", data_bin, glue, scale="small")
    train(data_bin, str(tmp_path), "--mask-strategy", "random", "--batch-size", "64", "--max-epoch", "1",
          "--tokens-per-sample", "32", model=[*TINY[:-1], "32"], task=OURS[:4])
    per_epoch = read_run_of(tmp_path)
    assert per_epoch * 6 <= cfg.lr_scheduler.total_num_update <= (per_epoch + 1) * 6


def updates_of(run):
    return run.train[-1]["num_updates"]


def read_run_of(folder):
    """Updates, from the checkpoint: this process has no train.log."""
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["optimizer_history"][-1]["num_updates"]


# ---- end to end


@pytest.fixture(scope="module")
def place(tmp_path_factory, glue):
    """A corpus with its tokenizer beside."""
    folder = tmp_path_factory.mktemp("study")
    make_folder(folder / "hf", tokens=make_bert_vocabulary(), num_hidden_layers=1, hidden_size=16, intermediate_size=32,
                num_attention_heads=2, max_position_embeddings=64)
    lines = [" ".join(words) for name in MODULES for words in docstrings(name) if len(words) > 8][:150]
    (folder / "text").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run([sys.executable, ROOT / "scripts" / "prepare_corpus.py", "--text", folder / "text", "--out",
                           folder / "corpus", "--bert-vocab", folder / "hf", "--valid-fraction", "0.2"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def processes_with(word):
    """Command lines of the processes that have a word in theirs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [line] if word in (line := file.read_text(errors="replace")) else []
    return found


def script(place, glue, out, *more):
    command = [sys.executable, ROOT / "scripts" / "reproduce.py", "drift", "--scale", "smoke", "--data",
               place / "corpus" / "bin", "--glue", glue, "--out", place / out, "--tasks", "rte", *more, "--", "--cpu"]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def finished(place, glue):
    """A study of the rows random and high-init, two seeds, two at once, killed once: (folder, what it printed)."""
    both = ("--seeds", "1", "2", "--jobs", "2")
    killed = script(place, glue, "killed", *both)
    training = place / "killed" / "high-init" / "all-mask" / "seed1" / "pretraining" / "checkpoint_last.pt"
    while killed.poll() is None and not training.exists():
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)  # the script alone: what it started has to end with it
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    time.sleep(0.5)
    assert not processes_with(str(place / "killed"))
    teacher = place / "killed" / "teacher" / plan.FINISHED
    before = teacher.stat().st_mtime_ns
    again = script(place, glue, "killed", *both)
    output, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors[-3000:]
    assert teacher.stat().st_mtime_ns == before  # not repeated
    return place / "killed", output


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_like_a_straight_one(finished, place, glue, tmp_path):
    folder, output = finished
    assert "| random" in output and "| high-init" in output and "Scale smoke" in output
    for row in ("random", "high-init"):
        for seed in (1, 2):
            trial = place / "killed" / row / "all-mask" / f"seed{seed}"
            record = json.loads((trial / "record.json").read_text())
            assert record["pretraining"]["updates"] == updates_of(read_pretraining_run(trial / "pretraining")) > 10
    wanted = plan_of(resolved(["drift"], "smoke", [str(place / "corpus" / "bin")], glue, str(folder), [1],
                              tasks=["rte"], extra_args=("--cpu",)))
    step = wanted[StudyTrial("high-init", "all-mask", 1)][2]  # the killed one, straight, with its teacher and cache
    log = (place / "killed/high-init/all-mask/seed1/pretraining/train.log").read_text()
    assert [int(found) for found in re.findall(r"Loaded checkpoint .* \(epoch \d+ @ (\d+) updates\)", log)][-1] > 0
    words = [str(tmp_path) if word == step.folder else word for word in step.argv()]
    assert subprocess.run(words, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    assert same_weights(os.path.join(step.folder, "checkpoint_last.pt"), tmp_path / "checkpoint_last.pt")
    events = json.loads((place / "killed/high-init/all-mask/seed1/record.json").read_text())["pretraining"]
    assert [event["event"] for event in events["events"]] == ["self-masking begins"]
    assert not events["events_not_reached"]
    assert re.search(r"- teacher: trained here, .*, to \d+\.\d\d bits, \d+\.\d% on the validation masks\n", output)
    assert "CAUTION: The teacher ended on the unigram plateau" in output  # after 16 updates
    for file in ("report.html", "report.md", "report.csv", "report.tex", "curves-all-mask.png",
                 "drift-high-init-all-mask.png"):
        assert (place / "killed" / file).stat().st_size > 300, file


@pytest.mark.slow
def test_the_page_needs_no_other_file_and_shows_the_commands(finished):
    page = (finished[0] / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page) and page.count("data:image/png;base64,") == 3
    assert html.escape("fairseq_cli.train") in page and "--self-mask-from-epoch 2" in page
    assert re.search(r"<td class=\"marked\">random PLATEAU</td>", page)  # after so few updates


@pytest.mark.slow
def test_a_finished_study_is_reported_again_without_running_anything(finished, place, glue):
    (place / "killed" / "report.html").unlink()
    done = script(place, glue, "killed", "--seeds", "1", "2", "--report-only")
    output, errors = done.communicate(timeout=120)
    assert done.returncode == 0 and (place / "killed" / "report.html").exists(), errors
    other = script(place, glue, "killed", "--scale", "paper", "--report-only")
    _, errors = other.communicate(timeout=120)
    assert other.returncode and "study.json was made with another --scale (smoke), expected paper" in errors


@pytest.mark.slow
def test_records_of_another_commit_data_or_scale_are_refused_by_name(finished, place, glue):
    wanted = resolved(["drift"], "smoke", [str(place / "corpus" / "bin")], glue, str(place / "killed"), [1, 2],
                      tasks=["rte"], extra_args=("--cpu",))
    now = identity.identity(wanted)
    identity.refuse_another(wanted.out, now)  # the very same
    for name, other, message in (("commit", "0123", r"\w+( with changes \w+)?\), expected 0123"),
                                 ("scale", "paper", r"smoke\), expected paper"),
                                 ("data", {"corpus1/train.*": "another"}, r"corpus1/train\.\*\), expected the same")):
        with pytest.raises(UsageError, match=rf"study.json was made with \w+ (--)?{name} \({message}"):
            identity.refuse_another(wanted.out, {**now, name: other})
    record = place / "killed" / "random" / "all-mask" / "seed2" / "record.json"
    kept = record.read_text()
    record.write_text(kept.replace(f'"commit": {json.dumps(now["commit"])}', '"commit": "0123"'))
    with pytest.raises(UsageError, match=r"seed2/record.json was made with another commit \(0123\), expected"):
        identity.refuse_another(wanted.out, now)
    record.write_text(kept)
    identity.refuse_another(wanted.out, {**now, "glue": {"cola": "more tasks may come"}})


@pytest.mark.slow
def test_a_task_can_be_added_to_a_finished_study(finished, place, glue):
    more = resolved(["drift"], "smoke", [str(place / "corpus" / "bin")], glue, str(place / "killed"), [1],
                   conditions=["random"], tasks=["rte", "mnli"], extra_args=("--cpu",))
    trained = os.path.join(more.out, "random", "all-mask", "seed1", "pretraining", "checkpoint_best.pt")
    before = os.stat(trained).st_mtime_ns
    assert run.run_study(more) == []
    assert "MNLI-mismatched" in report.write_study_report(more) and os.stat(trained).st_mtime_ns == before


@pytest.mark.slow
def test_what_fails_is_named_and_tried_once(place, glue, tmp_path):
    broken = resolved(["drift", "frozen"], "smoke", [str(place / "corpus" / "bin")], glue, str(tmp_path / "broken"),
                      [1], conditions=["random", "random-frozen"], tasks=["rte"], jobs=2,
                     extra_args=("--cpu", "--no-such-flag"))
    failures = dict(run.Runner(broken, plan_of(broken), identity.identity(broken)).run())
    assert failures.keys() == {"random, all-mask, seed 1", "random-frozen, all-mask, seed 1"}
    log = tmp_path / "broken" / "random" / "all-mask" / "seed1" / "pretraining" / "train.log"
    assert all(f"{log}: " in sentence for sentence in failures.values())
    assert log.read_text().count("unrecognized arguments: --no-such-flag") == 1  # both need it, one tries


@pytest.mark.slow
def test_what_many_rows_need_is_made_first_and_its_failure_stops_only_them(place, glue, tmp_path, monkeypatch,
                                                                            capsys):
    wanted = resolved(["teacher-masking"], "smoke", [str(place / "corpus" / "bin")], glue, str(tmp_path / "run"), [1],
                     conditions=["random", "high"], tasks=["rte"], extra_args=("--cpu",))
    begun = []
    old = tmp_path / "run" / "random" / "all-mask" / "seed1" / "pretraining" / "train.log"
    old.parent.mkdir(parents=True)
    old.write_text("of a call that ended before its first checkpoint, perhaps of another model")

    def run_logged(words, log, *more):
        begun.append(Path(log).parent.relative_to(wanted.out).parts[0])
        if begun[-1] == "teacher":
            raise ProcessFailed("no teacher")
        return 0

    monkeypatch.setattr(run, "run_logged", run_logged)
    monkeypatch.setattr(run, "write_record", lambda *_: None)
    assert run.run_study(wanted) == [("high, all-mask, seed 1", "no teacher")]
    assert begun == ["teacher", "random", "random"] and not old.exists()
    assert "failed: the teacher: no teacher. The trials that need it are left out." in capsys.readouterr().err
    assert [step.kind for step in run.all_steps(plan_of(wanted))][:3] == ["teacher", "entropies", "pretraining"]


@pytest.mark.slow
def test_a_folder_where_only_a_mistake_was_made_can_be_used(place, glue, tmp_path):
    asked = dict(studies=["drift"], scale="smoke", data=[str(place / "corpus" / "bin")], glue=glue, seeds=[1],
                 out=str(tmp_path / "run"), conditions=["random"], tasks=["rte"])
    assert run.run_study(resolved(**asked, extra_args=("--cpu", "--no-such-flag")))  # leaves study.json and a log
    corrected = identity.identity(resolved(**asked, extra_args=("--cpu",)))
    identity.refuse_another(asked["out"], corrected)
    (tmp_path / "run" / "random" / "all-mask" / "seed1" / "pretraining" / "checkpoint_last.pt").touch()
    with pytest.raises(UsageError, match="study.json was made with other flags after --"):
        identity.refuse_another(asked["out"], corrected)


@pytest.mark.slow
def test_a_hugging_face_bert_can_be_the_teacher(place, glue, tmp_path):
    """As it comes, with an import that was killed before it said that it was finished; and imported before."""
    asked = dict(studies=["teacher-masking"], scale="smoke", data=[str(place / "corpus" / "bin")], glue=glue,
                 seeds=[1], conditions=["high"], tasks=["rte"], extra_args=("--cpu",))
    wanted = resolved(out=str(tmp_path / "run"), teacher=str(place / "hf"), **asked)
    trial = StudyTrial("high", "all-mask", 1)
    first = plan_of(wanted)[trial][0]
    assert subprocess.run(first.argv(), capture_output=True).returncode == 0
    assert run.run_study(wanted) == []
    record = json.loads((tmp_path / "run" / "high" / "all-mask" / "seed1" / "record.json").read_text())
    assert len(record["commands"]) == 4 and "import-hf-bert" in record["commands"][0]
    imported = resolved(out=str(tmp_path / "other"), teacher=str(tmp_path / "run" / "teacher" / "imported"), **asked)
    steps = plan_of(imported)[trial]
    assert [step.kind for step in steps] == ["entropies", "pretraining", "fine-tuning"]
    assert str(tmp_path / "run" / "teacher" / "imported" / "model.pt") in steps[0].command


# ---- what a record says


@pytest.mark.slow
def test_the_flops_of_a_run_are_those_of_its_epochs(teacher, data_bin, tmp_path, capfd):
    """Self-masking from epoch 2 with the teacher's cache, distillation from epoch 3."""
    folder = tmp_path / "run"
    folder.mkdir()
    flags = ["--mask-strategy", "high", "--teacher", teacher, "--entropy-cache", str(tmp_path / "cache"),
             "--self-mask-from-epoch", "2", "--kd-weight", "0.5", "--kd-start-epoch", "3", "--max-epoch", "3"]
    done = subprocess.run([sys.executable, "-m", "fairseq_cli.train", data_bin, "--user-dir",
                           str(ROOT / "entropy_mask_plugin"), *OURS, *TINY, "--optimizer", "adam", "--lr", "0.01",
                           "--batch-size", "64", "--cpu", "--num-workers", "0", "--log-format", "simple", "--save-dir",
                           str(folder), *flags], capture_output=True, text=True)
    (folder / "train.log").write_text(done.stdout + done.stderr)
    pretraining = read_pretraining_run(str(folder))
    model = model_of_settings(pretraining.flags["model"], pretraining.vocabulary, 16)
    masks = Corruption(0.15, 0, 0)
    step = lambda **more: 2 * macs_of_step(model, 16, masks, model, **more)  # noqa: E731
    # the tiny teacher is of the student's size
    assert list(flops_per_token(pretraining)) == pytest.approx([step(entropies="teacher"), step(entropies="self"),
                                                          step(entropies="self", distils=True)])
    task = {**pretraining.flags["task"], "entropy_folds": 3}
    with_folds = replace(pretraining, flags={**pretraining.flags, "task": task})
    assert next(flops_per_token(with_folds)) == pytest.approx(step(entropies="teacher", folds=3))
    written = account(str(folder))
    tokens = [log["wpb"] * updates for log, updates in zip(pretraining.train, np.diff([
        0, *(log["num_updates"] for log in pretraining.train)]))]
    assert written["flops"] == pytest.approx(sum(cost * n for cost, n in zip(flops_per_token(pretraining), tokens)))
    assert [event["event"] for event in written["events"]] == ["self-masking begins", "distillation begins"]
    assert written["valid"][-1]["hours"] >= 0 and written["tokens"] == pytest.approx(sum(tokens))


def test_the_peak_of_a_gpu_s_memory_is_what_its_log_says(tmp_path):
    (tmp_path / "train.log").write_text("rank   0: capabilities =  9.0  ; total memory = 139.800 GB ; name = NVIDIA\n"
                                        "… | gb_free=139.1 | wall=3\n… | gb_free=100.3\n… | gb_free=101\n")
    assert peak_gpu_memory_bytes(tmp_path) == pytest.approx(39.5 * 2**30)
    (tmp_path / "train.log").write_text("no GPU\n")
    assert peak_gpu_memory_bytes(tmp_path) is None


def plant(folder, row, seed, loss, right, of_study, tasks=("rte", "mnli")):
    """A finished trial: fine-tuning predictions of which a fraction is right (None: collapsed), and a record."""
    trial = folder / row / "all-mask" / f"seed{seed}"
    for task in tasks:
        predictions = planted(TASKS[task], 10 * seed + len(row), 400, 0.5 if right is None else right)
        if right is None:
            predictions = Predictions(predictions.gold, np.ones_like(predictions.gold))
        write_trial(trial / "fine-tuning", task, seed, predictions)
    write_settings(trial / "fine-tuning")
    step = {"machine": "one", "versions": {"torch": "2"}, "threads": 1}
    moved = [["layer 0", "FFN out", 0.5, 70.0], ["model", "LM head", 0.1, 900.0]]
    record = {"condition": row, "corruption": "all-mask", "seed": seed, "commands": ["python -m …"],
              "identity": of_study, "fine_tuning": {**step, "drift": dict.fromkeys(tasks, moved)}}
    point = {"updates": 100.0, "tokens": 1e6, "flops": 1e12, "hours": 0.5, "loss_bits": loss, "accuracy": 0.1}
    record["pretraining"] = {**step, **point, "valid": [point, point], "unigram_entropy_bits": 8.0,
                             "events": [], "events_not_reached": [], "train_loss_bits": 7.0, "entropy_nats": None,
                             "masked_entropy_nats": None, "peak_memory_bytes": 2**30, "peak_gpu_memory_bytes": None}
    (trial / "record.json").write_text(json.dumps(record))


@pytest.fixture
def study(tmp_path, data_bin, glue):
    """random and high-init with two seeds, high with one of two; high-init collapsed in one seed."""
    wanted = options(data_bin, glue, tmp_path, studies=["self-masking"], seeds=[1, 2], tasks=["rte", "mnli"])
    for row, seed, loss, right in (("random", 1, 6.0, 0.6), ("random", 2, 6.2, 0.6), ("high", 1, 7.8, 0.9),
                                   ("high-init", 1, 7.65, 0.6), ("high-init", 2, 7.8, None)):
        plant(tmp_path, row, seed, loss, right, identity.identity(wanted))
    return wanted


def table(study, title):
    shown = next(each for each in tables.tables_of(study, results.read_results(study)) if each.title.startswith(title))
    return shown.header, {row[0]: dict(zip(shown.header, row)) for row in shown.rows}


def test_means_marks_and_averages_are_those_of_the_predictions(study):
    header, rows = table(study, "Scores")
    assert header[2:] == ["RTE", "MNLI-mismatched", "mean of 2", "mean of 2 informative"]
    own = {(row, task): [official_score(TASKS[task], planted(TASKS[task], 10 * seed + len(row), 400, 0.6))
                         for seed in (1, 2)] for row in ("random",) for task in ("rte", "mnli")}
    for column, task in (("RTE", "rte"), ("MNLI-mismatched", "mnli")):
        values = own["random", task]
        assert rows["random"][column] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    averages = np.mean([own["random", task] for task in ("rte", "mnli")], axis=0)
    assert rows["random"]["mean of 2"] == f"{np.mean(averages):.2f} ± {np.std(averages, ddof=1):.2f}"
    assert rows["high PLATEAU"]["seeds"] == "1 of 2"
    assert rows["high-init PLATEAU 1/2"]["RTE"].endswith("COLLAPSED 1/2")  # 7.65 of 8 has left it, 7.8 has not
    assert rows["paper: random"]["RTE"] == "53.07" and rows["paper: random"]["mean of 2"] == "59.29"


def test_a_task_on_which_nobody_beats_the_majority_is_not_informative(study, tmp_path):
    shutil.rmtree(tmp_path / "high")  # the only one above
    for name in ("random", "high-init"):
        for seed in (1, 2):
            shutil.rmtree(tmp_path / name / "all-mask" / f"seed{seed}" / "fine-tuning" / "rte")
            write_trial(tmp_path / name / "all-mask" / f"seed{seed}" / "fine-tuning", "rte", seed,
                       planted(TASKS["rte"], seed, 400, 0.5))
    header, rows = table(study, "Scores")
    assert header[-1] == "mean of 1 informative"
    assert rows["random"][header[-1]] == rows["random"]["MNLI-mismatched"]


def test_differences_have_the_interval_of_the_seeds_that_both_have(study):
    _, rows = table(study, "Differences")
    gold = planted(TASKS["rte"], 0, 400).gold
    ours, theirs = (planted(TASKS["rte"], 10 + len(row), 400, right) for row, right in (("high", 0.9), ("random", 0.6)))
    expected = official_score(TASKS["rte"], ours) - official_score(TASKS["rte"], theirs)
    difference, low, high, mark = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]( \*)?", rows["high PLATEAU"]["RTE"]).groups()
    assert float(difference) == pytest.approx(expected, abs=0.051) and mark
    draws = np.random.default_rng(3).integers(0, 400, (2000, 400))
    right = [(seed.predicted == gold).astype(float) for seed in (ours, theirs)]
    plain = 100 * (right[0][draws].mean(1) - right[1][draws].mean(1))
    assert (float(low), float(high)) == pytest.approx(tuple(np.percentile(plain, (2.5, 97.5))), abs=1.0)


def test_records_alone_are_refused_under_another_scale(study):
    with pytest.raises(UsageError, match="record.json was made with another --scale"):
        identity.refuse_another(study.out, {"scale": "paper"})


def test_a_report_does_not_need_the_teacher_s_files(study, tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / plan.FINISHED).touch()  # and no checkpoint, to make room
    assert "- teacher: trained here, with random masks and 80/10/10\n" in report.write_study_report(study)


def test_a_mean_of_collapsed_runs_is_marked(study, tmp_path):
    shutil.rmtree(tmp_path / "high-init" / "all-mask" / "seed1")
    plant(tmp_path, "high-init", 1, 7.8, None, identity.identity(study))
    header, rows = table(study, "Differences")
    row = rows["high-init PLATEAU"]
    assert [row[name][-10:] for name in header[2:]][:3] == [" COLLAPSED"] * 3 and header[4] == "mean of 2"
    assert rows["high PLATEAU"]["mean of 2"].endswith(" *")


def test_the_paper_s_single_class_scores_are_marked(study):
    """Of its BERT rows `mid` and `high, cold` all seven cells, to the digit, either class; `random` none."""
    for row, count in (("BERT mid", 7), ("BERT high, cold", 7), ("BERT random", 0), ("BERTlet high, init", 0)):
        assert sum(map(is_single_class_score, PAPER_CELLS, PAPER_ROWS[row])) == count
    assert table(replace(study, arch="bert_base"), "Scores")[1]["paper: random"]["RTE"] == "52.35"


def test_scores_that_are_not_defined_are_no_differences(study, tmp_path):
    gold = planted(TASKS["sts-b"], 1, 50)
    for row in ("random", "high"):
        constant = gold._replace(predicted=np.full(50, 2.5))
        for seed in (1, 2) if row == "random" else (1,):
            write_trial(tmp_path / row / "all-mask" / f"seed{seed}" / "fine-tuning", "sts-b", seed,
                       gold if row == "random" else constant)
            add_task(tmp_path / row / "all-mask" / f"seed{seed}" / "record.json", "sts-b")
    shutil.rmtree(tmp_path / "high-init")
    study = replace(study, tasks=(*study.tasks, "sts-b"))
    _, rows = table(study, "Differences")
    assert [rows["high PLATEAU"][name] for name in ("STS-B", "mean of 3")] == ["–", "–"]
    _, rows = table(study, "Scores")
    assert rows["high PLATEAU"]["STS-B"] == "– COLLAPSED" and rows["high PLATEAU"]["mean of 3"] == "–"


def add_task(file, task):
    record = json.loads(file.read_text())
    record["fine_tuning"]["drift"][task] = []
    file.write_text(json.dumps(record))


def test_a_condition_that_lacks_a_task_is_not_finished_and_takes_no_column_away(study, tmp_path):
    for seed in (1, 2):
        trial = tmp_path / "random" / "all-mask" / f"seed{seed}"
        write_trial(trial / "fine-tuning", "sts-b", seed, planted(TASKS["sts-b"], seed, 400, 0.6))
        add_task(trial / "record.json", "sts-b")
    study = replace(study, tasks=(*study.tasks, "sts-b"))
    header, rows = table(study, "Scores")
    assert "STS-B" in header and "random" in rows and not any(name.startswith("high") for name in rows)
    assert "2 of 8 trials finished" in report.write_study_report(study)
    shutil.rmtree(tmp_path / "random")
    with pytest.raises(UsageError, match=r"--out: no trial in .* has finished rte, mnli, sts-b, expected .*, or other"):
        report.write_study_report(study)


def test_seeds_that_only_one_row_has_are_not_compared(study, tmp_path):
    shutil.rmtree(tmp_path / "random" / "all-mask" / "seed1")
    _, rows = table(study, "Differences")
    assert set(list(rows["high PLATEAU"].values())[2:]) == {"–"}  # its one seed is 1
    own, theirs = (np.mean([official_score(TASKS[task], planted(TASKS[task], 20 + len(row), 400, right) if right else
                                           planted(TASKS[task], 20 + len(row), 400)._replace(predicted=np.ones(400)))
                            for task in ("rte", "mnli")]) for row, right in (("high-init", None), ("random", 0.6)))
    assert rows["high-init PLATEAU 1/2"]["seed by seed"] == f"{own - theirs:+.1f}"


def test_machines_and_versions_are_those_of_every_step(study, tmp_path):
    path = tmp_path / "high" / "all-mask" / "seed1" / "record.json"
    record = json.loads(path.read_text())
    record["pretraining"] |= {"machine": "another", "versions": {"torch": "3"}}
    path.write_text(json.dumps(record))
    study = replace(study, extra_args=("--clip-norm", "2"))
    results_of = results.read_results(study)
    facts = report.facts_of(study, results_of)
    assert "machine: another; one" in facts and "versions: torch 2; torch 3" in facts
    assert "further flags of all pretrainings: --clip-norm 2" in facts


def test_the_drift_study_has_a_table_of_what_moved_most(study):
    _, rows = table(replace(study, studies=["drift"]), "Drift")
    assert list(rows["high-init"].values())[2:] == ["layer 0, FFN out", "0.500", "70"]


def test_the_csv_has_a_line_for_each_score(study):
    lines = tables.score_rows(study, results.read_results(study)).csv().splitlines()
    assert lines[0] == ",".join((*tables.SCORE_KEYS, *tables.COST_KEYS, "commit"))
    assert len(lines) == 1 + 5 * 3  # five records; RTE and MNLI's two dev sets
    assert report.write_study_report(study).count("CAUTION") == 3  # scale smoke, plateau, --limit


def test_pretraining_costs_are_in_the_table(study):
    _, rows = table(study, "Pretraining")
    random = rows["random"]
    assert [random[name] for name in ("updates", "tokens", "FLOPs", "time")] == ["100", "1.00 M", "1e+12", "30.0 min"]
    assert random["valid loss, bits"] == "6.100 ± 0.141" and random["mean entropy: masked tokens, nats"] == "–"


def add_pairs(file, accuracies):
    """As if a pretraining had been run with --valid-pairs."""
    record = json.loads(file.read_text())
    points = [{**point, "pairs_accuracy": value} for point, value in zip(record["pretraining"]["valid"], accuracies)]
    record["pretraining"] |= {"valid": points, "pairs_accuracy": accuracies[-1]}
    file.write_text(json.dumps(record))


def test_accuracy_on_minimal_pairs_is_shown_where_records_have_it(study, tmp_path, monkeypatch):
    assert "minimal pairs, %" not in table(study, "Pretraining")[0]
    assert not curves.draw_pairs_curves(results.read_results(study), "x.png")
    add_pairs(tmp_path / "random" / "all-mask" / "seed1" / "record.json", [0.4, 0.6])
    add_pairs(tmp_path / "random" / "all-mask" / "seed2" / "record.json", [0.5, 0.7])
    _, rows = table(study, "Pretraining")
    assert [rows[name]["minimal pairs, %"] for name in ("random", "high PLATEAU")] == ["65.0 ± 7.1", "–"]
    axes = []
    with monkeypatch.context() as patch:
        patch.setattr(curves, "save", lambda figure, file: axes.extend(figure.axes))
        assert curves.draw_pairs_curves(results.read_results(study), "x.png")
    (line, chance) = axes[0].lines
    assert list(line.get_ydata()) == pytest.approx([0.45, 0.65]) and set(chance.get_ydata()) == {0.5}
    lines = list(csv.DictReader(tables.score_rows(study, results.read_results(study)).csv().splitlines()))
    assert {line["pairs_accuracy"] for line in lines if line["condition"] == "random"} == {"0.6", "0.7"}
    assert {line["pairs_accuracy"] for line in lines if line["condition"] != "random"} == {""}
    assert "![Minimal pairs, all-mask](pairs-all-mask.png)" in report.write_study_report(study)


OLD_KEYS = {"condition": "row", "fine_tuning": "fine-tuning", "peak_memory_bytes": "peak memory",
            "peak_gpu_memory_bytes": "peak GPU memory", "unigram_entropy_bits": "unigram entropy", "loss_bits": "loss",
            "train_loss_bits": "own loss", "entropy_nats": "entropy", "masked_entropy_nats": "entropy of the masks",
            "events_not_reached": "never begun", "event": "what", "extra_args": "more flags"}


def as_older_versions_wrote_it(value):
    if isinstance(value, dict):
        return {OLD_KEYS.get(key, re.sub(r"corpus(\d)/", r"corpus \1 ", key)): as_older_versions_wrote_it(each)
                for key, each in value.items()}
    return value


def test_records_of_an_older_version_are_reported_as_those_of_this(study, tmp_path):
    now, paths = report.write_study_report(study), list(tmp_path.glob("*/*/*/record.json"))
    for path in paths:
        path.write_text(json.dumps(as_older_versions_wrote_it(json.loads(path.read_text()))))
    assert len(paths) == 5 and '"entropy of the masks": null' in paths[0].read_text()
    assert "corpus 1 train.*" in paths[0].read_text() and report.write_study_report(study) == now


def test_a_record_that_cannot_be_read_is_named_with_what_is_missing(study, tmp_path):
    (tmp_path / "random" / "all-mask" / "seed1" / "record.json").write_text('{"row": "random", "identity": {}}')
    with pytest.raises(UsageError, match="seed1/record.json: a record with condition, identity found, expected "
                                         "commands, fine_tuning in it"):
        results.read_results(study)


def test_options_are_not_changed_by_anybody(study):
    with pytest.raises(FrozenInstanceError):
        study.epochs = 3


# They may be given behind the --: a condition that gives them too has the last word.
OF_POLICIES = {"--mask-score", "--mask-unit", "--entropy-folds", "--store-ema", "--ema-decay"}


def test_the_plan_goes_by_every_flag_of_the_masks(data_bin, glue):
    """What conditions or corruptions set cannot be given behind the -- as well."""
    set_by_study = {word for condition in CONDITIONS.values() for word in (condition.flags or "").split()
                    if word.startswith("--")} - {"--lr", "--max-update"} - OF_POLICIES
    assert set_by_study <= owned().keys()
    flags = {"--" + field.name.replace("_", "-") for field in fields(EntropyMaskedLMConfig)}
    of_every_run = {"--mask-score", "--mask-source", "--mask-unit"}  # no condition sets these: they hold for all
    assert {flag for flag in flags if "mask" in flag or "kd" in flag} - of_every_run <= owned().keys()


# ---- mistakes


@pytest.mark.parametrize("more, sentence", [
    (dict(studies=["teacher"]), "STUDY: teacher found, expected one of teacher-masking, self-masking, frozen"),
    (dict(scale="huge"), "--scale: huge found, expected one of smoke, small, paper"),
    (dict(arch="hbert_v1"), "--arch: hbert_v1 found, expected one of bertlet, bert_base"),
    (dict(corruptions=["both"]), "--corruption: both found, expected one of all-mask, 80-10-10"),
    (dict(tasks=None), r"--glue: \d+ files are missing, expected .*CoLA/train.tsv.* or --tasks without them"),
    (dict(tasks=["rte", "sst"]), "--tasks: sst found"),
    (dict(seeds=[1, 1]), "--seeds"), (dict(seeds=[-1]), r"--seeds: \[-1\] found, expected 0 to"),
    (dict(seeds=[1000]), r"--seeds: \[1000\] found, expected others than 1000"),
    (dict(conditions=["lowest"]), "--rows: lowest found, expected some of random, random-static"),
    (dict(epochs=0), "--epochs: 0 found"),
    (dict(extra_args=("--max-epoch", "3")), "--: --max-epoch found, expected --epochs"),
    (dict(extra_args=("--max-sentences", "3")), "--: --max-sentences found, expected another scale"),
    (dict(extra_args=("--mask-prob", "0.3")), "--: --mask-prob found, expected --rows, which differ in it"),
    (dict(extra_args=("--max-ep", "3")), "--: --max-ep found, expected --epochs"),
    (dict(extra_args=("--leave-unmasked-prob=0.1",)), "--: --leave-unmasked-prob=0.1 found, expected --corruption"),
    (dict(corruptions=["all-mask", "all-mask"]), "--corruption: all-mask all-mask found, expected each once"),
    (dict(data=["{bin}"], studies=["corpus"]), "--data: 1 data-bins found, expected 2"),
    (dict(data=["elsewhere"], studies=["drift"]), "--data: no dict.txt, train.bin, .*, valid.idx in .*elsewhere"),
    (dict(data=["{bin}:elsewhere"], studies=["drift"]), "--data: no dict.txt, train.bin, train.idx in .*elsewhere"),
    (dict(teacher="nowhere.pt"), "--teacher: nowhere.pt found, expected a checkpoint"),
])
def test_mistakes_are_one_line(more, sentence, data_bin, glue):
    if "data" in more:
        more = {**more, "data": [path.replace("{bin}", data_bin) for path in more["data"]]}
    with pytest.raises(UsageError, match=sentence):
        options(data_bin, glue, **more)


def test_a_teacher_of_another_arch_is_refused_before_anything_runs(data_bin, glue, tmp_path):
    roberta = train(data_bin, str(tmp_path), "--max-update", "2", model=["--arch", "roberta_base", *TINY[2:]],
                    task=["--task", "masked_lm", "--criterion", "masked_lm", "--tokens-per-sample", "16"])
    with pytest.raises(UsageError, match="--teacher: .* of arch roberta_base found, expected a checkpoint of one of"):
        options(data_bin, glue, teacher=roberta)


@pytest.mark.slow
def test_a_dry_run_prints_every_command_and_writes_nothing(place, glue):
    done = script(place, glue, "dry", "--dry-run", "--seeds", "1", "2", "3")
    output, errors = done.communicate(timeout=120)
    commands = [line for line in output.splitlines() if not line.startswith("#")]
    assert done.returncode == 0 and len(commands) == 2 + 2 * 3 * 2 and not (place / "dry").exists(), errors


# ---- the plateau in the log of every run


def test_a_run_says_where_the_plateau_is_and_that_it_has_not_left_it(data_bin, tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path), "--max-epoch", "1", "--mask-strategy", "random", "--lr", "1e-5")
    with open(f"{data_bin}/dict.txt") as file:
        counts = [int(count) for word, count in map(str.split, file) if word not in ("<mask>", "<unk>")]
    shares = np.array(counts) / sum(counts)
    said = re.search(r"unigram entropy of the training data: ([\d.]+) bits", caplog.text)
    assert float(said[1]) == pytest.approx(-(shares * np.log2(shares)).sum(), abs=2e-3)
    assert "the plateau: valid loss" in caplog.text  # above it, as long as the loss is that of equal probabilities


def test_a_dictionary_without_counts_has_no_plateau():
    from entropy_mask_plugin.training.plateau import is_on_plateau, unigram_entropy

    assert unigram_entropy([1, 1, 1]) is None and unigram_entropy([]) is None and not is_on_plateau(20.0, None)
    assert unigram_entropy([2, 1, 1]) == pytest.approx(1.5)
    assert is_on_plateau(1.21, 1.5) and not is_on_plateau(1.19, 1.5) and is_on_plateau(float("nan"), 1.5)


def test_the_help_explains_every_study():
    text = cli.make_parser("studies").format_help().split("\nstudies:\n")[1]
    explained = re.findall(r"^  ([a-z-]+) +\S", text, re.MULTILINE)
    assert explained == list(STUDIES)
