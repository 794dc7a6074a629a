"""`noise.plain_noise` in one kernel on a GPU: the same bits; the plain implementation launches thirty kernels.

Shapes: B sentences, T positions.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST_BLOCK = 1024


@triton.jit
def mix(x):
    """`noise._mix` of uint64, whose arithmetic wraps around and whose shifts bring in zeros."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit(do_not_specialize=["state", "length"])
def noise_kernel(out, ids, state, length, BLOCK: tl.constexpr):
    """BLOCK positions of a row."""
    row = tl.program_id(0)
    position = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    golden = tl.full((), 0x9E3779B97F4A7C15, tl.uint64)
    start = state.to(tl.int64).to(tl.uint64, bitcast=True)
    of_row = mix(start + tl.load(ids + row).to(tl.uint64, bitcast=True) + golden)
    bits = mix(of_row + position.to(tl.uint64) + golden)
    tl.store(out + row.to(tl.int64) * length + position, (bits >> 40).to(tl.float32) * 5.9604644775390625e-08,  # 2^-24
             mask=position < length)


def fused_noise(state: int, sample_ids: Tensor, length: int) -> Tensor:
    """`noise.plain_noise` on a GPU.

    Args:
        state: 64 bits as a signed integer.
        sample_ids: B int64.
        length: T.
    Returns:
        B x T fp32 in [0, 1), multiples of 2^-24.
    """
    out = torch.empty(len(sample_ids), length, dtype=torch.float32, device=sample_ids.device)
    if out.numel():
        block = min(LARGEST_BLOCK, triton.next_power_of_2(length))
        grid = (len(sample_ids), triton.cdiv(length, block))
        noise_kernel[grid](out, sample_ids.contiguous(), state, length,
                           BLOCK=block)  # pyright: ignore[reportArgumentType]  # triton turns it into a constexpr
    return out
