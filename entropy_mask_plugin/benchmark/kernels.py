"""Stage `kernels`: are the kernels right, and how fast? At the sizes of a step of 32,768 tokens on a GPU; with Triton's
interpreter, on a CPU, at tiny ones and for rightness alone.

Shapes: N rows, K selected positions, C width, V vocabulary.
"""

import os

import torch
import torch.nn.functional as F

from ..criterion import distillation_loss
from ..cross_entropy import cross_entropy_of_consumed
from ..masking import noise
from ..masking.entropy import plain_projected_entropy
from ..models.projection import MULTIPLE
from .results import attempt, record
from .timing import DEVICE, ON_GPU, device_ms, host_ms, matmul_rate
from .variants import VOCABULARY

SELECTED, ROWS = 4915, 32768  # of 32,768 tokens
BLOCK_WIDTH = {torch.bfloat16: 64, torch.float32: 32}  # of the tilings for a type: what fits into shared memory


def run(options):
    if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
        record("kernels", skipped="needs a GPU, or TRITON_INTERPRET=1 to check rightness alone")
        return True
    small = options.tiny or not ON_GPU
    rate = matmul_rate(8192) if not small else None
    return all([noises(small), cross_entropies(small), distillations(small), small or heads(rate),
                entropies(small, rate)])  # last: each of their forms takes seconds to compile


def draws(seed):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return lambda *shape: torch.randn(*shape, device=DEVICE, generator=generator)


def relative(value, reference):
    return float((value.double() - reference.double()).norm() / reference.double().norm())


# ---- entropy


def entropies(small, rate):
    """The package's kernel in both types, the plain form, and the prototypes', against float64."""
    from .prototypes.entropy import TILINGS, entropy_by_value

    good = True
    for width in (64,) if small else (512, 768):
        for dtype in (torch.float32,) if small else (torch.bfloat16, torch.float32):
            operands = projection(width, dtype, small)
            good &= measured_entropy("package", fused, operands, rate)
            if not small and dtype == torch.float32:
                good &= measured_entropy("plain", plain_projected_entropy, [x[:3277] if x is operands[0] else x
                                                                              for x in operands], rate)
            for tiling in () if small else (tiling for tiling in TILINGS if tiling.width == BLOCK_WIDTH[dtype]):
                for tma in (False, True):
                    measured_entropy(f"prototype {tiling}{', TMA' if tma else ''}", lambda *o, tiling=tiling, tma=tma:
                                     entropy_by_value(*o, tiling, tma), operands, rate)
    return good


def fused(*operands):
    from ..masking.triton_entropy import fused_entropy

    return fused_entropy(*operands)


def projection(width, dtype, small):
    """hidden N x C, weight V x C, bias V: logits whose entropies are from nearly ln V to nearly 0."""
    rows, symbols, draw = (40, 100, draws(width)) if small else (ROWS, VOCABULARY, draws(width))
    spread = torch.logspace(-0.5, 1.0, rows, device=DEVICE)[:, None] / width**0.5
    return (draw(rows, width) * spread).to(dtype), draw(symbols, width).to(dtype), draw(symbols)


