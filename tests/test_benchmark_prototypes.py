"""Prototypes of faster kernels against plain torch (in Triton's interpreter without a GPU), and put over a step."""

import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from entropy_mask_plugin import criterion  # noqa: E402
from entropy_mask_plugin.benchmark import data, steps, variants  # noqa: E402
from entropy_mask_plugin.benchmark.prototypes import PROTOTYPES, entropy, losses, step  # noqa: E402
from entropy_mask_plugin.masking.scores import triton_entropy  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*shape, seed=0, scale=1.0):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE)


def leaf(logits):
    """A copy with the same strides: the kernels destroy what they get. The columns between the rows hold 7."""
    buffer = torch.full((len(logits), logits.stride(0)), 7.0, dtype=logits.dtype, device=DEVICE)
    rows = buffer[:, : logits.size(1)]
    rows.copy_(logits)
    return rows.requires_grad_(), buffer


def with_gaps(logits, stride):
    return F.pad(logits, (0, stride - logits.size(1)))[:, : logits.size(1)]


# ---- cross-entropy


def check_cross_entropy(logits, target, factor=1.0):
    x, buffer = leaf(logits)
    loss, correct = losses.fused_cross_entropy(x.view_as(x), target)
    (gradient,) = torch.autograd.grad(factor * loss, x)
    reference = logits.double().requires_grad_()
    expected = F.cross_entropy(reference, target, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(factor * expected, reference)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-6)
    assert correct == logits.argmax(-1).eq(target).sum()
    assert gradient.data_ptr() == x.data_ptr() and (buffer[:, logits.size(1):] == 7).all()


@pytest.mark.parametrize("rows, symbols", [(1, 7), (5, 7), (1, 2), (3, 2048), (2, 2049), (2, 30522)])
@pytest.mark.parametrize("gap", [0, 6])
def test_cross_entropy_and_its_gradient_are_torchs(rows, symbols, gap):
    logits = with_gaps(random(rows, symbols, scale=4.0), symbols + gap)
    check_cross_entropy(logits, torch.arange(rows, device=DEVICE) * 31 % symbols)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1024.0])
def test_the_gradient_is_scaled_by_what_comes_from_above(factor):
    check_cross_entropy(random(4, 33), torch.tensor([0, 5, 32, 5], device=DEVICE), factor)


@pytest.mark.parametrize("target, n_correct", [([0, 0, 0], 3), ([1, 2, 6], 0)])
def test_of_equal_logits_the_first_is_the_prediction(target, n_correct):
    target = torch.tensor(target, device=DEVICE)
    check_cross_entropy(torch.full((3, 7), -2.0, device=DEVICE), target)
    assert losses.FusedCrossEntropy.apply(torch.zeros(3, 7, device=DEVICE), target)[1] == n_correct


@pytest.mark.parametrize("first, second", [(3, 5), (3, 2500), (2047, 2048)])  # in one block of columns, and in two
def test_of_two_largest_the_first_is_the_prediction(first, second):
    logits = random(2, 4000)
    logits[:, [first, second]] = 50.0
    check_cross_entropy(logits, torch.tensor([first, second], device=DEVICE))


def test_confident_and_hopeless_predictions_stay_finite():
    logits = torch.full((3, 40), -90.0, device=DEVICE)
    logits[:, 20] = 90.0
    check_cross_entropy(logits, torch.tensor([20, 3, 39], device=DEVICE))


def test_a_batch_without_masks_has_a_loss_of_zero():
    x = torch.zeros(0, 7, device=DEVICE, requires_grad=True)
    target = torch.zeros(0, dtype=torch.int64, device=DEVICE)
    loss, correct = losses.fused_cross_entropy(x.view_as(x), target)
    assert loss == 0 and correct == 0 and torch.autograd.grad(loss, x)[0].shape == (0, 7)


def test_what_the_kernel_does_not_compute_is_left_to_the_package():
    logits, target = random(3, 7), torch.tensor([1, 2, 3], device=DEVICE)
    kept = logits.clone()
    loss, _ = losses.fused_cross_entropy(logits, target)  # no gradient wanted
    torch.testing.assert_close(loss, F.cross_entropy(kept, target, reduction="sum"))
    half = logits.half().requires_grad_()
    losses.fused_cross_entropy(half, target)[0].backward()
    assert torch.equal(logits, kept) and torch.equal(half.detach(), kept.half())


# ---- MLM and distillation


