"""An update of fairseq's trainer with less around it: the same log, no waiting, and no infinite gradient gets lost."""

import math
import time

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, utils
from fairseq.logging import metrics
from omegaconf import OmegaConf

from entropy_mask_plugin.benchmark.host import Operations
from entropy_mask_plugin.fairseq_fixes import late_log, late_norm
from entropy_mask_plugin.scoring import scorer
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.training.fused_adamw import FusedAdamW


@pytest.fixture
def start(start_training):
    """A trainer, and a function that makes one update."""
    return lambda *flags: start_training("--mask-strategy", "random", "--clip-norm", "0.5", *flags)


WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")


class InMemory:
    """Stands for `AsyncScalar`, which needs a GPU."""

    def __init__(self, tensor):
        self.tensor = tensor.clone()

    def number(self):
        return float(self.tensor)


@pytest.fixture
def late(monkeypatch):
    """As on a GPU: norms are looked at an update later, and the optimizer scales."""
    monkeypatch.setattr(late_norm, "AsyncScalar", InMemory)
    for module in (late_norm, late_log):
        monkeypatch.setattr(module, "may_be_late", lambda trainer: True)
    monkeypatch.setattr(FusedAdamW, "scales_in_kernel", lambda self: True)


def train_log(update, number):
    for _ in range(number):
        update()
    read = metrics.get_smoothed_values("train")
    inner = metrics.get_smoothed_values("train_inner")
    timing = ("ups", "wps", "train_wall", "hours", "wall")
    return [{key: value for key, value in log.items() if key not in timing} for log in (read, inner)]


def test_numbers_that_wait_are_logged_as_if_they_had_been_logged_at_once(start, monkeypatch):
    _, update = start()
    together = train_log(update, 6)
    monkeypatch.setattr(late_log, "MAX_PENDING", 1)
    _, update = start()
    assert train_log(update, 6) == together
    assert together[0] == together[1] and together[0]["loss"] > 1 and together[0]["clip"] == 100
    assert together[0]["bsz"] == 8 and {"gnorm", "accuracy", "mask_rate", "ppl"} <= together[0].keys()


def test_averages_are_those_of_the_updates(start):
    _, update = start()
    losses, norms, weights = [], [], []
    for _ in range(4):
        update()
        losses.append(float(metrics.get_meter("train", "loss").val))
        norms.append(float(metrics.get_meter("train", "gnorm").val))
        weights.append(metrics.get_meter("train", "loss").count - sum(weights))
    log = metrics.get_smoothed_values("train")
    expected = sum(loss * weight for loss, weight in zip(losses, weights)) / sum(weights)
    assert log["loss"] == pytest.approx(expected, abs=6e-4) and log["gnorm"] == pytest.approx(sum(norms) / 4, abs=6e-4)


def test_speeds_are_measured_from_the_first_update_on(start):
    _, update = start()
    update()
    begin = time.perf_counter()
    for _ in range(4):
        update()
    seconds = time.perf_counter() - begin
    time.sleep(0.2)  # the log is read later
    meter = metrics.get_meter("train_inner", "ups")
    assert meter.n == 4 and seconds < meter.elapsed_time < seconds + 0.4
    assert metrics.get_meter("train", "wps").n > 4 * 8


def test_each_interval_has_its_own_numbers(start):
    _, update = start()
    first = train_log(update, 2)[1]
    metrics.reset_meters("train_inner")
    second = train_log(update, 2)[1]
    assert first["loss"] != second["loss"]
    both = metrics.get_smoothed_values("train")["loss"]
    assert min(first["loss"], second["loss"]) < both < max(first["loss"], second["loss"])


def test_checkpoints_hold_what_was_logged_until_then_and_fairseqs_kind_of_settings(start, tmp_path):
    trainer, update = start()
    update()
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(str(tmp_path / "saved.pt"), {})
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    (meter,) = (state for _, key, _, state in saved["extra_state"]["metrics"]["train"] if key == "loss")
    assert meter["count"] > 0
    assert saved["cfg"]["task"]["mask_strategy"] == "random" and OmegaConf.is_config(trainer.cfg)


