"""Entropy of projected rows in one kernel on a GPU, without storing logits.

Each program takes BLOCK_ROWS rows and walks over the vocabulary, BLOCK_SYMBOLS at a time. For the symbols so far it
keeps, as in `entropy.entropy`, the largest logit m and, over all other entries, with x = z - m,

    r = sum e^x        t = sum x e^x

Two such triples with m >= m', d = m' - m and c = e^d merge into  m,  r + c (1 + r'),  t + c (t' + d (1 + r')).
Shapes: N rows, C width, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows, symbols, width of a block: the largest that eight warps on sm_80 and sm_90 hold without spilling registers.
BLOCKS = {torch.bfloat16: (128, 128, 64), torch.float32: (128, 64, 32)}
NUM_WARPS = 8


@triton.jit
def merged(m, r, t, other_m, other_r, other_t):
    """Merge two triples; the one with the larger m keeps its sums."""
    low = tl.minimum(m, other_m)
    high = tl.maximum(m, other_m)
    first = m >= other_m
    d = tl.where(low == float("-inf"), 0.0, low - high)
    c = tl.where(low == float("-inf"), 0.0, tl.exp(d))
    low_r = tl.where(first, other_r, r)
    low_t = tl.where(first, other_t, t)
    return (high, tl.where(first, r, other_r) + c * (1.0 + low_r),
            tl.where(first, t, other_t) + c * (low_t + d * (1.0 + low_r)))


@triton.jit
def entropy_kernel(hidden, weight, bias, result, n_rows, n_symbols, width, BLOCK_ROWS: tl.constexpr,
                   BLOCK_SYMBOLS: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """The entropies of BLOCK_ROWS rows."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_is_there = rows < n_rows
    m = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    r = tl.zeros((BLOCK_ROWS,), tl.float32)
    t = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in range(0, n_symbols, BLOCK_SYMBOLS):
        symbols = start + tl.arange(0, BLOCK_SYMBOLS)
        symbol_is_there = symbols < n_symbols
        z = tl.zeros((BLOCK_ROWS, BLOCK_SYMBOLS), tl.float32)
        for first in range(0, width, BLOCK_WIDTH):
            columns = first + tl.arange(0, BLOCK_WIDTH)
            column_is_there = columns < width
            h = tl.load(hidden + rows[:, None].to(tl.int64) * width + columns[None, :],
                        mask=row_is_there[:, None] & column_is_there[None, :], other=0.0)
            w = tl.load(weight + symbols[:, None].to(tl.int64) * width + columns[None, :],
                        mask=symbol_is_there[:, None] & column_is_there[None, :], other=0.0)
            z = tl.dot(h, tl.trans(w), z, input_precision="tf32x3")
        z += tl.load(bias + symbols, mask=symbol_is_there, other=0.0)[None, :]
        z = tl.where(symbol_is_there[None, :], z, float("-inf"))
        here, at = tl.max(z, axis=1, return_indices=True)
        counts = symbol_is_there[None, :] & (tl.arange(0, BLOCK_SYMBOLS)[None, :] != at[:, None])
        x = tl.where(counts, tl.maximum(z - here[:, None], -200.0), 0.0)
        e = tl.where(counts, tl.exp(x), 0.0)
        m, r, t = merged(m, r, t, here, tl.sum(e, axis=1), tl.sum(x * e, axis=1))
    # log1p(r): the logarithm of 1 + r, corrected for what rounding the sum lost
    u = 1.0 + r
    log1p = tl.log(u) + (r - (u - 1.0)) / u
    tl.store(result + rows, log1p - t / u, mask=row_is_there)


def fused_entropy(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Entropy of softmax(hidden @ weight.T + bias), accumulated in fp32 whatever the operands' type.

    An fp32 product is computed as three tf32 products on the tensor cores, nearly as accurate as fp32 and several times
    as fast; bf16 operands are multiplied directly.

    Args:
        hidden: N x C, fp32 or bf16.
        weight: V x C, of the same type.
        bias: V fp32.
    Returns:
        N fp32, nats.
    """
    hidden, weight = hidden.contiguous(), weight.contiguous()
    result = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    if len(hidden):
        rows, symbols, width = BLOCKS[hidden.dtype]
        grid = (triton.cdiv(len(hidden), rows),)
        entropy_kernel[grid](
            hidden, weight, bias, result, len(hidden), len(weight), hidden.size(1), BLOCK_ROWS=rows,
            BLOCK_SYMBOLS=symbols, BLOCK_WIDTH=width,
            num_warps=NUM_WARPS)  # pyright: ignore[reportCallIssue]  # an argument of the launch, not of the kernel
    return result
