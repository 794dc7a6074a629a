"""What a step does on a GPU is what it does on a CPU, and the host never waits for it. Where the device is a parameter,
the CPU runs the same lines, so that they are known to run."""

import contextlib
import math

import pytest
import torch
from builders.training import TRAINING, batch_of, distance, masked_by_policy, train, weights
from fairseq import utils
from fairseq.logging import metrics

from entropy_mask_plugin.masking import noise
from entropy_mask_plugin.masking.scores import entropy
from entropy_mask_plugin.recording.reader import Recording
from entropy_mask_plugin.recording.writer import LAG
from entropy_mask_plugin.system.errors import UsageError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WAYS = {
    "random": ["--mask-strategy", "random", "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"],
    "self": ["--mask-strategy", "high", "--self-mask-from-epoch", "1"],
    "teacher": ["--mask-strategy", "marginal", "--teacher", "TEACHER"],
    "self + KD": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--teacher", "TEACHER", "--kd-weight",
                  "0.5"],
    "mask later": ["--mask-strategy", "random", "--mask-decoder-layers", "1"],
    "by tokens": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--guided-fraction", "0.5", "--mask-prob",
                  "0.3:0.15", "--max-update", "100"],
    "ema by sequences": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--self-mask-model", "ema",
                         "--store-ema", "--ema-decay", "0.9", "--guided-fraction", "0.5", "--guided-by", "sequences"],
    "gumbel by surprisal": ["--mask-strategy", "gumbel", "--mask-score", "surprisal", "--teacher", "TEACHER"],
    "hidden": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--entropy-folds", "2"],
    "predicted-loss": ["--mask-strategy", "high", "--mask-score", "predicted-loss"],
    "accuracy": ["--mask-strategy", "gumbel", "--mask-score", "accuracy", "--accuracy-window", "2"],
}
BY_NOISE = ("random", "mask later")  # no numerics of a device choose their masks
WITHOUT_DROPOUT = ["--dropout", "0", "--attention-dropout", "0"]
GPU_TRAINING = [flag for flag in TRAINING if flag != "--cpu"]
CPU_TRAINING = [*GPU_TRAINING, "--cpu"]


def flags_of(way, teacher):
    return [teacher if flag == "TEACHER" else flag for flag in WAYS[way]]


@pytest.fixture
def update(start_training, teacher):
    """device, way, flags -> a trainer there, and a function that makes one update."""
    return lambda device, way, *flags: start_training(
        "--clip-norm", "1", *flags_of(way, teacher), *flags, training=CPU_TRAINING if device == "cpu" else GPU_TRAINING)


@contextlib.contextmanager
def waiting_is_an_error(device):
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "mask later"])
def test_an_update_never_waits_for_the_device(way, precision, device, update):
    trainer, step = update(device, way, "--precision", precision)
    for _ in range(3):  # kernels are compiled and tried, the teacher moves
        step()
    with waiting_is_an_error(device):
        for _ in range(3):
            step()
    log = metrics.get_smoothed_values("train")
    assert math.isfinite(log["loss"]) and math.isfinite(log["gnorm"]) and trainer.get_num_updates() == 6


@pytest.mark.parametrize("device", DEVICES)
def test_recording_and_replaying_masks_never_wait_for_the_device(device, update, tmp_path):
    masks = str(tmp_path / "masks")
    for flags in (["--record-masks", masks], ["--replay-masks", masks, "--record-masks", f"{masks} again"]):
        trainer, step = update(device, "random", *flags)
        for _ in range(3):
            step()
        with waiting_is_an_error(device):
            for _ in range(2 * LAG):
                step()
        trainer.task.recorder.flush()
    one, other = (Recording(folder, "--replay-masks").masks(1) for folder in (masks, f"{masks} again"))
    assert len(one.ids) == 8 * (3 + 2 * LAG) and one.bits.any(1).all()
    assert (one.ids == other.ids).all() and (one.bits == other.bits).all()


@pytest.fixture
def entropies_as_on_a_gpu(monkeypatch):
    """A CPU projects in bf16, too, and refines a fixed number of positions."""
    for name in ("scoring.scorer.bf16_pays", "masking.devices.syncs_are_expensive"):
        monkeypatch.setattr(f"entropy_mask_plugin.{name}", lambda device: True)


