"""nan and infinity, wherever they come from: one line names the file, or the update, its samples and what may help."""

import math

import numpy as np
import pytest
import torch
from builders.training import batch_of, train
from fairseq.logging import metrics

from entropy_mask_plugin.fairseq_fixes import late_norm
from entropy_mask_plugin.masking import masker, strategies
from entropy_mask_plugin.pretrained.initialization import read_source
from entropy_mask_plugin.scoring.cache.self_store import SelfEntropyStore
from entropy_mask_plugin.scoring.cache.store import EntropyStore
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.system.finite import refuse_not_finite

LEARNS = ["--mask-strategy", "high", "--mask-score", "accuracy", "--store-ema", "--ema-decay", "0.9", "--optimizer",
          "fused_adamw"]
SAMPLES = r"in update 1 \(samples( \d+){8}\)"
HELP = r"a lower --lr, a longer --warmup-updates or --clip-norm may help"


# ---- files

@pytest.fixture(scope="module")
def trained(data_bin, tmp_path_factory):
    """A checkpoint with an average and a score that learns."""
    return train(data_bin, str(tmp_path_factory.mktemp("run")), *LEARNS, "--max-update", "1")


def spoil(path, target, keys, value):
    """A copy of a checkpoint with one number that is no number."""
    state = part = torch.load(path, weights_only=True)
    for key in keys:
        part = part[key]
    part.view(-1)[0] = value
    torch.save(state, target)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("keys", [
    ("model", "encoder.layers.0.ffn.fc1.weight"), ("extra_state", "ema", "encoder.layers.0.ffn.fc1.weight"),
    ("extra_state", "learned_state", "state", "rates"), ("last_optimizer_state", "state", 0, "exp_avg"),
])
def test_a_checkpoint_is_not_resumed_from(keys, value, trained, data_bin, tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "checkpoint_last.pt"
    spoil(trained, path, keys, value)
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        train(data_bin, str(tmp_path / "run"), *LEARNS, "--max-update", "2")
    assert str(caught.value) == (f"--save-dir: {path} with nan or inf in {'.'.join(map(str, keys))} found, expected "
                                 "finite numbers")
    assert path.read_bytes() == before


def test_nothing_is_initialized_from_it(teacher, make_task, tmp_path):
    spoil(teacher, tmp_path / "nan.pt", ("model", "lm_head.bias"), math.nan)
    task, *_ = make_task("--mask-strategy", "random")
    with pytest.raises(UsageError, match="^--init-from: .*/nan.pt with nan or inf in lm_head.bias found, expected fin"):
        read_source(str(tmp_path / "nan.pt"), task)


def test_integers_and_empty_parts_are_finite():
    refuse_not_finite({"a": torch.ones(2, dtype=torch.int64), "b": [], "c": None, "d": (torch.ones(0),)}, "p", "--f")
    with pytest.raises(UsageError, match=r"^--f: p with nan or inf in a\.1\.b found"):
        refuse_not_finite({"a": [torch.ones(1), {"b": torch.tensor([1, math.inf])}]}, "p", "--f")


def test_scores_on_disk_that_are_nan_are_not_read(tmp_path):
    store = EntropyStore(str(tmp_path / "teacher"), {}, [2, 3])
    store.write(0, [np.ones(2), np.array([1, np.nan, 1])])
    assert store.missing() == [] and store.read(0).tolist() == [1, 1]  # the file is whole: it was made so
    with pytest.raises(UsageError, match="^--entropy-cache: .*/00000.entropies with nan in block 1 found, expected"):
        store.read(1)
    own = SelfEntropyStore(str(tmp_path / "self"), {}, [2, 3])
    own.write([0, 1], [np.ones(2), np.array([1, np.nan, 1])], 1)
    assert own.read(0)[0].tolist() == [1, 1]
    with pytest.raises(UsageError, match="^--entropy-cache: .*/self with nan in block 1 found, expected numbers"):
        own.read(1)


# ---- gradients, losses, scores

def with_gradients(model, value):
    next(model.parameters()).register_hook(lambda gradient: gradient * value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("flags", [[], ["--precision", "bf16"], ["--optimizer", "adam"],
                                   ["--mask-strategy", "high", "--self-mask-from-epoch", "1"]])
def test_a_gradient_ends_the_run_in_its_update(flags, value, start_training, capsys):
    trainer, update = start_training("--mask-strategy", "random", "--cpu", *flags)
    with_gradients(trainer.model, value)
    with pytest.raises(UsageError, match=f"^gradients: their norm is (nan|inf) {SAMPLES}, expected .*{HELP}"):
        update()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("flag", ["--fp16", "--amp"])
def test_on_a_cpu_losses_cannot_be_scaled(flag, make_task):
    with pytest.raises(UsageError, match="^--fp16 or --amp: on a CPU found, expected --precision bf16"):
        make_task("--mask-strategy", "random", "--cpu", flag)


def test_fp16_ends_where_the_loss_scale_cannot_fall_further(start_training, monkeypatch, tmp_path):
    """fairseq's own code for that needs a GPU."""
    def raise_as_the_scaler_does(*arguments):
        raise FloatingPointError("Minimum loss scale reached (0.0001).")

    _, update = start_training("--mask-strategy", "random", "--cpu")
    monkeypatch.setattr(late_norm, "fairseq_clip", raise_as_the_scaler_does)
    with pytest.raises(UsageError, match=f"^--fp16: gradients that are nan or inf at --min-loss-scale {SAMPLES} found, "
                                         f"expected finite ones .{HELP}"):
        update()
    assert not (tmp_path / "crash.pt").exists()


def test_updates_are_not_skipped_for_ever(start_training, monkeypatch):
    """As --amp on a GPU skips them."""
    trainer, update = start_training("--mask-strategy", "random", "--cpu")
    monkeypatch.setattr(late_norm, "skips_updates", lambda trainer: True)
    for norm in [math.nan] * 99 + [1.0] + [math.inf] * 99:
        trainer.latest_norm, trainer.latest_ids = torch.tensor(norm), [5, 6]
        late_norm.refuse_skipping_forever(trainer, 7)
    trainer.latest_norm = torch.tensor(math.nan)
    with pytest.raises(UsageError, match=r"^gradients: nan or inf 100 times in a row, now in update 7 .samples 5 6.*"):
        late_norm.refuse_skipping_forever(trainer, 7)


def test_a_loss_with_finite_gradients_is_named_when_the_log_is_read(start_training):
    """P = 0 for a token: its loss is infinite, but the gradient of its logit is -1."""
    trainer, update = start_training("--mask-strategy", "random", "--cpu", "--mask-prob", "1")
    with torch.no_grad():
        trainer.model.lm_head.bias[4:20] = -math.inf  # the most frequent words
    update()
    with pytest.raises(UsageError, match=f"^loss: it is inf {SAMPLES}, expected a finite number.*{HELP}"):
        metrics.get_smoothed_values("train")


def test_a_teacher_that_distils_nan_ends_the_run(teacher, start_training, tmp_path):
    spoil(teacher, tmp_path / "large.pt", ("model", "encoder.layers.0.ffn.fc1.weight"), 3e38)  # finite
    _, update = start_training("--mask-strategy", "random", "--cpu", "--teacher", str(tmp_path / "large.pt"),
                               "--kd-weight", "0.5")
    with pytest.raises(UsageError, match=f"^gradients: their norm is nan {SAMPLES}"):
        update()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_scores_that_become_nan_later_are_named(on_gpu, start_training, monkeypatch):
    """On a CPU at once. On a GPU, checking each batch would wait for the device; the mean score of the log tells."""
    trainer, update = start_training("--mask-strategy", "high", "--self-mask-from-epoch", "1", "--cpu")
    update()
    metrics.get_smoothed_values("train")
    source = trainer.task.sources["self"]
    monkeypatch.setitem(trainer.task.sources, "self", lambda *arguments: (lambda scores: scores._replace(
        values=scores.values + math.nan))(source(*arguments)))
    samples = SAMPLES.replace("1", "2", 1)
    if not on_gpu:
        with pytest.raises(UsageError, match=f"^scores .--mask-score entropy.: .* not finite found, .* {samples}$"):
            update()
        return
    for module in (masker, strategies.registry):
        monkeypatch.setattr(module, "check", lambda *arguments: None)
    update()
    with pytest.raises(UsageError, match=f"^--mask-source: scores that are nan {samples} found"):
        metrics.get_smoothed_values("train")


def test_the_samples_of_fairseqs_own_tasks_are_named_too(make_task):
    task, *_ = make_task("--mask-strategy", "random")
    assert late_norm.ids_of(batch_of(task, [3, 5])) == [3, 5]
    assert late_norm.ids_of({"id": torch.tensor([7, 9])}) == [7, 9]  # sentence_prediction's
    assert late_norm.ids_of({}) == []
