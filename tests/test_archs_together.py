"""Every arch with every strategy, source of entropies, distillation, cache, bf16, ranks, and over an interruption."""

import json

import pytest
import torch
from builders.models import AnyTask
from builders.processes import Killed, kill_before_update, torchrun
from builders.training import OURS, TINY, binarise_task, parse, same_weights, train, weights
from fairseq import models

from entropy_mask_plugin.glue.protocols import arch_args
from entropy_mask_plugin.reporting.drift import components, drift, write_drift

pytestmark = pytest.mark.slow  # all of them start processes

SIZES = TINY[2:]
ARCHS = {
    "hbert_v1": ["--arch", "hbert_v1"], "hbert_v2": ["--arch", "hbert_v2", "--encoder-layers", "5"],
    "addbert": ["--arch", "addbert"], "hbertlet": ["--arch", "hbertlet", "--encoder-layers", "3"],
    "bertlet_3ml": ["--arch", "bertlet_3ml"], "bert_base_3ml, cross": ["--arch", "bert_base_3ml", "--mask-decoder-kind",
                                                                       "cross"],
    "hybrid 3ml": ["--arch", "hbert_v1", "--mask-decoder-layers", "1", "--mask-decoder-kind", "cross"],
}
POLICIES = {
    "random": ["--mask-strategy", "random"],
    "low, teacher": ["--mask-strategy", "low", "--teacher", "TEACHER"],
    "mid, cached": ["--mask-strategy", "mid", "--teacher", "TEACHER", "--entropy-cache", "CACHE"],
    "marginal, self, bf16": ["--mask-strategy", "marginal", "--self-mask-from-epoch", "1", "--precision", "bf16"],
    "alternating, init, KD": ["--mask-strategy", "alternating", "--teacher", "TEACHER", "--self-mask-from-epoch", "2",
                              "--kd-weight", "0.5", "--kd-positions", "all"],
    "high, init, KD, sentences": ["--mask-strategy", "high", "--teacher", "TEACHER", "--self-mask-from-epoch", "2",
                                  "--kd-weight", "0.5", "--kd-start-epoch", "2", "--sample-break-mode", "eos",
                                  "--shorten-method", "truncate"],
}

EMA = ["--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9"]
COMBINED = {  # parts that must work together; "words" are trained on other data, which no teacher knows
    "gumbel, surprisal, ema, ramps, spans, bf16": [
        "--mask-strategy", "gumbel", "--gumbel-temperature", "0.5", "--mask-score", "surprisal", *EMA,
        "--self-mask-from-epoch", "1", "--guided-fraction", "0:0.8", "--mask-prob", "0.4:0.2", "--mask-unit", "span",
        "--precision", "bf16"],
    "predicted-loss, by sequences, KD": [
        "--mask-strategy", "high", "--mask-score", "predicted-loss", "--guided-fraction", "0.5", "--guided-by",
        "sequences", "--teacher", "TEACHER", "--kd-weight", "0.5"],
    "accuracy, ramp, words": [
        "--mask-strategy", "gumbel", "--mask-score", "accuracy", "--accuracy-window", "3", "--mask-prob", "0.3:0.15",
        "--mask-unit", "word"],
    "contextual, cached, by tokens": [
        "--mask-strategy", "marginal", "--teacher", "TEACHER", "--entropy-cache", "CACHE", "--entropy-folds", "2",
        "--guided-fraction", "0.5"],
    "margin, init without teacher, words, by sequences": [
        "--mask-strategy", "mid", "--mask-score", "margin", "--self-mask-from-epoch", "2", "--mask-unit", "word",
        "--guided-fraction", "0.2:0.9", "--guided-by", "sequences"],
    "predicted-loss, ema, ramp, sentences, two batches": [
        "--mask-strategy", "high", "--mask-score", "predicted-loss", *EMA, "--guided-fraction", "0:1",
        "--sample-break-mode", "eos", "--shorten-method", "truncate", "--update-freq", "2"],
}
PAIRS = [*((arch, policy) for arch in ARCHS for policy in POLICIES),
         *((arch, policy) for i, arch in enumerate(ARCHS) for j, policy in enumerate(COMBINED) if (i + j) % 2 == 0)]


def model_of(arch):
    name, *more = ARCHS[arch][1:]
    return ["--arch", name, *SIZES, *more]


@pytest.fixture(scope="session")
def teacher_of(data_bin, tmp_path_factory):
    """A trained model of an arch: each teaches its own kind."""
    made = {}

    def teacher(arch):
        if arch not in made:
            made[arch] = train(data_bin, str(tmp_path_factory.mktemp("teacher")), "--mask-strategy", "random",
                               "--max-epoch", "1", "--seed", "7", model=model_of(arch))
        return made[arch]

    return teacher


def filled_in(flags, teacher, folder):
    return [{"TEACHER": teacher, "CACHE": str(folder / "cache")}.get(flag, flag) for flag in flags]