# With few masked tokens, one that differs moves the loss of a batch by per cents.
LOSS_TOLERANCE = {way: 1e-3 if way in BY_NOISE else 5e-2 for way in WAYS}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
def test_losses_of_the_first_updates_are_those_of_a_cpu(way, device, update, teacher, request):
    start = [] if way == "mask later" else ["--init-from", teacher]  # its entropies differ
    expected = three_losses(*update("cpu", way, "--lr", "1e-4", *start, *WITHOUT_DROPOUT))
    request.getfixturevalue("entropies_as_on_a_gpu")
    losses = three_losses(*update(device, way, "--lr", "1e-4", *start, *WITHOUT_DROPOUT))
    assert losses == pytest.approx(expected, rel=LOSS_TOLERANCE[way])


def three_losses(trainer, step):
    losses = []
    for _ in range(3):
        step()
        losses.append(float(metrics.get_meter("train", "loss").val))
    return losses


@pytest.mark.gpu
def test_gradients_that_are_not_finite_stop_the_run_in_the_next_update_and_change_no_weight(update):
    trainer, step = update("cuda", "random")
    step()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    hook = next(trainer.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    step()
    hook.remove()
    with pytest.raises(UsageError, match="in update 2, expected a finite number"):
        step()
    assert all(map(torch.equal, trainer.model.parameters(), before))


@pytest.mark.gpu
@pytest.mark.parametrize("flag", ["--fp16", "--amp"])
def test_fairseqs_own_half_precision_trains_with_the_fused_optimizer(flag, update):
    """It scales the loss, and leaves out updates that overflow: weights stay finite, and move."""
    trainer, step = update("cuda", "self", flag)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    for _ in range(6):
        step()
    after = list(trainer.model.parameters())
    assert trainer.get_num_updates() > 0 and all(parameter.isfinite().all() for parameter in after)
    assert not all(map(torch.equal, before, after))
    assert math.isfinite(metrics.get_smoothed_values("train")["loss"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision, least", [("fp32", 0.98), ("bf16", 0.9)])
def test_the_masks_of_a_batch_are_those_of_a_cpu(precision, least, way, device, make_task, teacher, request):
    task, model, _ = make_task(*flags_of(way, teacher), "--precision", precision)
    model.load_state_dict(torch.load(teacher, weights_only=True)["model"], strict=False)  # entropies that differ
    sample = batch_of(task, range(100))
    expected = masked_by_policy(task, sample, model, 0)[0]["selected"].mask
    request.getfixturevalue("entropies_as_on_a_gpu")
    there = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)
    task.begin_epoch(1, model.to(device))  # moves what learns
    masked = masked_by_policy(task, there, model, 0)[0]["selected"].mask.cpu()
    same = (masked & expected).sum() / expected.sum()
    assert same == 1 if way in BY_NOISE else same >= least


@pytest.mark.gpu
def test_the_kernels_are_used():
    device = torch.device("cuda", torch.cuda.current_device())
    assert noise._kernel_is_right(device)
    assert entropy.kernel_is_right(device, torch.bfloat16) and entropy.kernel_is_right(device, torch.float32)


@pytest.mark.gpu
def test_rows_of_logits_begin_at_multiples_of_128_bytes(make_task):
    _, model, _ = make_task("--mask-strategy", "random")
    tokens = torch.randint(4, 300, (2, 16))
    expected = model.eval()(tokens)[0]
    logits = model.cuda()(tokens.cuda())[0]
    assert model.output_projection()[0].size(0) % 64 and logits.shape == expected.shape and logits.stride(1) % 64 == 0
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_a_resumed_run_ends_near_a_straight_one(data_bin, teacher, tmp_path, monkeypatch):
    """Near: atomic additions come in another order each time. A run that lost its optimizer or its place in the data
    ends as far from the straight one as the epoch has moved it."""
    monkeypatch.setattr("builders.training.TRAINING", GPU_TRAINING)
    flags = [*flags_of("self + KD", teacher), "--optimizer", "fused_adamw", "--precision", "bf16"]
    straight, again = (weights(train(data_bin, str(tmp_path / name), *flags, "--max-epoch", "2"))
                       for name in ("straight", "again"))
    first = weights(train(data_bin, str(tmp_path / "resumed"), *flags, "--max-epoch", "1"))
    resumed = weights(train(data_bin, str(tmp_path / "resumed"), *flags, "--max-epoch", "2"))
    moved = distance(straight, first)
    assert distance(straight, resumed) < max(3 * distance(straight, again), 0.01 * moved) < moved
