"""Prototypes within the package: losses through the real model, projection and criterion, and, where there is a GPU,
what no CPU can show. Each kernel by itself is tested in test_benchmark_prototypes.py."""

import contextlib
import inspect
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from builders.training import TINY, batch_of
from fairseq import utils

triton = pytest.importorskip("triton")

from entropy_mask_plugin.benchmark.prototypes import entropy, losses, step  # noqa: E402
from entropy_mask_plugin.benchmark.prototypes.compilations import KERNELS  # noqa: E402
from entropy_mask_plugin.models import bert, projection  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
THREE_LAYERS = [*TINY, "--encoder-layers", "3"]
WITHOUT_DROPOUT = ["--dropout", "0", "--attention-dropout", "0"]


class Step:
    """What the prototypes need of a benchmark variant: a trainer with a task, a criterion and a model."""

    def __init__(self, task, model, criterion):
        self.task, self.model, self.criterion = task, model.to(DEVICE), criterion.train()
        self.trainer, self.get_model = self, lambda: model
        self.cfg = SimpleNamespace(optimization=SimpleNamespace(update_freq=[1]))

    def sample(self, ids=range(12)):
        return utils.apply_to_sample(lambda tensor: tensor.to(DEVICE), batch_of(self.task, ids))

    def run(self, sample, factor=1.0):
        """Masks, forward, backward of `factor` times the loss: the log, and all gradients, which are added up."""
        optimizer = SimpleNamespace(backward=lambda loss: (factor * loss).backward())
        log = self.task.train_step(sample, self.model, self.criterion, optimizer, 0)[2]
        return log, [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]


@pytest.fixture
def make_step(make_task):
    def make(*flags, model=TINY):
        return Step(*make_task("--mask-strategy", "random", *WITHOUT_DROPOUT, *flags, model=model))

    return make


@pytest.fixture
def gradients_in_place(monkeypatch):
    """The projection of a GPU everywhere; for each gradient, whether it lay in the memory of the logits."""
    in_place, pad = [], projection.padded_gradient

    def record(gradient, logits):
        result = pad(gradient, logits)
        in_place.append(result is logits)
        return result

    monkeypatch.setattr(bert, "project", projection.padded_projection)
    monkeypatch.setattr(projection, "padded_gradient", record)
    return in_place


def assert_same_step(one, other, **tolerance):
    (log, gradients), (expected_log, expected) = one, other
    for key in ("loss", "kd_loss"):
        torch.testing.assert_close(log[key], expected_log[key], **tolerance or {"rtol": 1e-5, "atol": 1e-4})
    assert abs(log["n_correct"] - expected_log["n_correct"]) <= bool(tolerance)
    for mine, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, reference, **tolerance or {"rtol": 1e-4, "atol": 1e-5})


@pytest.mark.parametrize("factor", [1.0, 0.125])
def test_the_fused_loss_leaves_its_gradient_in_the_padded_logits(factor, make_step, gradients_in_place, monkeypatch):
    launches, launch = [], losses.launch
    monkeypatch.setattr(losses, "launch", lambda kernel, *rest: launches.append(kernel) or launch(kernel, *rest))
    plain, fused = make_step(), make_step()
    assert len(plain.task.dictionary) % projection.MULTIPLE
    step.fuse_cross_entropy(fused)
    sample = fused.sample()
    assert_same_step(fused.run(sample, factor), plain.run(sample, factor))
    assert gradients_in_place == [True, True] and launches == [losses.cross_entropy_kernel, losses.scale_kernel]


@pytest.mark.parametrize("kd_weight, temperature", [(0.3, 0.5), (0.3, 1.0), (1.0, 3.0)])
def test_fused_distillation_is_the_criterions(kd_weight, temperature, make_step, teacher, gradients_in_place):
    flags = ["--teacher", teacher, "--kd-weight", kd_weight, "--kd-temperature", temperature]
    plain, fused = make_step(*flags), make_step(*flags)
    step.fuse_distillation(fused)
    sample = fused.sample()
    log, gradients = fused.run(sample, 0.5)
    assert_same_step((log, gradients), plain.run(sample, 0.5))
    assert log["kd_loss"] > 0 and gradients_in_place == [True, False]  # the package's own makes a second tensor


def test_distillation_at_all_positions_is_refused(make_step, teacher):
    variant = make_step("--teacher", teacher, "--kd-weight", 0.5, "--kd-positions", "all")
    with pytest.raises(AssertionError, match="masked positions"):
        step.fuse_distillation(variant)


def test_validation_is_the_packages(make_step, teacher, monkeypatch):
    variant = make_step("--teacher", teacher, "--kd-weight", 0.5)
    step.fuse_cross_entropy(variant)
    step.fuse_distillation(variant)
    monkeypatch.setattr(losses, "launch", None)
    loss, _, log = variant.task.valid_step(variant.sample(), variant.model, variant.criterion.eval())
    assert loss == log["loss"] > 0