@pytest.mark.parametrize("arch, policy", PAIRS)
def test_every_arch_trains_under_every_policy(arch, policy, data_bin, subwords, teacher_of, tmp_path, caplog):
    """Each of the combined policies under every other arch."""
    data = subwords if "words" in policy else data_bin
    flags = filled_in({**POLICIES, **COMBINED}[policy], teacher_of(arch), tmp_path)
    with caplog.at_level("INFO"):
        checkpoint = train(data, str(tmp_path / "run"), *flags, "--max-epoch", "2", "--log-format", "json",
                           model=model_of(arch))
    logs = {name: [json.loads(record.message) for record in caplog.records if record.name == name
                   and record.message.startswith("{")] for name in ("train", "valid")}
    losses = [float(log["valid_loss"]) for log in logs["valid"]]
    assert len(losses) == 2 and all(0 < loss < 12 for loss in losses)
    assert all(tensor.isfinite().all() for tensor in weights(checkpoint).values())
    guided = float(logs["train"][-1].get("train_guided", 0))
    assert guided == 0 if policy == "random" else 0.3 < guided <= 1
    if "cached" in policy:
        plain = [flag for flag in flags if flag not in ("--entropy-cache", str(tmp_path / "cache"))]
        assert same_weights(checkpoint, train(data_bin, str(tmp_path / "plain"), *plain, "--max-epoch", "2",
                                              model=model_of(arch)))


@pytest.mark.parametrize("arch", ARCHS)
def test_a_killed_run_ends_in_the_weights_of_a_straight_one(arch, data_bin, teacher_of, tmp_path, monkeypatch):
    flags = [*filled_in(POLICIES["high, init, KD, sentences"], teacher_of(arch), tmp_path), "--max-epoch", "2",
             "--save-interval-updates", "4"]
    straight = train(data_bin, str(tmp_path / "straight"), *flags, model=model_of(arch))
    updates = torch.load(straight, weights_only=True)["optimizer_history"][-1]["num_updates"]
    with monkeypatch.context() as patch:
        kill_before_update(patch, updates - 1)
        with pytest.raises(Killed):
            train(data_bin, str(tmp_path / "killed"), *flags, model=model_of(arch))
    assert same_weights(straight, train(data_bin, str(tmp_path / "killed"), *flags, model=model_of(arch)))


@pytest.mark.parametrize("arch", ["hbertlet", "bertlet_3ml", "hybrid 3ml"])
def test_two_ranks_make_the_steps_of_one(arch, data_bin, teacher_of, tmp_path):
    """With dropout off, and two batches of one rank for one of each."""
    flags = ["--mask-strategy", "random", "--teacher", teacher_of(arch), "--kd-weight", "0.5", "--dropout", "0",
             "--attention-dropout", "0", "--optimizer", "sgd", "--lr", "0.1", "--max-update", "8", "--batch-size", "32"]
    one = weights(train(data_bin, str(tmp_path / "one"), *flags, "--update-freq", "2", model=model_of(arch)))
    two = weights(torchrun(2, data_bin, tmp_path / "two", *flags, "--ddp-backend", "c10d", cwd=tmp_path,
                           model=model_of(arch)))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5


@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch_is_fine_tuned_by_fairseqs_own_task(arch, data_bin, teacher_of, tmp_path):
    binarise_task(data_bin, tmp_path / "task")
    tuned = train(str(tmp_path / "task"), str(tmp_path / "tuned"), "--finetune-from-model", teacher_of(arch),
                  "--num-classes", "2", "--max-epoch", "1", model=model_of(arch),
                  task=["--task", "sentence_prediction", "--criterion", "sentence_prediction"])
    before, after = weights(teacher_of(arch)), weights(tuned)
    assert any(name.startswith("classification_heads.") for name in after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("encoder.layers.0.") for name in moved)
    assert not any(name.startswith(("mask_decoder.", "lm_head.")) for name in moved)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_flags_of_a_fine_tuning_describe_the_pretrained_model(arch, teacher_of, data_bin):
    state = torch.load(teacher_of(arch), weights_only=True)
    words = arch_args(state["cfg"]["model"])
    rebuilt = models.build_model(parse([data_bin, *OURS, "--mask-strategy", "random", *words]).model, AnyTask())
    shapes = {name: tensor.shape for name, tensor in rebuilt.state_dict().items() if "embed_tokens" not in name}
    assert all(state["model"][name].shape == shape for name, shape in shapes.items() if name != "lm_head.bias")
    assert rebuilt.settings() == {name: state["cfg"]["model"][name] for name in rebuilt.settings()}


@pytest.mark.parametrize("arch", ARCHS)
def test_weight_drift_counts_every_weight_that_fine_tuning_can_move_once(arch, teacher_of, tmp_path):
    state = weights(teacher_of(arch))
    found = components(state)
    assert sum(tensor.numel() for tensor in found.values()) == sum(
        tensor.numel() for name, tensor in state.items() if not name.startswith("mask_decoder."))
    moved = {name: tensor * 1.1 for name, tensor in state.items()}
    write_drift({teacher_of(arch): drift(state, moved)}, str(tmp_path / "drift"))
    assert (tmp_path / "drift.png").exists()
