"""Stage `kernels`: are the kernels correct, and how fast are they? On a GPU at the sizes of a step of 32,768 tokens; on
a CPU, in Triton's interpreter, at tiny sizes and for correctness only.

Each kernel is compared with float64. The stage fails if one of the package's exceeds its limit; a prototype that does
is recorded as failed, and the stage goes on.
Shapes: N rows, K selected positions, C width, V vocabulary.
"""

import os
from functools import partial

import torch
import torch.nn.functional as F

from ..criterion import distillation_loss
from ..masking import noise
from ..masking.scores.entropy import TOLERANCE, plain_projected_entropy
from ..models.projection import MULTIPLE
from ..training.cross_entropy import inplace_cross_entropy
from .results import attempt, record
from .timing import DEVICE, ON_GPU, device_ms, host_ms, matmul_rate
from .variants import VOCABULARY

SELECTED, N_ROWS, PLAIN_ROWS = 4915, 32768, 3277  # of 32,768 tokens
LOSS_LIMIT = 1e-4  # relative: sums in fp32
GRADIENT_LIMIT = {torch.float32: 1e-4, torch.bfloat16: 1e-2}  # relative: it is rounded to the type of the logits


def run(options):
    if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
        record("kernels", skipped="needs a GPU, or TRITON_INTERPRET=1 to check rightness alone")
        return True
    small = options.tiny or not ON_GPU
    rate = matmul_rate(8192) if not small else None
    return all([noises(small), cross_entropies(small), distillations(small), small or heads(rate),
                check_entropies(small, rate)])  # last, since each form takes seconds to compile


def draws(seed):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return lambda *shape: torch.randn(*shape, device=DEVICE, generator=generator)


def relative(value, reference):
    return float((value.double() - reference.double()).norm() / reference.double().norm())


def check_limits(values, limits):
    """The values, unless one is above its limit.

    Raises:
        AssertionError: names the values that are above their limits or nan.
    """
    wrong = [f"{name} {values[name]:.3g}, limit {limit:g}" for name, limit in limits.items()
             if not values[name] <= limit]
    assert not wrong, "; ".join(wrong)
    return values


# ---- entropy


def check_entropies(small, rate):
    """Compare the package's kernel in both types, the plain implementation and the prototypes with float64."""
    return all([entropies_of(width, dtype, small, rate) for width in ((64,) if small else (512, 768))
                for dtype in ((torch.float32,) if small else (torch.bfloat16, torch.float32))])


def entropies_of(width, dtype, small, rate):
    """Measure all forms at one width and type. Returns whether the package's are correct."""
    from ..masking.scores.triton_entropy import fused_entropy

    hidden, weight, bias = projection(width, dtype, small)
    good = measured_entropy("package", fused_entropy, hidden, weight, bias, rate)
    if not small and dtype == torch.float32:
        good &= measured_entropy("plain", plain_projected_entropy, hidden[:PLAIN_ROWS], weight, bias, rate)
    for name, form in () if small else prototypes_for(dtype):
        measured_entropy(f"prototype {name}", form, hidden, weight, bias, rate)
    return good


def prototypes_for(dtype):
    """Yield (name, function) of those whose blocks of this type fit into shared memory: the package's block width."""
    from ..masking.scores.triton_entropy import BLOCKS
    from .prototypes.entropy import TILINGS, entropy_by_value

    for tiling in TILINGS:
        if tiling.width == BLOCKS[dtype][2]:
            yield str(tiling), partial(entropy_by_value, tiling=tiling)
            yield f"{tiling}, TMA", partial(entropy_by_value, tiling=tiling, tma=True)


def projection(width, dtype, small):
    """hidden N x C, weight V x C, bias V, whose entropies range from nearly ln V to nearly 0."""
    rows, symbols, draw = (40, 100, draws(width)) if small else (N_ROWS, VOCABULARY, draws(width))
    spread = torch.logspace(-0.5, 1.0, rows, device=DEVICE)[:, None] / width**0.5
    return (draw(rows, width) * spread).to(dtype), draw(symbols, width).to(dtype), draw(symbols)


