"""Other forms of `masking.scores.triton_entropy`. The largest logit of a block is identified by its value instead of
its index (which saves a reduction over pairs), exponentials are powers of two (one instruction less each), the loops
over symbols and width are fused, and blocks are loaded by the bulk copy engine (TMA) or by pointers, in several
tilings.

Shapes: N rows, C width, V vocabulary.
"""

import functools
import logging
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ...masking.scores import triton_entropy
from ...masking.scores.entropy import TOLERANCE, plain_projected_entropy
from ..timing import device_ms

logger = logging.getLogger(__name__)

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
SMALLEST = tl.constexpr(-200.0)  # 2^-200 is 0 in fp32, and 0 times minus infinity would be nan
PROBE_ROWS, PROBE_SYMBOLS = 8192, 30_522  # sizes at which the fastest form is chosen


class Tiling(NamedTuple):
    """rows, symbols, width: of a block; warps: that compute it; stages: loads in flight."""

    rows: int
    symbols: int
    width: int
    warps: int
    stages: int

    def __str__(self):
        return f"{self.rows} x {self.symbols} x {self.width}, {self.warps} warps, {self.stages} stages"


TILINGS = (Tiling(128, 128, 64, 8, 3), Tiling(128, 128, 64, 8, 4), Tiling(128, 256, 64, 8, 3),
           Tiling(128, 64, 32, 8, 3))


@triton.jit
def merged(m, r, t, other_m, other_r, other_t):
    """As `triton_entropy.merged`, with x = (z - m) log2(e), r = sum of 2^x, t = sum of x 2^x."""
    high = tl.maximum(m, other_m)
    first = m >= other_m
    d = tl.maximum(tl.minimum(m, other_m) - high, SMALLEST)  # minus infinity at the first block: c = 0
    c = tl.exp2(d)
    low_r = tl.where(first, other_r, r)
    low_t = tl.where(first, other_t, t)
    return (high, tl.where(first, r, other_r) + c * (1.0 + low_r),
            tl.where(first, t, other_t) + c * (low_t + d * (1.0 + low_r)))


@triton.jit
def with_block(z, m, r, t):
    """Merge the running (m, r, t) with those of a block of logits. Of several equal largest logits, all but one count
    2^0 = 1 each."""
    z = z * LOG2E
    here = tl.max(z, axis=1)
    x = tl.maximum(z - here[:, None], SMALLEST)
    is_largest = x == 0.0
    e = tl.where(is_largest, 0.0, tl.exp2(x))
    r_here = tl.sum(e, axis=1) + (tl.sum(is_largest.to(tl.float32), axis=1) - 1.0)
    return merged(m, r, t, here, r_here, tl.sum(x * e, axis=1))


@triton.jit
def entropy_of(r, t):
    """log1p(r) - t / (1 + r) with t in units of ln 2; log1p as in `triton_entropy`."""
    u = 1.0 + r
    return tl.log(u) + (r - (u - 1.0)) / u - t * LN2 / u