def check_distillation(student, teacher, temperature, kd_weight=0.5, factor=1.0):
    rows, symbols = student.shape
    target = torch.arange(rows, device=DEVICE) * 5 % symbols
    weight = torch.linspace(0.2, 1.0, rows, device=DEVICE)
    x, buffer = leaf(student)
    arguments = teacher, target, weight, kd_weight, temperature
    loss, mlm, kd, correct = losses.FusedDistillation.apply(x.view_as(x), *arguments)
    (gradient,) = torch.autograd.grad(factor * loss, x)
    z = student.double().requires_grad_()
    log_p, log_q = ((logits.double() / temperature).log_softmax(-1) for logits in (z, teacher))
    expected_kd = temperature**2 * (weight * (log_q.exp() * (log_q - log_p)).sum(-1)).sum()
    expected_mlm = F.cross_entropy(z, target, reduction="sum")
    (expected,) = torch.autograd.grad(factor * ((1 - kd_weight) * expected_mlm + kd_weight * expected_kd), z)
    torch.testing.assert_close(mlm.double(), expected_mlm.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(kd.double(), expected_kd.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, (1 - kd_weight) * mlm + kd_weight * kd)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=3e-6)
    assert correct == student.argmax(-1).eq(target).sum() and (buffer[:, symbols:] == 7).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("rows, symbols, gap", [(1, 7, 0), (4, 33, 5), (2, 2049, 0), (1, 30522, 6)])
def test_both_losses_and_their_gradient_are_torchs(rows, symbols, gap, temperature):
    student, teacher = (with_gaps(random(rows, symbols, seed=seed, scale=3.0), symbols + gap) for seed in (1, 2))
    check_distillation(student, teacher, temperature)