def test_settings_are_the_original_ones_for_a_checkpoint_that_a_failing_update_writes(start, tmp_path, monkeypatch):
    trainer, update = start()
    monkeypatch.setattr(trainer.task, "train_step", lambda **named: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        update()
    assert torch.load(tmp_path / "crash.pt", weights_only=True)["cfg"]["common"]["seed"] == 1
    assert OmegaConf.is_config(trainer.cfg)


def test_an_update_asks_the_device_for_nothing(start, late, monkeypatch):
    monkeypatch.setattr(InMemory, "number", lambda self: 1.0)  # that one has long been there
    monkeypatch.setattr(scorer, "bf16_pays", lambda device: False)  # a CPU refines with syncs, which cost it nothing
    trainer, update = start("--self-mask-from-epoch", "1", "--mask-strategy", "high")
    update()
    with Operations() as watch:
        update()
    # once, fairseq looks at a number that is on the host: isfinite(...).all() of a constant
    assert {name: watch.numbers[name] for name in WAITS if name in watch.numbers} == {"_local_scalar_dense": 1}
    with Operations() as watch:
        metrics.get_smoothed_values("train")
    assert watch.numbers["stack"] == 2  # one transfer for the floats, one for the integers


def spoil(model, value):
    return next(model.parameters()).register_hook(lambda gradient: gradient * value)


def fail_in_update_3(start, value):
    trainer, update = start()
    update(), update()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    hook = spoil(trainer.model, value)
    update()
    hook.remove()
    return trainer, update, before


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_update_that_was_not_finite_is_named_in_the_next_and_changed_no_weight(start, late, value):
    trainer, update, before = fail_in_update_3(start, value)
    assert all(map(torch.equal, trainer.model.parameters(), before))
    message = r"gradients: their norm is (inf|nan) in update 3 \(samples( \d+){8}\), expected a finite number"
    with pytest.raises(UsageError, match=message):
        update()
    assert all(map(torch.equal, trainer.model.parameters(), before))


@pytest.mark.parametrize("look", ["save", "log"])
def test_no_checkpoint_and_no_log_comes_after_an_update_that_was_not_finite(start, late, look, tmp_path):
    trainer, _, _ = fail_in_update_3(start, math.inf)

    def save():
        trainer.consolidate_optimizer()
        trainer.save_checkpoint(str(tmp_path / "saved.pt"), {})

    with pytest.raises(UsageError, match="update 3"):
        save() if look == "save" else metrics.get_smoothed_values("train")
    assert not (tmp_path / "saved.pt").exists()


def test_on_a_cpu_an_update_that_is_not_finite_ends_the_run_at_once(start, tmp_path):
    trainer, update = start("--cpu")
    update()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    spoil(trainer.model, math.inf)
    with pytest.raises(UsageError, match=r"^gradients: their norm is inf in update 2 \(samples( \d+){8}\), expected"):
        update()
    assert all(map(torch.equal, trainer.model.parameters(), before)) and not list(tmp_path.glob("crash*"))


def test_gradients_of_a_cpu_are_clipped_there_on_a_machine_with_a_gpu(monkeypatch):
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.full((2,), 2.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "meta")  # where fairseq would put the norms
    assert utils.clip_grad_norm_(parameters, 1.0) == pytest.approx(4.0) and torch.cuda.is_available()
    assert all(torch.allclose(parameter.grad, torch.tensor(0.5), rtol=1e-4) for parameter in parameters)


def test_the_random_numbers_of_an_update_are_fairseqs(start):
    trainer, _ = start("--seed", "7")
    trainer._set_seed()
    ours = torch.rand(5)
    torch.manual_seed(7 + trainer.get_num_updates())
    assert torch.equal(ours, torch.rand(5))


def test_a_best_score_of_numpy_is_saved_as_a_plain_number(tmp_path):
    extra_state = {"best": np.float64(0.75), "all": [np.int64(3), {"x": 1}]}
    state = {"model": {"weight": torch.ones(2)}, "extra_state": extra_state}
    checkpoint_utils.torch_persistent_save(state, str(tmp_path / "x.pt"))
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    assert saved["extra_state"] == {"best": 0.75, "all": [3, {"x": 1}]}
    assert torch.equal(saved["model"]["weight"], torch.ones(2))