@triton.jit
def pointer_kernel(hidden, weight, bias, result, n_rows, n_symbols, WIDTH: tl.constexpr, BLOCK_ROWS: tl.constexpr,
                   BLOCK_SYMBOLS: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """WIDTH is a multiple of BLOCK_WIDTH."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_WIDTH)
    m = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    r = tl.zeros((BLOCK_ROWS,), tl.float32)
    t = tl.zeros((BLOCK_ROWS,), tl.float32)
    h_at = hidden + rows[:, None].to(tl.int64) * WIDTH + columns[None, :]
    for start in tl.range(0, n_symbols, BLOCK_SYMBOLS, flatten=True):
        symbols = start + tl.arange(0, BLOCK_SYMBOLS)
        w_at = weight + symbols[:, None].to(tl.int64) * WIDTH + columns[None, :]
        z = tl.zeros((BLOCK_ROWS, BLOCK_SYMBOLS), tl.float32)
        for first in tl.range(0, WIDTH, BLOCK_WIDTH):
            h = tl.load(h_at + first, mask=rows[:, None] < n_rows, other=0.0)
            w = tl.load(w_at + first, mask=symbols[:, None] < n_symbols, other=0.0)
            z = tl.dot(h, tl.trans(w), z, input_precision="tf32x3")
        z += tl.load(bias + symbols, mask=symbols < n_symbols, other=float("-inf"))[None, :]
        m, r, t = with_block(z, m, r, t)
    tl.store(result + rows, entropy_of(r, t), mask=rows < n_rows)


@triton.jit
def tma_kernel(hidden, weight, bias, result, n_rows, n_symbols, WIDTH: tl.constexpr, BLOCK_ROWS: tl.constexpr,
               BLOCK_SYMBOLS: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """As `pointer_kernel`; the descriptors read zeros beyond the end."""
    first_row = tl.program_id(0) * BLOCK_ROWS
    rows = first_row + tl.arange(0, BLOCK_ROWS)
    h_of = tl.make_tensor_descriptor(hidden, shape=[n_rows, WIDTH], strides=[WIDTH, 1],
                                     block_shape=[BLOCK_ROWS, BLOCK_WIDTH])
    w_of = tl.make_tensor_descriptor(weight, shape=[n_symbols, WIDTH], strides=[WIDTH, 1],
                                     block_shape=[BLOCK_SYMBOLS, BLOCK_WIDTH])
    m = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    r = tl.zeros((BLOCK_ROWS,), tl.float32)
    t = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in tl.range(0, n_symbols, BLOCK_SYMBOLS, flatten=True):
        symbols = start + tl.arange(0, BLOCK_SYMBOLS)
        z = tl.zeros((BLOCK_ROWS, BLOCK_SYMBOLS), tl.float32)
        for first in tl.range(0, WIDTH, BLOCK_WIDTH):
            h = h_of.load([first_row, first])
            w = w_of.load([start, first])
            z = tl.dot(h, tl.trans(w), z, input_precision="tf32x3")
        z += tl.load(bias + symbols, mask=symbols < n_symbols, other=float("-inf"))[None, :]
        m, r, t = with_block(z, m, r, t)
    tl.store(result + rows, entropy_of(r, t), mask=rows < n_rows)


def entropy_by_value(hidden, weight, bias, tiling, tma=False):
    """As `triton_entropy.fused_entropy`: N x C, V x C, V fp32 -> N fp32, nats. The tiling's width divides C."""
    assert hidden.size(1) % tiling.width == 0, "C must be a multiple of the width of a block"
    hidden, weight = hidden.contiguous(), weight.contiguous()
    result = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    if tma:  # the launch allocates memory for the descriptors
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device=hidden.device))
    if len(hidden):
        (tma_kernel if tma else pointer_kernel)[(triton.cdiv(len(hidden), tiling.rows),)](
            hidden, weight, bias, result, len(hidden), len(weight), WIDTH=hidden.size(1), BLOCK_ROWS=tiling.rows,
            BLOCK_SYMBOLS=tiling.symbols, BLOCK_WIDTH=tiling.width, num_warps=tiling.warps, num_stages=tiling.stages)
    return result


package_entropy = triton_entropy.fused_entropy  # kept here, since a prototype replaces the attribute


def tuned_entropy(hidden, weight, bias):
    """The fastest correct form, chosen once for each device, type and width."""
    return fastest_form(hidden.device, hidden.dtype, hidden.size(1))(hidden, weight, bias)


@functools.cache
def fastest_form(device, dtype, width):
    """The function among the package's and `forms(width)` that was fastest on random numbers."""
    draw = torch.Generator(device).manual_seed(0)  # the global one belongs to the training
    hidden, weight, bias = (torch.randn(*shape, device=device, generator=draw)
                            for shape in ((PROBE_ROWS, width), (PROBE_SYMBOLS, width), (PROBE_SYMBOLS,)))
    operands = (hidden / width**0.5).to(dtype), weight.to(dtype), bias
    times = {"package": (device_ms(lambda: package_entropy(*operands), repeats=3), package_entropy)}
    for name, form in forms(width).items():
        try:
            if is_right(form, *operands):
                times[name] = device_ms(lambda form=form: form(*operands), repeats=3), form
        except Exception as error:  # too few registers or too little shared memory: Triton has a type for each
            logger.debug(f"{name}: {error}")
    name = min(times, key=lambda name: times[name][0])
    print(f"entropy kernel, {dtype}, C = {width}: {name}, {times[name][0]:.3f} ms", flush=True)
    return times[name][1]


def forms(width):
    """{name: function} of the tilings whose width divides `width`."""
    return {f"{tiling}{', TMA' if tma else ''}": functools.partial(entropy_by_value, tiling=tiling, tma=tma)
            for tiling in TILINGS if width % tiling.width == 0 for tma in (False, True)}


def is_right(form, hidden, weight, bias):
    some = hidden[:: max(1, len(hidden) // 64)]
    plain = plain_projected_entropy(some.float(), weight.float(), bias)
    tolerance = TOLERANCE[hidden.dtype]
    return torch.allclose(form(some, weight, bias), plain, rtol=tolerance, atol=0.1 * tolerance)