def measured_entropy(form, function, hidden, weight, bias, rate):
    some = torch.arange(0, len(hidden), max(1, len(hidden) // 256), device=DEVICE)
    exact = torch.special.entr((hidden[some].double() @ weight.double().T + bias.double()).softmax(-1)).sum(-1)
    compute = partial(function, hidden, weight, bias)

    def measure():
        error = (compute()[some].double() - exact).abs()
        of_tolerance = error / (TOLERANCE[hidden.dtype] * (0.1 + exact))  # as in `kernel_is_right`
        values = {"largest_error_nats": float(error.max()), "largest_relative_error": float((error / exact).max()),
                  "of_tolerance": float(of_tolerance.max())}
        check_limits(values, {"of_tolerance": 1.0})
        return values if rate is None else values | speed(compute, hidden.numel() * len(weight), rate)

    return attempt("entropy", measure, form=form, width=hidden.size(1), type=str(hidden.dtype)[6:], rows=len(hidden))


def speed(function, macs, rate):
    ms = device_ms(function, repeats=7, warm_up=2)
    flop_per_second = 2e3 * macs / ms
    return {"ms": ms, "flop_per_second": flop_per_second, "of_matmul_rate": flop_per_second / rate}


# ---- losses


def cross_entropies(small):
    """Cross-entropy of rows with V columns, and of rows padded as in the projection."""
    from .prototypes.losses import fused_cross_entropy

    good, (rows, symbols) = True, (7, 50) if small else (SELECTED, VOCABULARY)
    for stride in (symbols, -(-symbols // MULTIPLE) * MULTIPLE):
        logits = (4 * draws(stride)(rows, stride)).to(torch.float32 if small else torch.bfloat16)[:, :symbols]
        target = torch.arange(rows, device=DEVICE) * 7 % symbols
        for form, function in (("package", inplace_cross_entropy), ("prototype", fused_cross_entropy)):
            right = attempt("cross_entropy", partial(of_cross_entropy, function, logits, target, small), form=form,
                            stride=stride)
            good &= right or form == "prototype"
    return good


def of_cross_entropy(function, logits, target, small):
    """Loss and gradient against float64, and the time of both."""
    leaf = logits.double().requires_grad_()
    expected = F.cross_entropy(leaf, target, reduction="sum")
    expected.backward()
    loss, correct, gradient = outcome(function, logits, target)
    values = {**check_loss(loss, gradient, expected.detach(), leaf.grad),
              "same_correct": bool(correct == logits.argmax(-1).eq(target).sum())}
    assert values["same_correct"], "another number of correct predictions"
    return values if small else values | {"ms": ms_of_loss(function, logits, target)}


def check_loss(loss, gradient, expected, expected_gradient):
    values = {"loss_differs": relative(loss, expected), "gradient_differs": relative(gradient, expected_gradient)}
    return check_limits(values, {"loss_differs": LOSS_LIMIT, "gradient_differs": GRADIENT_LIMIT[gradient.dtype]})


def ms_of_loss(function, logits, *arguments):
    """Time of a loss and its gradient in ms, without the copy of the logits: each call overwrites them."""
    return device_ms(lambda: outcome(function, logits, *arguments)) - device_ms(lambda: copy_of(logits))


def copy_of(logits):
    """A copy with the same strides that requires a gradient."""
    buffer = torch.empty_strided(logits.shape, logits.stride(), dtype=logits.dtype, device=DEVICE)
    return buffer.copy_(logits).requires_grad_()


def outcome(function, logits, *arguments):
    """Loss, correct predictions (or what the function returns second), gradient."""
    x = copy_of(logits)
    loss, second = function(x.view_as(x), *arguments)
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.detach(), second, gradient


def distillations(small):
    rows, symbols = (7, 50) if small else (SELECTED, VOCABULARY)
    dtype, draw = torch.float32 if small else torch.bfloat16, draws(1)
    student, teacher = ((3 * draw(rows, symbols)).to(dtype) for _ in range(2))
    target, weight = torch.arange(rows, device=DEVICE) * 7 % symbols, torch.rand(rows, device=DEVICE)
    return all([attempt("distillation", partial(of_distillation, student, teacher, target, weight, t, small),
                        temperature=t) for t in (1.0, 2.0)])


def of_distillation(student, teacher, target, weight, temperature, small):
    """0.5 MLM + 0.5 KD and its gradient, in one kernel and as in the criterion, against float64."""
    from .prototypes.losses import FusedDistillation

    def plain(z, temperature):
        mlm = F.cross_entropy(z.float(), target, reduction="sum")
        return 0.5 * mlm + 0.5 * (weight * distillation_loss(z, teacher, temperature)).sum(), mlm

    def in_one_kernel(z, temperature):
        return FusedDistillation.apply(z, teacher, target, weight, 0.5, temperature)[:2]

    leaf = student.double().requires_grad_()
    log_p, log_q = (z.double().div(temperature).log_softmax(-1) for z in (leaf, teacher))
    kd = temperature**2 * (weight[:, None] * log_q.exp() * (log_q - log_p)).sum()
    expected = 0.5 * F.cross_entropy(leaf, target, reduction="sum") + 0.5 * kd
    (expected_gradient,) = torch.autograd.grad(expected, leaf)
    loss, _, gradient = outcome(plain, student, temperature)
    check_loss(loss, gradient, expected.detach(), expected_gradient)
    loss, _, gradient = outcome(in_one_kernel, student, temperature)
    values = check_loss(loss, gradient, expected.detach(), expected_gradient)
    return values if small else values | {"ms": ms_of_loss(in_one_kernel, student, temperature),
                                          "package_ms": ms_of_loss(plain, student, temperature)}


# ---- noise, LM head


def noises(small):
    """The kernel must draw the same bits as the plain implementation."""
    from ..masking.triton_noise import fused_noise

    forms, states = {"plain": noise.plain_noise, "kernel": fused_noise}, (1, -(2**62) - 3)
    return all([attempt("noise", partial(of_noise, draw, state, small), form=form, state=state)
                for state in states for form, draw in forms.items()])


def of_noise(draw, state, small):
    rows, length = (5, 33) if small else (256, 128)
    ids = torch.arange(rows, device=DEVICE) * 12345 + 7
    same = torch.equal(draw(state, ids, length).cpu(), noise.plain_noise(state, ids.cpu(), length))
    assert same, "other bits than on a CPU"
    return {} if small else {"ms": device_ms(lambda: draw(state, ids, length)),
                             "host_ms": host_ms(lambda: draw(state, ids, length))}


def heads(rate):
    """The three matrix products of the LM head at the selected positions: what does an odd number of columns cost?"""
    for width in (512, 768):
        for symbols in (VOCABULARY, -(-VOCABULARY // MULTIPLE) * MULTIPLE):
            draw = draws(symbols)
            hidden, weight, gradient = (draw(*shape).bfloat16() for shape in (
                (SELECTED, width), (symbols, width), (SELECTED, symbols)))
            times = [device_ms(partial(torch.matmul, left, right)) for left, right in (
                (hidden, weight.t()), (gradient, weight), (gradient.t(), hidden))]
            flop_per_second = 6e3 * SELECTED * width * symbols / sum(times)
            record("head", width=width, columns=symbols, forward_ms=times[0], input_gradient_ms=times[1],
                   weight_gradient_ms=times[2], of_matmul_rate=flop_per_second / rate)
    return True
