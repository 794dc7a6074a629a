"""The optimizer is AdamW, also over an interruption, and compiled layers compute the same."""

import pytest
import torch
from builders.training import parse, same_weights, train
from fairseq import optim

from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.training.fused_adamw import FusedAdamW

FLAGS = ["--mask-strategy", "random", "--optimizer", "fused_adamw", "--weight-decay", "0.1", "--clip-norm", "0.5",
         "--lr-scheduler", "polynomial_decay", "--warmup-updates", "2", "--total-num-update", "20", "--lr", "0.01"]


def build(*flags, parameters):
    cfg = parse(["nowhere", "--task", "masked_lm", "--arch", "bertlet", "--optimizer", "fused_adamw", *flags])
    return optim.build_optimizer(cfg.optimizer, parameters)


def adamw(parameter, gradients, lr, betas, eps, decay):
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    x, m, v = parameter.double(), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * gradient.double()
        v = betas[1] * v + (1 - betas[1]) * gradient.double() ** 2
        update = m / (1 - betas[0]**t) / ((v / (1 - betas[1]**t)).sqrt() + eps)
        x = x - lr * (update + decay * x)
    return x


def test_updates_are_those_of_the_algorithm():
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(50, generator=generator), torch.randn(5, 50, generator=generator)
    parameter = torch.nn.Parameter(start.clone())
    optimizer = build("--lr", "0.02", "--adam-betas", "(0.8, 0.9)", "--adam-eps", "1e-3", "--weight-decay", "0.3",
                      parameters=[parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    expected = adamw(start, gradients, 0.02, (0.8, 0.9), 1e-3, 0.3)
    assert torch.allclose(parameter.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_ends_in_the_weights_of_a_straight_one(data_bin, tmp_path):
    straight = train(data_bin, str(tmp_path / "straight"), *FLAGS, "--max-epoch", "2")
    train(data_bin, str(tmp_path / "resumed"), *FLAGS, "--max-epoch", "1")
    resumed = train(data_bin, str(tmp_path / "resumed"), *FLAGS, "--max-epoch", "2")
    assert same_weights(straight, resumed)


@pytest.mark.parametrize("flags, message", [
    (["--adam-betas", "(0.9,)"], "--adam-betas: (0.9,) found, expected two numbers"),
    (["--adam-betas", "0.9, x"], "--adam-betas: 0.9, x found"), (["--adam-betas", "(0.9, 1.0)"], "--adam-betas"),
    (["--adam-eps", "0"], "--adam-eps: 0.0 found"), (["--weight-decay", "-1"], "--weight-decay: -1.0 found"),
])
def test_values_out_of_range_are_named(flags, message):
    with pytest.raises(UsageError) as caught:
        build("--lr", "0.1", *flags, parameters=[torch.nn.Parameter(torch.zeros(1))])
    assert str(caught.value).startswith(message)


@pytest.mark.slow
def test_compiled_layers_compute_the_same_and_leave_no_trace_in_the_checkpoint(make_task):
    flags = ["--mask-strategy", "random", "--dropout", "0", "--attention-dropout", "0"]
    plain, compiled = (make_task(*flags, *more)[1] for more in ([], ["--compile"]))
    compiled.load_state_dict(plain.state_dict())  # the same names
    tokens = torch.randint(4, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    one, other = plain(tokens)[0], compiled(tokens)[0]
    assert torch.allclose(one, other, atol=1e-5)
    one.square().mean().backward(), other.square().mean().backward()
    for name, parameter in plain.named_parameters():
        assert torch.allclose(parameter.grad, compiled.get_parameter(name).grad, atol=1e-6), name
    assert compiled.encoder.layers[0]._compiled_call_impl and not compiled.encoder.layers[-1]._compiled_call_impl


def updated(in_kernel, monkeypatch, max_norm, gradients, steps=3):
    """The weights after some updates whose gradients are scaled and clipped, and the norms."""
    monkeypatch.setattr(FusedAdamW, "scales_in_kernel", lambda self: in_kernel)
    parameters = [torch.nn.Parameter(torch.ones_like(gradient)) for gradient in gradients]
    optimizer = build("--lr", "0.02", "--weight-decay", "0.1", parameters=parameters)
    norms = []
    for number in range(1, steps + 1):
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient * number
        optimizer.multiply_grads(0.25)
        norms.append(optimizer.clip_grad_norm(max_norm))
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in parameters)
    return [parameter.detach() for parameter in parameters], torch.stack(norms)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_scaling_and_clipping_in_the_kernel_is_scaling_and_clipping(max_norm, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for shape in ((50,), (3, 4), ())]
    before, norms = updated(False, monkeypatch, max_norm, gradients)
    inside, same_norms = updated(True, monkeypatch, max_norm, gradients)
    torch.testing.assert_close(inside, before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(same_norms, norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize("max_norm", [0.0, 0.5])
def test_norm_and_clipping_are_fairseqs_bit_for_bit(max_norm, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(*shape, generator=generator) for shape in ((50,), (3, 4), (7,))]
    ours = updated(False, monkeypatch, max_norm, gradients)
    for name in ("multiply_grads", "clip_grad_norm"):
        monkeypatch.setattr(FusedAdamW, name, getattr(optim.FairseqOptimizer, name))
    theirs = updated(False, monkeypatch, max_norm, gradients)
    assert torch.equal(ours[1], theirs[1]) and all(map(torch.equal, ours[0], theirs[0]))


def test_gradients_that_are_not_finite_leave_the_weights_alone(monkeypatch):
    gradients = [torch.ones(5), torch.tensor([1.0, torch.inf])]
    (first, second), norms = updated(True, monkeypatch, 0.5, gradients, steps=1)
    assert not norms.isfinite().any() and torch.equal(first, torch.ones(5)) and torch.equal(second, torch.ones(2))


def test_a_factor_of_two_ranks_is_a_double_and_a_skipped_update_leaves_nothing(monkeypatch):
    monkeypatch.setattr(FusedAdamW, "scales_in_kernel", lambda self: True)
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = build("--lr", "0.02", parameters=[parameter])
    parameter.grad = torch.full((3,), torch.inf)
    optimizer.clip_grad_norm(0.5)  # and no step, as --amp does after an overflow
    parameter.grad = torch.ones(3)
    optimizer.multiply_grads(torch.tensor(0.25, dtype=torch.double))
    norm = optimizer.clip_grad_norm(10.0)
    assert norm.dtype == torch.float32 and norm == pytest.approx(0.25 * 3**0.5)
    optimizer.step()
    assert torch.isfinite(parameter).all() and not torch.equal(parameter.detach(), torch.ones(3))
