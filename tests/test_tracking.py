"""TensorBoard and W&B: what they hold of a training is read back from their files."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from builders.processes import Killed, kill_before_update, torchrun
from builders.tracking import tensorboard_scalars, wandb_runs
from builders.training import OURS, PLUGIN, ROOT, TINY, TRAINING, run, train, updates_of_an_epoch
from fairseq.logging import progress_bar

from entropy_mask_plugin.fairseq_fixes import tracking
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.task import EntropyMaskedLMTask

pytest.importorskip("tensorboard")
wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.slow

GUIDED = ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--guided-fraction", "0.5"]
OF_TRAINING = {"loss", "accuracy", "mask_rate", "guided", "entropy", "entropy_masked", "lr"}
TIMES = {"wps", "ups", "wall", "train_wall", "hours"}  # never the same twice


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """W&B writes to a folder of the test; its run ends with the test."""
    for name in ("WANDB_RUN_ID", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "wandb").mkdir()
    for name, value in {"MODE": "offline", "DIR": tmp_path, "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    wandb.teardown()  # so that processes which a test starts do not use that of this one
    yield
    end_tracking()
    wandb.teardown()


def end_tracking():
    """As the end of a process does."""
    tracking.begin(tracking.Training())


def logged_to(folder):
    return ["--tensorboard-logdir", str(folder / "tb"), "--wandb-project", "masks"]


def steps(values):
    return [step for step, _ in values]


# ---- every figure

def numbers_in_log(records, tag):
    """[(update, {name: number})] of fairseq's own log, in JSON."""
    for record in records:
        if record.name == tag:
            numbers = {name.removeprefix(f"{tag}_"): float(value) for name, value in json.loads(record.message).items()
                       if value is not None}
            yield numbers["num_updates"], {name: number for name, number in numbers.items()
                                           if name not in ("num_updates", "epoch", "update")}


def test_both_hold_every_number_of_the_log_at_its_update(data_bin, teacher, tmp_path, caplog, monkeypatch):
    warn = EntropyMaskedLMTask.post_validate

    def with_a_new_metric(self, model, stats, agg):
        warn(self, model, stats, agg)
        stats["minimal_pairs"] = 0.625

    monkeypatch.setattr(EntropyMaskedLMTask, "post_validate", with_a_new_metric)
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path / "run"), *GUIDED, "--guided-fraction", "0:0.5", "--mask-prob", "0.3:0.15",
              "--teacher", teacher, "--kd-weight", "0.5", "--kd-start-epoch", "2", "--max-epoch", "2", "--log-format",
              "json", *logged_to(tmp_path))
    end_tracking()
    (_, name, project, in_wandb), = wandb_runs(tmp_path)
    assert (name, project) == ("run", "masks")
    figures = {"train_inner": OF_TRAINING | {"kd_loss"}, "train": OF_TRAINING | {"kd_loss"},
               "valid": {"loss", "accuracy", "bits_below_unigram", "minimal_pairs", "best_loss"}}
    for tag, expected in figures.items():
        in_tensorboard = tensorboard_scalars(tmp_path / "tb" / tag)
        assert expected <= in_tensorboard.keys()
        log = {}
        for update, numbers in numbers_in_log(caplog.records, tag):
            for key, number in numbers.items():
                log.setdefault(key, []).append((update, number))
        assert log.keys() == in_tensorboard.keys()
        for key, values in log.items():
            for written in (in_tensorboard[key], in_wandb[f"{tag}/{key}"]):
                assert steps(written) == steps(values), (tag, key)
                assert [v for _, v in written] == pytest.approx([v for _, v in values], rel=1e-5, nan_ok=True), key
    unigram = float(re.search(r"unigram entropy of the training data: ([\d.]+)", caplog.text)[1])
    valid = tensorboard_scalars(tmp_path / "tb" / "valid")
    below = [unigram - loss for _, loss in valid["loss"]]
    assert [value for _, value in valid["bits_below_unigram"]] == pytest.approx(below, abs=2e-3)
    assert len(below) == 2


def test_a_dictionary_without_counts_has_no_plateau_to_log(make_task, caplog):
    task, *_ = make_task("--mask-strategy", "random")
    task.unigram_entropy = lambda: None
    stats = {"loss": 9.0}
    task.post_validate(None, stats, None)
    assert stats == {"loss": 9.0}


def test_a_number_that_is_not_one_is_written_as_such(tmp_path):
    bar = tracking.TensorBoardBar(progress_bar.NoopProgressBar([]), str(tmp_path / "tb"))
    bar.print({"loss": math.nan, "kd_loss": None, "num_updates": 3}, tag="valid")
    end_tracking()
    scalars = tensorboard_scalars(tmp_path / "tb" / "valid")
    assert steps(scalars["loss"]) == [3] and math.isnan(scalars["loss"][0][1]) and scalars.keys() == {"loss"}


