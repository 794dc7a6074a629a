"""The prototypes' kernels against plain forms written here: in Triton's interpreter where there is no GPU."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import batch_of

pytest.importorskip("triton")

from entropy_mask_plugin import criterion as criterion_module  # noqa: E402
from entropy_mask_plugin.benchmark import prototypes  # noqa: E402
from entropy_mask_plugin.benchmark.prototypes import entropy, losses, step  # noqa: E402
from entropy_mask_plugin.masking.entropy import plain_projected_entropy  # noqa: E402
from entropy_mask_plugin.models.projection import padded_projection  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BEYOND = 77.0  # in columns that are none of a row's


def rows_of(number, symbols, stride, scale=4.0, seed=0):
    """Logits K x V whose rows are `stride` apart; some equal, one row all equal, one confident."""
    generator = torch.Generator().manual_seed(seed + symbols)
    buffer = torch.full((number, stride), BEYOND)
    buffer[:, :symbols] = (scale * torch.randn(number, symbols, generator=generator)).round(decimals=0)  # ties
    if number > 2:
        buffer[1, :symbols] = 1.0
        buffer[2, min(3, symbols - 1)] = 80.0
    return buffer.to(DEVICE)[:, :symbols]


def consumed(logits):
    """A copy with the same strides, as a tensor with a gradient that is no leaf."""
    buffer = torch.empty_strided(logits.shape, logits.stride(), device=DEVICE).copy_(logits)
    leaf = torch.zeros_like(logits, requires_grad=True)
    return leaf, Onto.apply(leaf, buffer)


class Onto(torch.autograd.Function):
    @staticmethod
    def forward(ctx, leaf, values):
        return values

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clone(), None


SHAPES = [(1, 7, 7), (5, 50, 50), (5, 50, 64), (3, 30522, 30528), (0, 7, 7)]


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("number, symbols, stride", SHAPES)
def test_cross_entropy_in_one_kernel_is_torchs(number, symbols, stride, scale):
    logits, target = rows_of(number, symbols, stride), torch.arange(number, device=DEVICE) * 3 % symbols
    plain = logits.double().requires_grad_()
    expected = F.cross_entropy(plain, target, reduction="sum")
    (scale * expected).backward()
    leaf, values = consumed(logits)
    loss, correct = losses.fused_cross_entropy(values, target)
    (scale * loss).backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(leaf.grad.double(), plain.grad, rtol=1e-4, atol=1e-6)
    assert correct == logits.argmax(-1).eq(target).sum()  # the first of equal ones


def test_columns_beyond_the_vocabulary_stay_as_they_are():
    buffer = torch.full((4, 64), BEYOND, device=DEVICE)
    buffer[:, :50] = rows_of(4, 50, 50)
    values = Onto.apply(torch.zeros(4, 50, device=DEVICE, requires_grad=True), buffer[:, :50])
    losses.fused_cross_entropy(values, torch.zeros(4, dtype=torch.int64, device=DEVICE))[0].backward()
    assert torch.all(buffer[:, 50:] == BEYOND) and torch.all(buffer[:, 0] <= 0)


def test_without_a_gradient_the_logits_are_left_alone():
    logits, target = rows_of(5, 50, 50), torch.arange(5, device=DEVICE)
    before = logits.clone()
    loss, correct = losses.fused_cross_entropy(logits, target)
    assert torch.equal(logits, before) and torch.allclose(loss, F.cross_entropy(logits, target, reduction="sum"))


def plain_distillation(z, u, target, weight, mix, temperature):
    q, log_p = torch.softmax(u / temperature, -1), torch.log_softmax(z / temperature, -1)
    kd = temperature**2 * (weight * (q * (q.clamp(min=1e-300).log() - log_p)).sum(-1)).sum()
    mlm = F.cross_entropy(z, target, reduction="sum")
    return (1 - mix) * mlm + mix * kd, mlm, kd


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("mix", [0.3, 1.0])
@pytest.mark.parametrize("number, symbols, stride", [(1, 7, 7), (5, 50, 64), (0, 7, 7)])
def test_distillation_in_one_kernel_is_the_plain_one(number, symbols, stride, mix, temperature):
    logits, teacher = rows_of(number, symbols, stride), rows_of(number, symbols, symbols, seed=9)
    target = torch.arange(number, device=DEVICE) * 3 % symbols
    weight = torch.linspace(0.2, 1, number, device=DEVICE)
    plain = logits.double().requires_grad_()
    expected = plain_distillation(plain, teacher.double(), target, weight.double(), mix, temperature)
    (0.5 * expected[0]).backward()
    leaf, values = consumed(logits)
    *sums, correct = losses.FusedDistillation.apply(values, teacher, target, weight, mix, temperature)
    (0.5 * sums[0]).backward()
    for one, other in zip(sums, expected):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(leaf.grad.double(), plain.grad, rtol=1e-3, atol=1e-5)
    assert correct == logits.argmax(-1).eq(target).sum()


SMALL = entropy.Tiling(16, 16, 16, 4, 2, False)


@pytest.mark.parametrize("rows, vocabulary, width", [(1, 7, 16), (17, 33, 32), (40, 100, 48), (0, 7, 16)])
@pytest.mark.parametrize("scale", [0.0, 0.3, 8.0])
@pytest.mark.parametrize("tiling", [SMALL, SMALL._replace(flatten=True)], ids=str)
def test_entropy_by_value_is_the_plain_form(tiling, scale, rows, vocabulary, width):
    generator = torch.Generator().manual_seed(rows + vocabulary)
    hidden, weight, bias = (torch.randn(shape, generator=generator).to(DEVICE) for shape in (
        (rows, width), (vocabulary, width), (vocabulary,)))
    if scale == 0.0:
        bias = torch.zeros_like(bias)  # all logits equal: ln V
    result = entropy.entropy_by_value(scale * hidden, weight, bias, tiling)
    torch.testing.assert_close(result, plain_projected_entropy(scale * hidden, weight, bias), rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_the_best_form_is_right():
    form = entropy.best_form(torch.device("cuda", 0), 512, 30522)
    hidden, weight = (torch.randn(rows, 512, device="cuda").bfloat16() for rows in (300, 30522))
    expected = plain_projected_entropy(hidden.float(), weight.float(), torch.zeros(30522, device="cuda"))
    result = entropy.entropy_by_value(hidden, weight, torch.zeros(30522, device="cuda"), *form)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


# ---- over a step


class Variant:
    def __init__(self, task, model):
        self.trainer = type("Trainer", (), {"task": task, "get_model": lambda self: model})()


def outcome(task, model, criterion, sample):
    model.zero_grad()
    loss, size, log = criterion(model, sample)
    loss.backward()
    return loss.detach(), size, log["n_correct"], torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.fixture
def kd_step(make_task, teacher):
    task, model, criterion = make_task("--mask-strategy", "random", "--teacher", teacher, "--kd-weight", "0.3",
                                       "--kd-temperature", "2", "--dropout", "0", "--attention-dropout", "0")
    model.train(), criterion.train()
    return task, model, criterion, task.mask_for_training(batch_of(task, range(12)), model, 0)[0]


@pytest.mark.parametrize("padded", [False, True])  # as on a GPU
@pytest.mark.parametrize("kd", [False, True])
def test_losses_in_one_kernel_change_no_step(kd, padded, kd_step, monkeypatch):
    task, model, criterion, sample = kd_step
    criterion.cfg.kd_weight = 0.3 if kd else 0.0
    expected = outcome(task, model, criterion, sample)
    for owner, name in ((criterion_module, "cross_entropy_of_consumed"),
                        (criterion_module.EntropyMaskedLMCriterion, "with_distillation")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    if padded:
        monkeypatch.setattr("entropy_mask_plugin.models.bert.project", padded_projection)
    step.cross_entropy_in_one_kernel(None), step.distillation_in_one_kernel(None)
    for one, other in zip(outcome(task, model, criterion, sample), expected):
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-4, atol=1e-5)


def test_layer_norm_in_bf16_changes_little_and_nothing_without_autocast(kd_step, monkeypatch):
    task, model, criterion, sample = kd_step
    with torch.autocast("cpu", torch.bfloat16):
        expected = outcome(task, model, criterion, sample)[0]
    exact = outcome(task, model, criterion, sample)[0]
    monkeypatch.setattr(nn.LayerNorm, "forward", nn.LayerNorm.forward)
    step.layer_norm_in_bf16(None)
    assert torch.equal(outcome(task, model, criterion, sample)[0], exact)
    with torch.autocast("cpu", torch.bfloat16):
        loss = outcome(task, model, criterion, sample)[0]
    assert loss != expected and abs(loss / expected - 1) < 2e-2


def test_refinement_can_be_left_out(make_task):
    task, model, _ = make_task("--mask-strategy", "high", "--self-mask-from-epoch", "1")
    step.no_refinement(Variant(task, model))
    assert task.cfg.entropy_precision == "bf16"


def test_a_graphed_layer_is_used_for_its_own_shape_alone():
    layer = nn.Identity().train()
    forward = step.through(lambda x: "graph", lambda x, *rest: "eager", (2, 3, 4), layer)
    x = torch.ones(2, 3, 4)
    assert forward(x, None) == "graph"
    assert forward(x[:1], None) == forward(x, "padding") == forward(x, None, "positions") == "eager"
    with torch.no_grad():
        assert forward(x, None) == "eager"
    layer.eval()
    assert forward(x, None) == "eager"


def test_names_are_unique_and_variants_exist():
    from entropy_mask_plugin.benchmark.variants import OURS

    names = [prototype.name for prototype in prototypes.PROTOTYPES]
    assert len(set(names)) == len(names)
    assert {name for prototype in prototypes.PROTOTYPES for name in prototype.variants or ()} <= set(OURS)