@pytest.mark.parametrize("kd_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_weight_of_distillation_and_the_scale_of_the_loss_reach_the_gradient(kd_weight, factor):
    check_distillation(random(3, 33, seed=1), random(3, 33, seed=2), 2.0, kd_weight, factor)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_student_like_its_teacher_and_even_predictions_are_no_special_cases(temperature):
    logits = random(3, 33, scale=3.0)
    check_distillation(logits, logits.clone(), temperature)
    check_distillation(torch.zeros(3, 7, device=DEVICE), torch.zeros(3, 7, device=DEVICE), temperature)
    check_distillation(torch.zeros(3, 7, device=DEVICE), random(3, 7, scale=20.0), temperature)


def test_distillation_of_no_rows_is_zero():
    x, none = torch.zeros(0, 7, device=DEVICE, requires_grad=True), torch.zeros(0, device=DEVICE)
    loss, *_ = losses.FusedDistillation.apply(x.view_as(x), x.detach(), none.long(), none, 0.5, 2.0)
    assert loss == 0 and torch.autograd.grad(loss, x)[0].shape == (0, 7)


# ---- entropy

SMALL = entropy.Tiling(16, 16, 16, 4, 2)


def exact_entropy(hidden, weight, bias):
    return torch.special.entr((hidden.double() @ weight.double().T + bias.double()).softmax(-1)).sum(-1)


@pytest.mark.parametrize("tma", [False, True])
@pytest.mark.parametrize("rows, symbols, width", [(1, 7, 16), (16, 16, 16), (17, 33, 32), (40, 100, 48), (0, 7, 16)])
@pytest.mark.parametrize("scale", [0.0, 0.1, 2.0])
def test_every_form_computes_the_entropy(rows, symbols, width, scale, tma):
    operands = random(rows, width, scale=scale), random(symbols, width, seed=1), random(symbols, seed=2)
    result = entropy.entropy_by_value(*operands, SMALL, tma)
    assert result.dtype == torch.float32 and result.shape == (rows,)
    torch.testing.assert_close(result.double(), exact_entropy(*operands), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tma", [False, True])
def test_the_vocabulary_of_bert_is_summed_to_the_end(tma):
    operands = random(2, 32, scale=0.5), random(30522, 32, seed=1), random(30522, seed=2)
    result = entropy.entropy_by_value(*operands, entropy.Tiling(16, 512, 32, 4, 2), tma)
    torch.testing.assert_close(result.double(), exact_entropy(*operands), rtol=1e-5, atol=0)


@pytest.mark.parametrize("symbols", [7, 16, 33])
@pytest.mark.parametrize("bias", [0.0, 30.0, -30.0])
def test_equal_logits_are_the_logarithm_of_their_number(symbols, bias):
    hidden, weight, bias = torch.zeros(3, 16), torch.zeros(symbols, 16), torch.full((symbols,), bias)
    result = entropy.entropy_by_value(hidden.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), SMALL)
    torch.testing.assert_close(result, torch.tensor(symbols, device=DEVICE).log().expand(3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("at", [(0, 1), (3, 20), (20, 32)])  # in one block of symbols, and in two
@pytest.mark.parametrize("gap", [1.0, 20.0, 60.0])
def test_several_largest_logits_count_each(at, gap):
    hidden, weight, bias = torch.zeros(1, 16), torch.zeros(33, 16), torch.zeros(33)
    bias[list(at)] = gap
    result = entropy.entropy_by_value(hidden.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), SMALL)
    torch.testing.assert_close(result.cpu().double(), exact_entropy(hidden, weight, bias), rtol=1e-5, atol=0)


@pytest.mark.parametrize("at", [0, 20, 32])
@pytest.mark.parametrize("gap", [10.0, 30.0, 80.0])
def test_confident_predictions_keep_their_digits(at, gap):
    hidden, weight, bias = torch.zeros(1, 16), torch.zeros(33, 16), torch.zeros(33)
    bias[at] = gap
    result = entropy.entropy_by_value(hidden.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), SMALL)
    r = 32 * torch.tensor(-gap).double().exp()  # the sum of the others beside the largest
    torch.testing.assert_close(result.cpu().double(), (torch.log1p(r) + gap * r / (1 + r)).expand(1), rtol=1e-5, atol=0)


def test_a_width_that_is_no_multiple_of_a_blocks_is_no_form():
    assert list(entropy.forms(96)) == ["128 x 64 x 32, 8 warps, 3 stages", "128 x 64 x 32, 8 warps, 3 stages, TMA"]
    with pytest.raises(AssertionError, match="multiple"):
        entropy.entropy_by_value(random(2, 24), random(7, 24), random(7), SMALL)


@pytest.fixture
def trials(monkeypatch):
    """Trials that take as long as the form says."""
    monkeypatch.setattr(entropy, "PROBE_ROWS", 20)
    monkeypatch.setattr(entropy, "PROBE_SYMBOLS", 40)
    monkeypatch.setattr(entropy, "package_entropy", lambda *operands: 5.0)
    monkeypatch.setattr(entropy, "device_ms", lambda function, repeats: function())
    entropy.fastest_form.cache_clear()
    yield monkeypatch
    entropy.fastest_form.cache_clear()


def test_the_fastest_right_form_is_taken_and_tried_once(trials, capsys):
    def fails(*operands):
        raise RuntimeError("out of resource: shared memory")

    wrong, slow, fast = (lambda *operands, ms=ms: ms for ms in (1.0, 4.0, 3.0))
    trials.setattr(entropy, "forms", lambda width: {"fails": fails, "wrong": wrong, "slow": slow, "fast": fast})
    trials.setattr(entropy, "is_right", lambda form, *operands: form(*operands) != 1.0)
    operands = random(3, 16), random(7, 16), random(7)
    assert entropy.tuned_entropy(*operands) == entropy.tuned_entropy(*operands) == 3.0
    assert capsys.readouterr().out.count("fast, 3.000 ms") == 1


def test_the_packages_kernel_stays_where_no_form_is_right(trials):
    trials.setattr(entropy, "forms", lambda width: {"wrong": lambda hidden, *operands: torch.zeros(len(hidden))})
    assert entropy.tuned_entropy(random(3, 16), random(7, 16), random(7)) == 5.0


# ---- over a step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data-bin of 200 symbols and a teacher for it."""
    folder = tmp_path_factory.mktemp("prototypes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "VOCABULARY", 200)
        data.write_data_bin(os.path.join(folder, "bin"), 4000)
    data.write_teacher(os.path.join(folder, "bertlet.pt"), setting(folder).ours(*variants.OURS["random"]))
    return folder


def setting(folder, precision="fp32"):
    return variants.Setting(str(folder), "bertlet", 16, 4, precision, DEVICE == "cpu", steps.TINY)


def build(folder, name, precision="fp32"):
    return variants.WithFairseq(setting(folder, precision).ours(*variants.OURS[name]))


def weights_after(variant, updates=2):
    for _ in range(updates):
        variant.step()
    return [parameter.detach() for parameter in variant.trainer.model.parameters()]


def assert_same_weights(one, other):
    for mine, expected in zip(weights_after(one), weights_after(other), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name, apply, kernel", [
    ("random", step.fuse_cross_entropy, "cross_entropy_kernel"),
    ("self + KD", step.fuse_distillation, "distillation_kernel")])
def test_a_step_with_a_loss_in_one_kernel_is_the_packages(name, apply, kernel, folder, monkeypatch):
    launches, launch = [], losses.launch
    monkeypatch.setattr(losses, "launch", lambda k, *arguments: launches.append(k.fn.__name__) or launch(k, *arguments))
    variant = build(folder, name)
    apply(variant)
    assert_same_weights(variant, build(folder, name))
    assert launches == [kernel, "scale_kernel"] * 2


def test_a_patch_holds_in_the_steps_of_its_variant_alone(folder):
    original, calls = criterion.inplace_cross_entropy, []
    patched, other = build(folder, "random"), build(folder, "random")
    step.patch_steps(patched, criterion, "inplace_cross_entropy",
                     lambda *arguments: calls.append(1) or original(*arguments))
    other.step()
    assert not calls
    patched.step()
    assert calls
    assert criterion.inplace_cross_entropy is original


def test_a_patch_is_taken_back_where_a_step_fails(folder):
    original, variant = criterion.inplace_cross_entropy, build(folder, "random")
    step.patch_steps(variant, criterion, "inplace_cross_entropy", None)
    trainer = variant.trainer
    sample, _ = trainer._prepare_sample(next(variant.batches)[0])
    with pytest.raises(TypeError):
        trainer.task.train_step(sample, trainer.model, trainer.criterion, trainer.optimizer, 0)
    assert criterion.inplace_cross_entropy is original


def test_the_tuned_kernel_takes_the_place_of_the_packages_within_a_step(folder):
    variant, original = SimpleNamespace(trainer=SimpleNamespace(task=SimpleNamespace())), triton_entropy.fused_entropy
    variant.trainer.task.train_step = lambda: triton_entropy.fused_entropy
    step.tune_entropy_kernel(variant)
    assert variant.trainer.task.train_step() is entropy.tuned_entropy and triton_entropy.fused_entropy is original


def test_without_refinement_nothing_is_projected_again(folder, monkeypatch):
    from entropy_mask_plugin.scoring import scorer

    types, projected = [], scorer.projected
    monkeypatch.setattr(scorer, "bf16_pays", lambda device: True)
    monkeypatch.setattr(scorer, "projected", lambda *arguments: types.append(arguments[5]) or projected(*arguments))
    variant = build(folder, "self", "bf16")
    variant.step()
    assert torch.float32 in types
    types.clear()
    step.leave_out_refinement(variant)
    variant.step()
    assert types == [torch.bfloat16]


def test_layer_norm_keeps_bf16_under_autocast_and_fp32_without(folder):
    norm, x = torch.nn.LayerNorm(8), random(3, 8).cpu()
    assert torch.equal(step.layer_norm_in_bf16(norm, x), norm(x))
    with torch.autocast("cpu", torch.bfloat16):
        result = step.layer_norm_in_bf16(norm, x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), norm(x), rtol=2e-2, atol=2e-2)
    variant = build(folder, "self + KD", "bf16")
    step.normalize_in_bf16(variant)
    assert all("forward" in vars(module) for model in step.models_of(variant) for module in model.modules()
               if isinstance(module, torch.nn.LayerNorm)) and len(step.models_of(variant)) == 2
    variant.step()


