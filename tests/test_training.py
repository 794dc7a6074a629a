"""Whole runs of fairseq's command lines on real text."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from builders.processes import Killed, kill_before_update
from builders.training import (
    DEVICE,
    OURS,
    PLUGIN,
    ROOT,
    TINY,
    TRAINING,
    binarise_task,
    run,
    same_weights,
    train,
    weights,
)
from fairseq import checkpoint_utils
from fairseq_cli import train as fairseq_train

pytestmark = pytest.mark.slow  # trainings from beginning to end

EMA = ["--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9"]
RUNS = {
    "random": ["--mask-strategy", "random"],
    "high": ["--mask-strategy", "high", "--teacher", "TEACHER"],
    "alternating": ["--mask-strategy", "alternating", "--teacher", "TEACHER"],
    "init": ["--mask-strategy", "high", "--teacher", "TEACHER", "--self-mask-from-epoch", "2"],
    "kd": ["--mask-strategy", "high", "--teacher", "TEACHER", "--self-mask-from-epoch", "2", "--kd-weight", "0.5",
           "--kd-start-epoch", "2", "--kd-positions", "all", "--update-freq", "2"],
    "ema by sequences": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", *EMA, "--guided-fraction", "0:1",
                         "--guided-by", "sequences"],
    "accuracy": ["--mask-strategy", "high", "--mask-score", "accuracy", "--accuracy-window", "3", "--mask-prob",
                 "0.3:0.15", "--update-freq", "2"],  # killed after a checkpoint within the third window
    "predicted-loss of ema": ["--mask-strategy", "high", "--mask-score", "predicted-loss", *EMA],
    "folds, cached": ["--mask-strategy", "marginal", "--teacher", "TEACHER", "--entropy-folds", "3",
                      "--entropy-cache", "CACHE", "--guided-fraction", "0.5"],
    "words": ["--mask-strategy", "gumbel", "--mask-score", "margin", "--mask-unit", "word", "--self-mask-from-epoch",
              "2", "--mask-prob", "0.3:0.15", "--guided-fraction", "0.2:0.9"],
}


def flags_of(name, teacher):
    return [teacher if flag == "TEACHER" else flag for flag in RUNS[name]]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_in_mid_epoch_and_resumed_ends_in_the_weights_of_a_straight_run(
    name, data_bin, subwords, teacher, tmp_path, monkeypatch
):
    data = subwords if name == "words" else data_bin
    flags = [flag.replace("CACHE", str(tmp_path / "cache")) for flag in flags_of(name, teacher)]
    flags += ["--max-epoch", "2", "--save-interval-updates", "4"]
    straight = train(data, str(tmp_path / "straight"), *flags)
    updates = torch.load(straight, weights_only=True)["optimizer_history"][-1]["num_updates"]
    assert updates // 2 < (updates - 2) // 4 * 4  # the last checkpoint before the kill lies within epoch 2

    with monkeypatch.context() as patch:
        kill_before_update(patch, updates - 1)
        with pytest.raises(Killed):
            train(data, str(tmp_path / "killed"), *flags)
    resumed = train(data, str(tmp_path / "killed"), *flags)
    assert same_weights(straight, resumed)
    kept = [key for key in ("ema", "learned_state") if key in extra_state(straight)]
    assert len(kept) == ("ema" in name) + (name in ("accuracy", "predicted-loss of ema"))
    assert DEVICE == [] or all(map(torch.equal, *(
        [tensor for key in kept for tensor in tensors_in(extra_state(file)[key])] for file in (straight, resumed))))


def extra_state(checkpoint):
    return torch.load(checkpoint, weights_only=True)["extra_state"]


def test_a_process_killed_with_sigkill_is_resumed_from_its_last_checkpoint(data_bin, tmp_path):
    flags = ["--mask-strategy", "random", "--max-epoch", "2", "--save-interval-updates", "2"]
    straight = train(data_bin, str(tmp_path / "straight"), *flags)
    command = [sys.executable, "-m", "fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, "--save-dir",
               str(tmp_path / "killed"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "killed" / "checkpoint_last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert same_weights(straight, train(data_bin, str(tmp_path / "killed"), *flags))


def test_a_checkpoint_holds_nothing_of_the_teacher_and_only_plain_values(data_bin, teacher, tmp_path):
    random = train(data_bin, str(tmp_path / "random"), *RUNS["random"], "--max-epoch", "1")
    kd = train(data_bin, str(tmp_path / "kd"), *flags_of("kd", teacher), "--max-epoch", "2")
    one, other = (torch.load(file, weights_only=True) for file in (random, kd))
    assert one["model"].keys() == other["model"].keys()
    assert one["criterion"] is other["criterion"] is None
    assert not any("teacher" in key for key in other["model"])
    # log entries are single numbers; of everything larger, both hold the model and Adam's two moments of it
    sizes = [sum(t.numel() for t in tensors_in(state) if t.numel() > 1) for state in (one, other)]
    assert sizes[0] == sizes[1] == 3 * sum(t.numel() for t in other["model"].values())


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in tensors_in(item)] if isinstance(value, (list, tuple)) else []


def test_the_training_log_has_the_same_keys_in_every_update_of_an_epoch(data_bin, teacher, tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path), *flags_of("kd", teacher), "--max-epoch", "2", "--log-format", "json")
    logs = [json.loads(record.message) for record in caplog.records if record.name == "train_inner"]
    for epoch, expected in ((1, set()), (2, {"kd_loss"})):
        keys = {frozenset(log) for log in logs if int(log["epoch"]) == epoch}
        assert len(keys) == 1
        assert {"loss", "ppl", "accuracy", "mask_rate", "entropy", "entropy_masked"} | expected <= next(iter(keys))
    assert all(float(log["entropy_masked"]) > float(log["entropy"]) for log in logs)
    assert all(0.1 < float(log["mask_rate"]) < 0.2 for log in logs)


def test_validation_does_not_depend_on_strategy_seed_corruption_or_rate(data_bin, teacher, tmp_path, caplog):
    variants = (
        ["--mask-strategy", "random"],
        ["--mask-strategy", "low", "--teacher", teacher, "--mask-prob", "0.5", "--seed", "5"],
        ["--mask-strategy", "random", "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1", "--static-masks"],
    )
    losses = set()
    for flags in variants:
        caplog.clear()
        with caplog.at_level("INFO"):  # lr 0: all three validate the teacher's weights
            train(data_bin, str(tmp_path / "never"), *flags, "--restore-file", teacher, "--reset-optimizer",
                  "--reset-dataloader", "--reset-meters", "--lr", "0", "--max-update", "1", "--no-save",
                  "--stop-min-lr", "-1")
        losses.add(re.search(r"loss [\d.]+ \| accuracy [\d.]+", next(
            record.message for record in caplog.records if record.name == "valid")).group())
    assert len(losses) == 1


@pytest.mark.parametrize("positions", ["masked", "all"])
def test_update_freq_2_with_part_of_the_batch_equals_one_full_batch(positions, data_bin, teacher, tmp_path):
    """All 160 sentences in one update, whole or cut into 96 and the rest, of other lengths."""
    flags = ["--mask-strategy", "random", "--teacher", teacher, "--kd-weight", "0.5", "--kd-positions", positions,
             "--sample-break-mode", "eos", "--shorten-method", "truncate", "--dropout", "0", "--attention-dropout", "0",
             "--optimizer", "sgd", "--lr", "0.5", "--max-epoch", "4"]
    full = weights(train(data_bin, str(tmp_path / "full"), *flags, "--batch-size", "1000"))
    cut = train(data_bin, str(tmp_path / "cut"), *flags, "--batch-size", "96", "--update-freq", "2")
    assert torch.load(cut, weights_only=True)["optimizer_history"][-1]["num_updates"] == 4
    cut = weights(cut)
    assert max(float((full[key] - cut[key]).abs().max()) for key in full) < 1e-5


@pytest.mark.parametrize("name", ["random", "kd"])
def test_bf16_trains_under_autocast_with_fp32_weights(name, data_bin, teacher, make_task, tmp_path):
    flags = [*flags_of(name, teacher), "--max-epoch", "2"]
    fp32 = weights(train(data_bin, str(tmp_path / "fp32"), *flags))
    bf16 = weights(train(data_bin, str(tmp_path / "bf16"), *flags, "--precision", "bf16"))
    assert all(value.dtype == torch.float32 for value in bf16.values())
    different = [key for key in fp32 if not torch.equal(fp32[key], bf16[key])]
    assert different  # bf16 did something
    begin = make_task(*flags_of(name, teacher))[1].state_dict()
    one, other = (torch.cat([(end[key] - begin[key]).flatten() for key in fp32]) for end in (fp32, bf16))
    assert torch.cosine_similarity(one, other, dim=0) > 0.6  # and nearly the same: single weights may be far apart


def test_every_break_mode_trains(data_bin, tmp_path):
    for mode in ("complete", "complete_doc", "eos"):
        train(data_bin, str(tmp_path / mode), "--mask-strategy", "random", "--sample-break-mode", mode, "--max-update",
              "2", "--no-save", "--shorten-method", "truncate")


def test_fairseqs_own_masked_lm_task_and_criterion_train_our_archs(data_bin, tmp_path):
    train(data_bin, str(tmp_path), "--max-update", "3",
          task=["--task", "masked_lm", "--criterion", "masked_lm", "--tokens-per-sample", "16"])


def test_our_task_trains_with_fairseqs_own_criterion(data_bin, teacher, tmp_path):
    train(data_bin, str(tmp_path), *flags_of("high", teacher), "--max-update", "3",
          task=["--task", "entropy_masked_lm", "--criterion", "masked_lm", "--tokens-per-sample", "16"])


def test_fairseq_validate_reads_a_checkpoint_whose_teacher_is_gone(data_bin, teacher, tmp_path):
    copy = tmp_path / "teacher.pt"
    copy.write_bytes(open(teacher, "rb").read())
    checkpoint = train(data_bin, str(tmp_path), *flags_of("kd", str(copy)), "--max-epoch", "1")
    copy.unlink()
    done = run("fairseq_cli.validate", data_bin, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--path",
               checkpoint, "--batch-size", "64", "--cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"valid \| .*loss [\d.]+ \| accuracy", done.stdout + done.stderr)


def test_sentence_prediction_fine_tunes_from_a_checkpoint_of_ours(data_bin, teacher, tmp_path):
    glue = tmp_path / "glue"
    binarise_task(data_bin, glue)
    checkpoint = train(
        str(glue), str(tmp_path / "tuned"), "--restore-file", teacher, "--reset-optimizer", "--reset-dataloader",
        "--reset-meters", "--reset-lr-scheduler", "--num-classes", "2", "--init-token", "0", "--max-epoch", "1",
        task=["--task", "sentence_prediction", "--criterion", "sentence_prediction"],
    )
    tuned = weights(checkpoint)
    assert "classification_heads.sentence_classification_head.out_proj.weight" in tuned
    assert torch.equal(tuned["lm_head.bias"], weights(teacher)["lm_head.bias"])  # the pretrained weights were there

    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([checkpoint])
    assert model.classification_heads["sentence_classification_head"].out_proj.out_features == 2


def test_a_resumed_run_remembers_how_often_nothing_has_improved_also_where_losses_tie(data_bin, tmp_path, monkeypatch):
    counter = fairseq_train.should_stop_early
    flags = ["--mask-strategy", "random", "--patience", "2", "--lr", "1e-12"]  # nothing ever improves on epoch 1

    def epochs(folder, *more):
        for name in ("best", "num_runs"):  # as in a new process
            monkeypatch.delattr(counter, name, raising=False)
        checkpoint = train(data_bin, str(tmp_path / folder), *flags, *more)
        return torch.load(checkpoint, weights_only=True)["extra_state"]["train_iterator"]["epoch"]

    straight = epochs("straight", "--max-epoch", "9")
    assert epochs("resumed", "--max-epoch", "2") == 3  # the one that would come next
    assert epochs("resumed", "--max-epoch", "9") == straight == 4
    with pytest.raises(SystemExit) as ended:  # killed behind its last checkpoint, it would add an epoch
        epochs("resumed", "--max-epoch", "9")
    assert ended.value.code == 0
