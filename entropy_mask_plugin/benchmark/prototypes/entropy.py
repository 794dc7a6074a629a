"""Other forms of the entropy kernel of `masking/triton_entropy.py`: the largest logit told by its value instead of its
index, powers of two instead of e, Hopper's bulk copies instead of pointers, other tilings.

With y = z log2(e), m the largest y, x = y - m, and over all entries but one of the largest: r = sum 2^x, t = sum x 2^x.
Shapes: N rows, C width, V vocabulary.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ...masking.entropy import plain_projected_entropy
from ..timing import device_ms

LOG2E, LN2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-200.0)  # 2^-200 is 0 in fp32


class Tiling(NamedTuple):
    """Rows, symbols and width of a block; warps; stages of the pipeline; whether the two loops are made one."""

    rows: int
    symbols: int
    width: int
    warps: int
    stages: int
    flatten: bool

    def __str__(self):
        flat = ", one loop" if self.flatten else ""
        return f"{self.rows} x {self.symbols} x {self.width}, {self.warps} warps, {self.stages} stages{flat}"


TILINGS = (Tiling(128, 128, 64, 8, 3, False), Tiling(128, 128, 64, 8, 4, True), Tiling(128, 256, 64, 8, 3, True),
           Tiling(256, 128, 64, 8, 3, True), Tiling(64, 256, 64, 4, 3, True))


@triton.jit
def merge(m, r, t, other_m, other_r, other_t):
    """Two results in one: the side with the larger m stays as it is."""
    high = tl.maximum(m, other_m)
    first = m >= other_m
    d = tl.maximum(tl.minimum(m, other_m) - high, LOWEST)  # minus infinity at the first block
    c = tl.exp2(d)
    low_r = tl.where(first, other_r, r)
    low_t = tl.where(first, other_t, t)
    return (high, tl.where(first, r, other_r) + c * (1.0 + low_r),
            tl.where(first, t, other_t) + c * (low_t + d * (1.0 + low_r)))


@triton.jit
def add_block(y, m, r, t):
    """A block of logits more. All but one of those that are equal to the largest count 2^0 = 1 each."""
    here = tl.max(y, axis=1)
    x = tl.maximum(y - here[:, None], LOWEST)
    is_largest = x == 0.0
    e = tl.where(is_largest, 0.0, tl.exp2(x))
    others = tl.sum(is_largest.to(tl.float32), axis=1) - 1.0
    return merge(m, r, t, here, tl.sum(e, axis=1) + others, tl.sum(x * e, axis=1))


@triton.jit
def finish(result, rows, n_rows, r, t):
    u = 1.0 + r  # the logarithm of 1 + r rounded, corrected by what the rounding lost
    tl.store(result + rows, tl.log(u) + (r - (u - 1.0)) / u - t * LN2 / u, mask=rows < n_rows)


@triton.jit
def pointer_kernel(hidden, weight, bias, result, n_rows, n_symbols, WIDTH: tl.constexpr, BLOCK_ROWS: tl.constexpr,
                   BLOCK_SYMBOLS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, FLATTEN: tl.constexpr,
                   PRECISION: tl.constexpr):
    """WIDTH is a multiple of BLOCK_WIDTH."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_WIDTH)
    m = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    r = tl.zeros((BLOCK_ROWS,), tl.float32)
    t = tl.zeros((BLOCK_ROWS,), tl.float32)
    h_at = hidden + rows[:, None].to(tl.int64) * WIDTH + columns[None, :]
    for start in tl.range(0, n_symbols, BLOCK_SYMBOLS, flatten=FLATTEN):
        symbols = start + tl.arange(0, BLOCK_SYMBOLS)
        there = symbols < n_symbols
        w_at = weight + symbols[:, None].to(tl.int64) * WIDTH + columns[None, :]
        z = tl.zeros((BLOCK_ROWS, BLOCK_SYMBOLS), tl.float32)
        for first in tl.range(0, WIDTH, BLOCK_WIDTH):
            h = tl.load(h_at + first, mask=rows[:, None] < n_rows, other=0.0)
            w = tl.load(w_at + first, mask=there[:, None], other=0.0)
            z = tl.dot(h, tl.trans(w), z, input_precision=PRECISION)
        b = tl.load(bias + symbols, mask=there, other=float("-inf"))
        m, r, t = add_block((z + b[None, :]) * LOG2E, m, r, t)
    finish(result, rows, n_rows, r, t)