@pytest.fixture
def recordings(monkeypatch):
    """On a CPU, graphs that are none: each replay is counted by its kind."""
    replays = []
    monkeypatch.setattr(step, "recorded", lambda layers, x: lambda x: replays.append("training") or layers(x))
    monkeypatch.setattr(step, "Replay", lambda layers, x: lambda x: replays.append("evaluation") or layers(x))
    return replays


@pytest.mark.slow
def test_replayed_layers_make_the_step_that_it_was(folder, recordings):
    variant = build(folder, "self + KD")
    step.replay_layers(variant)
    assert_same_weights(variant, build(folder, "self + KD"))
    # In an update the model scores the batch, is trained, and the teacher answers; the first batch has padding.
    assert recordings == ["evaluation", "training", "evaluation"]


def test_a_batch_of_another_shape_or_with_padding_is_not_replayed(folder, recordings):
    model = build(folder, "random").trainer.get_model().cpu().eval()
    plain, encoder = model.encoder.run_layers, model.encoder
    encoder.run_layers = step.ReplayedLayers(encoder)
    x, shorter, attend = random(4, 16, 32).cpu(), random(3, 16, 32).cpu(), torch.ones(4, 1, 1, 16, dtype=torch.bool)
    attend[0, ..., 12:] = False
    with torch.no_grad():
        for arguments in ((x, None), (shorter, None), (x, attend)):
            assert torch.equal(encoder.run_layers(*arguments), plain(*arguments))
    encoder.run_layers(x, None)  # evaluation with gradients
    assert recordings == ["evaluation"]


def test_the_list_names_variants_that_are_measured():
    assert len({prototype.name for prototype in PROTOTYPES}) == len(PROTOTYPES)
    assert all(set(prototype.variants or ()) <= set(steps.WITH_PROTOTYPES) for prototype in PROTOTYPES)
    assert any(not prototype.needs_gpu for prototype in PROTOTYPES)