def measured_entropy(form, function, operands, rate):
    hidden, weight, bias = operands
    some = torch.arange(0, len(hidden), max(1, len(hidden) // 256), device=DEVICE)
    logits = hidden[some].double() @ weight.double().T + bias.double()
    exact = torch.special.entr(logits.softmax(-1)).sum(-1)

    def measure():
        error = (function(*operands)[some].double() - exact).abs()
        values = {"largest_error_nats": float(error.max()), "largest_relative_error": float((error / exact).max())}
        return values if rate is None else values | speed(lambda: function(*operands), hidden, weight, rate)

    return attempt("entropy", measure, form=form, width=hidden.size(1), type=str(hidden.dtype)[6:], rows=len(hidden))


def speed(function, hidden, weight, rate):
    ms = device_ms(function, repeats=7, warm_up=2)
    flop_per_second = 2e3 * hidden.numel() * len(weight) / ms
    return {"ms": ms, "flop_per_second": flop_per_second, "of_matmul_rate": flop_per_second / rate}


# ---- losses


def cross_entropies(small):
    """With rows of V columns, and with rows of the padded projection's."""
    from .prototypes.losses import fused_cross_entropy

    good, (rows, symbols) = True, (7, 50) if small else (SELECTED, VOCABULARY)
    for stride in (symbols, -(-symbols // MULTIPLE) * MULTIPLE):
        logits = (4 * draws(stride)(rows, stride)).to(torch.float32 if small else torch.bfloat16)[:, :symbols]
        target = torch.arange(rows, device=DEVICE) * 7 % symbols
        for form, function in (("package", cross_entropy_of_consumed), ("prototype", fused_cross_entropy)):
            good &= attempt("cross_entropy", lambda f=function: of_loss(f, logits, target, small), form=form,
                            stride=stride)
    return good


def of_loss(function, logits, target, small):
    """Loss and gradient against float64, and the time of both."""
    leaf = logits.double().requires_grad_()
    expected = F.cross_entropy(leaf, target, reduction="sum")
    expected.backward()
    loss, correct, gradient = outcome(function, logits, target)
    values = {"loss_differs": relative(loss, expected.detach()), "gradient_differs": relative(gradient, leaf.grad),
              "same_correct": bool(correct == logits.argmax(-1).eq(target).sum())}
    return values if small else values | {"ms": device_ms(lambda: outcome(function, logits, target)) - device_ms(
        lambda: kept(logits))}


def kept(logits):
    """A copy with the same strides, which may be destroyed."""
    buffer = torch.empty_strided(logits.shape, logits.stride(), dtype=logits.dtype, device=DEVICE)
    return buffer.copy_(logits).requires_grad_()


def outcome(function, logits, *arguments):
    x = kept(logits)
    loss, correct = function(x.view_as(x), *arguments)
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.detach(), correct, gradient


def distillations(small):
    from .prototypes.losses import FusedDistillation

    rows, symbols = (7, 50) if small else (SELECTED, VOCABULARY)
    dtype, draw = torch.float32 if small else torch.bfloat16, draws(1)
    student, teacher = ((3 * draw(rows, symbols)).to(dtype) for _ in range(2))
    target, weight = torch.arange(rows, device=DEVICE) * 7 % symbols, torch.rand(rows, device=DEVICE)

    def plain(z, temperature):
        mlm = F.cross_entropy(z.float(), target, reduction="sum")
        return 0.5 * mlm + 0.5 * (weight * distillation_loss(z, teacher, temperature)).sum(), mlm

    def in_one_kernel(z, temperature):
        return FusedDistillation.apply(z, teacher, target, weight, 0.5, temperature)[:2]

    def measure(temperature):
        (loss, _, gradient), (expected, _, expected_gradient) = (outcome(f, student, temperature) for f in (
            in_one_kernel, plain))
        values = {"loss_differs": relative(loss, expected), "gradient_differs": relative(gradient, expected_gradient)}
        return values if small else values | {
            name: device_ms(lambda f=f: outcome(f, student, temperature)) - device_ms(lambda: kept(student))
            for name, f in (("ms", in_one_kernel), ("package_ms", plain))}

    return all([attempt("distillation", lambda t=t: measure(t), temperature=t) for t in (1.0, 2.0)])


# ---- noise, LM head


def noises(small):
    """The kernel draws the plain form's bits."""
    from ..masking.triton_noise import fused_noise

    rows, length = (5, 33) if small else (256, 128)
    ids = torch.arange(rows, device=DEVICE) * 12345 + 7

    def measure(draw, state):
        values = {"same_bits_as_on_a_cpu": bool(torch.equal(draw(state, ids, length).cpu(), noise.plain_noise(
            state, ids.cpu(), length)))}
        assert values["same_bits_as_on_a_cpu"], "other bits than on a CPU"
        return values if small else values | {"ms": device_ms(lambda: draw(state, ids, length)),
                                              "host_ms": host_ms(lambda: draw(state, ids, length))}

    return all([attempt("noise", lambda d=draw, s=state: measure(d, s), form=form, state=state) for state in (
        1, -(2**62) - 3) for form, draw in (("plain", noise.plain_noise), ("kernel", fused_noise))])


def heads(rate):
    """The three products of the LM head at the selected positions: does an odd number of columns cost?"""
    for width in (512, 768):
        for symbols in (VOCABULARY, -(-VOCABULARY // MULTIPLE) * MULTIPLE):
            draw = draws(symbols)
            hidden, weight, gradient = (draw(*shape).bfloat16() for shape in (
                (SELECTED, width), (symbols, width), (SELECTED, symbols)))
            times = [device_ms(product) for product in (lambda: hidden @ weight.t(), lambda: gradient @ weight,
                                                        lambda: gradient.t() @ hidden)]
            flop_per_second = 6e3 * SELECTED * width * symbols / sum(times)
            record("head", width=width, columns=symbols, forward_ms=times[0], input_gradient_ms=times[1],
                   weight_gradient_ms=times[2], of_matmul_rate=flop_per_second / rate)
    return True