# ---- resuming

def curves(folder, tag):
    """Those that do not measure time."""
    return {key: points for key, points in tensorboard_scalars(folder / tag).items() if key not in TIMES}


def wait_for_next_second():
    """TensorBoard reads its files in the order of their names, which tell the second: no process resumes within one."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)


def test_a_resumed_run_continues_its_curves_from_the_checkpoint(data_bin, tmp_path, monkeypatch):
    """Killed before update 8 of the first epoch, with a checkpoint after update 4. Resumed for one update, then for the
    rest, three updates of the second epoch."""
    epoch = updates_of_an_epoch(data_bin, tmp_path / "epoch", *GUIDED)
    end = epoch + 3
    flags = [*GUIDED, "--save-interval-updates", "4", "--max-update", str(end)]
    train(data_bin, str(tmp_path / "straight"), *flags, "--tensorboard-logdir", str(tmp_path / "straight.tb"))
    mine = [*flags, *logged_to(tmp_path)]
    with monkeypatch.context() as patch:
        kill_before_update(patch, 7)
        with pytest.raises(Killed):
            train(data_bin, str(tmp_path / "run"), *mine)
    loss = tensorboard_scalars(tmp_path / "tb" / "train_inner")["loss"]
    assert steps(loss) == [1, 2, 3, 4, 5, 6, 7]

    wait_for_next_second()
    train(data_bin, str(tmp_path / "run"), *mine, "--max-update", "5")
    shown = tensorboard_scalars(tmp_path / "tb" / "train_inner")["loss"]
    assert shown == loss[:5]  # what was written after the checkpoint is gone, what was written before it is not

    wait_for_next_second()
    train(data_bin, str(tmp_path / "run"), *mine)
    assert curves(tmp_path / "tb", "train_inner") == curves(tmp_path / "straight.tb", "train_inner")
    ends = [5, epoch, end]  # 5: of the second run
    assert steps(tensorboard_scalars(tmp_path / "tb" / "train")["loss"]) == ends
    validated = sorted({*ends, *range(4, end, 4)})
    assert steps(tensorboard_scalars(tmp_path / "tb" / "valid")["loss"]) == validated
    end_tracking()
    runs = wandb_runs(tmp_path)
    assert len({run_id for run_id, *_ in runs}) == 1
    assert [steps(values["train_inner/loss"]) for *_, values in runs] == [
        [1, 2, 3, 4, 5, 6, 7], [5], list(range(6, end + 1))]


def test_a_process_killed_with_sigkill_and_resumed_has_each_update_once(data_bin, tmp_path):
    flags = ["--mask-strategy", "random", "--max-update", "16", "--save-interval-updates", "5"]
    train(data_bin, str(tmp_path / "straight"), *flags, "--tensorboard-logdir", str(tmp_path / "straight.tb"))
    command = [sys.executable, "-m", "fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, "--save-dir",
               str(tmp_path / "run"), *flags, "--tensorboard-logdir", str(tmp_path / "tb")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "run" / "checkpoint_1_5.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for_next_second()
    train(data_bin, str(tmp_path / "run"), *flags, "--tensorboard-logdir", str(tmp_path / "tb"))
    assert curves(tmp_path / "tb", "train_inner") == curves(tmp_path / "straight.tb", "train_inner")
    assert steps(tensorboard_scalars(tmp_path / "tb" / "train_inner")["loss"]) == list(range(1, 17))


def test_a_second_training_of_a_process_has_curves_and_a_run_of_its_own(data_bin, tmp_path):
    for name in ("one", "two"):
        train(data_bin, str(tmp_path / name), "--mask-strategy", "random", "--max-update", "2", "--wandb-project",
              "masks", "--tensorboard-logdir", str(tmp_path / name / "tb"))
    end_tracking()
    assert all(steps(tensorboard_scalars(tmp_path / name / "tb" / "train")["loss"]) == [2] for name in ("one", "two"))
    assert [name for _, name, *_ in wandb_runs(tmp_path)] == ["one", "two"]
    assert (tmp_path / "one" / tracking.WANDB_ID).read_text() != (tmp_path / "two" / tracking.WANDB_ID).read_text()


def test_a_run_keeps_its_id_where_it_resumes_and_has_a_new_one_where_it_begins_anew(tmp_path, monkeypatch):
    begun, resumed = tracking.Training(str(tmp_path)), tracking.Training(str(tmp_path), 100)
    first = tracking.wandb_run_id(begun)
    assert tracking.wandb_run_id(resumed) == tracking.wandb_run_id(resumed) == first
    second = tracking.wandb_run_id(begun)  # its checkpoints were deleted
    assert second != first and tracking.wandb_run_id(resumed) == second
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert tracking.wandb_run_id(resumed) == "mine"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert tracking.wandb_run_id(resumed) == "mine"


def test_an_update_that_wandb_has_is_not_sent_again(monkeypatch):
    sent = []
    fake = SimpleNamespace(run=SimpleNamespace(starting_step=8), log=lambda values, step: sent.append((step, values)))
    monkeypatch.setattr(progress_bar, "wandb", fake)
    bar = tracking.WandbBar(progress_bar.NoopProgressBar([]), "masks")
    for update in (7, 8):
        bar.log({"loss": 2.0}, tag="train_inner", step=update)
        bar.print({"loss": 3.0, "num_updates": update}, tag="valid")
    assert sent == [(8, {"train_inner/loss": 2.0}), (8, {"valid/loss": 3.0})]


def test_a_resumed_run_may_have_other_flags():
    wandb.init(project="masks")
    fairseqs, ours = (bar(progress_bar.NoopProgressBar([]), "masks")
                      for bar in (tracking.WandbBar.__base__, tracking.WandbBar))
    ours.update_config({"max_update": 10})
    ours.update_config({"max_update": 20})
    assert wandb.config["max_update"] == 20
    with pytest.raises(wandb.Error, match="max_update"):
        fairseqs.update_config({"max_update": 30})
    wandb.finish()


def test_a_run_that_the_users_program_has_begun_is_used(data_bin, tmp_path):
    own = wandb.init(project="sweep")
    train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "2", *logged_to(tmp_path))
    assert wandb.run is own and not (tmp_path / "run" / tracking.WANDB_ID).exists()
    own.finish()
    (run_id, _, project, values), = wandb_runs(tmp_path)
    assert (run_id, project) == (own.id, "sweep") and steps(values["train_inner/loss"]) == [1, 2]


# ---- other ways to start a training

def test_the_first_of_two_ranks_writes_alone(data_bin, tmp_path):
    torchrun(2, data_bin, tmp_path / "run", "--mask-strategy", "random", "--max-update", "3", "--ddp-backend", "c10d",
             *logged_to(tmp_path), cwd=tmp_path)
    assert [len(list((tmp_path / "tb" / tag).iterdir())) for tag in ("train_inner", "train", "valid")] == [1, 1, 1]
    assert steps(tensorboard_scalars(tmp_path / "tb" / "train_inner")["mask_rate"]) == [1, 2, 3]
    (_, _, _, values), = wandb_runs(tmp_path)
    assert steps(values["train_inner/mask_rate"]) == [1, 2, 3]


def test_settings_of_hydra_are_tracked_like_flags(data_bin, tmp_path):
    done = run(
        "fairseq_cli.hydra_train", "--config-dir", ROOT / "examples" / "paper", "--config-name", "bertlet",
        f"common.user_dir={PLUGIN}", "common.cpu=true", "common.log_interval=1", "common.wandb_project=masks",
        f"common.tensorboard_logdir={tmp_path}/tb", f"task.data={data_bin}", "task.teacher=null",
        "task.mask_strategy=random", "task.tokens_per_sample=16", "task.precision=fp32", "+model.encoder_layers=2",
        "+model.encoder_embed_dim=32", "+model.encoder_ffn_embed_dim=64", "+model.encoder_attention_heads=2",
        "+model.max_positions=16", "dataset.batch_size=64", "dataset.num_workers=0", "optimization.max_update=3",
        f"checkpoint.save_dir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps(tensorboard_scalars(tmp_path / "tb" / "train_inner")["mask_rate"]) == [1, 2, 3]
    assert steps(tensorboard_scalars(tmp_path / "tb" / "valid")["bits_below_unigram"]) == [3]
    (_, name, _, values), = wandb_runs(tmp_path)
    assert name == "run" and steps(values["train_inner/mask_rate"]) == [1, 2, 3]


# ---- mistakes

@pytest.mark.parametrize("flag, package, imported", [
    ("--tensorboard-logdir", "tensorboard", "SummaryWriter"), ("--wandb-project", "wandb", "wandb")])
def test_a_flag_whose_package_is_missing_is_refused_before_the_text_is_read(
    flag, package, imported, data_bin, tmp_path, monkeypatch
):
    monkeypatch.setattr(progress_bar, imported, None)
    monkeypatch.setattr(EntropyMaskedLMTask, "train_step", None)
    message = f'{flag}: {package} is not installed, expected pip install "entropy-mask-plugin[tracking]"'
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", flag, str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_an_error_of_wandb_is_one_line(tmp_path, monkeypatch):
    class Error(Exception):
        pass

    def init(**_):
        raise Error("No API key configured.\n  Use `wandb login` to log in.")

    monkeypatch.setattr(progress_bar, "wandb", SimpleNamespace(run=None, init=init, Error=Error))
    tracking.begin(tracking.Training(str(tmp_path)))
    with pytest.raises(UsageError, match="^--wandb-project: No API key configured. Use `wandb login` to log in.$"):
        tracking.WandbBar(progress_bar.NoopProgressBar([]), "masks")