@triton.jit
def bulk_copy_kernel(hidden, weight, bias, result, n_rows, n_symbols, WIDTH: tl.constexpr, BLOCK_ROWS: tl.constexpr,
                     BLOCK_SYMBOLS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, FLATTEN: tl.constexpr,
                     PRECISION: tl.constexpr):
    """The same with tensor descriptors (TMA): rows beyond the end are read as zeros."""
    first_row = tl.program_id(0) * BLOCK_ROWS
    rows = first_row + tl.arange(0, BLOCK_ROWS)
    h_of = tl.make_tensor_descriptor(hidden, shape=[n_rows, WIDTH], strides=[WIDTH, 1],
                                     block_shape=[BLOCK_ROWS, BLOCK_WIDTH])
    w_of = tl.make_tensor_descriptor(weight, shape=[n_symbols, WIDTH], strides=[WIDTH, 1],
                                     block_shape=[BLOCK_SYMBOLS, BLOCK_WIDTH])
    m = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    r = tl.zeros((BLOCK_ROWS,), tl.float32)
    t = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in tl.range(0, n_symbols, BLOCK_SYMBOLS, flatten=FLATTEN):
        symbols = start + tl.arange(0, BLOCK_SYMBOLS)
        z = tl.zeros((BLOCK_ROWS, BLOCK_SYMBOLS), tl.float32)
        for first in tl.range(0, WIDTH, BLOCK_WIDTH):
            z = tl.dot(h_of.load([first_row, first]), w_of.load([start, first]).T, z, input_precision=PRECISION)
        b = tl.load(bias + symbols, mask=symbols < n_symbols, other=float("-inf"))
        m, r, t = add_block((z + b[None, :]) * LOG2E, m, r, t)
    finish(result, rows, n_rows, r, t)


def entropy_by_value(hidden, weight, bias, tiling=TILINGS[0], tma=False):
    """As `triton_entropy.fused_entropy`. C is a multiple of the tiling's width."""
    hidden, weight = hidden.contiguous(), weight.contiguous()
    result = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    if not len(hidden):
        return result
    if tma:
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8, device=hidden.device))
    kernel = bulk_copy_kernel if tma else pointer_kernel
    kernel[(triton.cdiv(len(hidden), tiling.rows),)](
        hidden, weight, bias, result, len(hidden), len(weight), WIDTH=hidden.size(1), BLOCK_ROWS=tiling.rows,
        BLOCK_SYMBOLS=tiling.symbols, BLOCK_WIDTH=tiling.width, FLATTEN=tiling.flatten, PRECISION="tf32x3",
        num_warps=tiling.warps, num_stages=tiling.stages)
    return result


@functools.cache
def best_form(device, width, symbols):
    """(tiling, tma) of the fastest bf16 form that agrees with the plain one there: each is tried once."""
    generator = torch.Generator(device).manual_seed(0)
    hidden, weight = (torch.randn(rows, width, device=device, generator=generator).bfloat16() for rows in (8192, symbols))
    bias = torch.zeros(symbols, device=device)
    expected = plain_projected_entropy(hidden[:256].float(), weight.float(), bias)
    times = {}
    for form in ((tiling, tma) for tiling in TILINGS for tma in (False, True)):
        try:
            close = torch.allclose(entropy_by_value(hidden, weight, bias, *form)[:256], expected, rtol=1e-3, atol=1e-4)
            times[form] = device_ms(lambda form=form: entropy_by_value(hidden, weight, bias, *form), 5, 2) if close else None
        except Exception:  # Triton has a kind for each stage of a compilation; the others may work
            times[form] = None
    return min((form for form, ms in times.items() if ms is not None), key=times.get)