def test_layer_norm_in_bf16_changes_the_loss_by_less_than_2_percent(make_step):
    plain, changed = (make_step("--precision", "bf16", model=THREE_LAYERS) for _ in range(2))
    step.normalize_in_bf16(changed)
    sample = changed.sample()
    (log, gradients), (expected_log, expected) = changed.run(sample), plain.run(sample)
    assert 0 < abs(log["loss"] / expected_log["loss"] - 1) < 2e-2
    norm, expected_norm = (torch.stack([g.norm() for g in some]).norm() for some in (gradients, expected))
    assert all(g.dtype == torch.float32 for g in gradients) and norm == pytest.approx(float(expected_norm), rel=0.1)


@pytest.mark.parametrize("symbols", [50, 30522])
def test_losses_of_padded_rows_in_bf16(symbols):
    draw = torch.Generator().manual_seed(symbols)
    z, u = (3 * torch.randn(2, symbols + 6, generator=draw).to(DEVICE, torch.bfloat16)[:, :symbols] for _ in range(2))
    target, weight = torch.tensor([0, symbols - 1], device=DEVICE), torch.ones(2, device=DEVICE)
    reference = z.double().requires_grad_()
    log_p, log_q = (logits.double().div(2).log_softmax(-1) for logits in (reference, u))
    expected = 0.3 * F.cross_entropy(reference, target, reduction="sum") + 0.7 * 4 * F.kl_div(
        log_p, log_q, reduction="sum", log_target=True)
    (expected_gradient,) = torch.autograd.grad(expected, reference)
    x = z.requires_grad_()
    loss, *_ = losses.FusedDistillation.apply(x.view_as(x), u, target, weight, 0.7, 2.0)
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-2, atol=1e-6)


def test_a_compilation_names_every_argument_of_its_kernel():
    for compilation in KERNELS:
        names = [*compilation.types, *compilation.constants]
        assert names == list(inspect.signature(compilation.kernel.fn).parameters), compilation.title
        assert set(compilation.aligned) <= set(compilation.types)


# ---- what only a GPU shows


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 1e-4), (torch.float32, 1e-4)])
@pytest.mark.parametrize("width", [512, 768])
def test_the_forms_that_fit_a_gpu_compute_the_entropy(width, dtype, tolerance):
    draw = torch.Generator("cuda").manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, device="cuda", generator=draw)
                            for shape in ((300, width), (30522, width), (30522,)))
    operands = (hidden / width**0.5).to(dtype), weight.to(dtype), bias
    logits = operands[0].double() @ operands[1].double().T + bias.double()
    exact = torch.special.entr(logits.softmax(-1)).sum(-1)
    block = 64 if dtype == torch.bfloat16 else 32
    results = {}
    for tiling in (tiling for tiling in entropy.TILINGS if tiling.width == block):
        for tma in (False, True):
            with contextlib.suppress(triton.OutOfResources):  # a form that does not fit is not taken
                results[tiling, tma] = entropy.entropy_by_value(*operands, tiling, tma)
    assert results
    for form, result in results.items():
        torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=1e-5, msg=f"{form}")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_trial_finds_a_form_that_is_right(dtype):
    form = entropy.fastest_form(torch.device("cuda", torch.cuda.current_device()), dtype, 512)
    draw = torch.Generator("cuda").manual_seed(1)
    hidden, weight, bias = (torch.randn(*shape, device="cuda", generator=draw)
                            for shape in ((300, 512), (30522, 512), (30522,)))
    assert entropy.is_right(form, (hidden / 512**0.5).to(dtype), weight.to(dtype), bias)


@pytest.mark.gpu
@pytest.mark.parametrize("flags", [(), ("--precision", "bf16")])
@pytest.mark.parametrize("source", ["none", "teacher", "teacher + KD"])
def test_replayed_graphs_make_the_gradients_of_the_layers(source, flags, make_step, teacher):
    chosen = {"none": (), "teacher": ("--mask-strategy", "high", "--teacher", teacher),
              "teacher + KD": ("--mask-strategy", "high", "--teacher", teacher, "--kd-weight", "0.5")}[source]
    plain, replayed = (make_step(*flags, *chosen, model=THREE_LAYERS) for _ in range(2))
    step.replay_layers(replayed)
    tolerance = {"rtol": 5e-2, "atol": 5e-2} if flags else {"rtol": 1e-3, "atol": 1e-4}
    for ids in (range(12), range(12, 24), range(5), range(12)):  # the third is of another shape
        sample = replayed.sample(ids)
        assert not sample["net_input"]["has_padding"]
        assert_same_step(replayed.run(sample), plain.run(sample), **tolerance)
        for parameter, other in zip(replayed.model.parameters(), plain.model.parameters(), strict=True):
            parameter.data.sub_(1e-3 * parameter.grad)  # the graph reads the weights as they are now
            other.data.copy_(parameter.data)
            parameter.grad = other.grad = None
    assert replayed.model.encoder.run_layers.graphs


@pytest.mark.gpu
def test_each_replay_draws_other_dropout(make_step):
    variant = make_step("--dropout", "0.3", model=THREE_LAYERS)
    variant.model.encoder.dropout.p = 0.0
    variant.model.encoder.layers[-1].dropout = 0.0  # what is random is in the graph alone
    step.replay_layers(variant)
    sample = variant.sample()
    assert len({float(variant.run(sample)[0]["loss"]) for _ in range(3)}) == 3
