"""Entropy of a masked language model's prediction at every position, in nats (paper, section 2.1).

Shapes: N rows (positions), V vocabulary, C width.
"""

import functools
import time
from typing import Optional

import torch
from torch import Tensor

from ..kernels import verified_once
from .registry import CHUNK_ROWS, SCORES, rows_together

MIN_SPEEDUP = 1.5  # of bf16 over fp32 matrix products on a CPU, from which a second, exact pass near the cut pays
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-3}  # of the kernel, relative


def entropy(logits: Tensor, tokens: Optional[Tensor] = None) -> Tensor:
    """Entropy of softmax(logits) over the last dimension, accurate in fp32 also for confident predictions.

    The textbook logsumexp(z) - sum(p z) cancels: below 1e-5 nats, only rounding error is left. With the largest
    logit taken out, x = z - max, r = sum of e^x and t = sum of x e^x over all other entries,

        H = log(1 + r) - t / (1 + r)

    adds two terms that are both positive.

    Args:
        logits: ... x V, any float type; -inf is a probability of zero.
        tokens: not used; other scores need the clean tokens.
    Returns:
        ... fp32, nats, between 0 and ln V.
    """
    return _entropy_from_sums(*_sums_without_largest(logits))


def _sums_without_largest(logits):
    """r and t of `entropy`: ... fp32 each."""
    logits = logits.float()
    at = logits.argmax(dim=-1, keepdim=True)  # max(dim=-1), which returns both, is slower
    x = (logits - logits.gather(-1, at)).clamp_(min=-200.0)  # e^-200 is 0 in fp32, and 0 times -inf would be nan
    e = x.exp().scatter_(-1, at, 0.0)
    return e.sum(dim=-1), x.mul_(e).sum(dim=-1)


def _entropy_from_sums(r, t):
    return torch.log1p(r) - t / (1.0 + r)


@functools.cache
def bf16_pays(device: torch.device) -> bool:
    """Whether matrix products are much faster with bf16 than with fp32 operands. On a CPU, measured once."""
    if device.type == "cuda":
        return has_kernel(device)

    def seconds(dtype):
        a, b = (torch.ones(CHUNK_ROWS, 512, dtype=dtype, device=device) for _ in range(2))
        b = b.repeat(16, 1).t()
        times = []
        for _ in range(4):
            start = time.perf_counter()
            float((a @ b)[0, 0])  # waits for the device
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) > MIN_SPEEDUP * seconds(torch.bfloat16)


def has_kernel(device: torch.device) -> bool:
    """Whether the device is a GPU with tensor cores for bf16 and tf32, for which the kernel is written."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


@verified_once("entropy")
def kernel_is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the GPU kernel compiles on this device and agrees with the plain implementation within TOLERANCE."""
    from .triton_entropy import fused_entropy  # triton comes with CUDA builds of torch only

    generator = torch.Generator(device).manual_seed(0)  # the global one belongs to the training
    hidden, weight, bias = (torch.randn(*shape, device=device, generator=generator)
                            for shape in ((300, 96), (1000, 96), (1000,)))
    fused = fused_entropy(hidden.to(dtype), weight.to(dtype), bias)
    plain = plain_projected_entropy(hidden.to(dtype).float(), weight.to(dtype).float(), bias)
    return torch.allclose(fused, plain, rtol=TOLERANCE[dtype], atol=0.1 * TOLERANCE[dtype])


@torch.no_grad()
def projected_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32,
                      chunk_rows: int = CHUNK_ROWS) -> Tensor:
    """Entropy of softmax(hidden @ weight.T + bias), never with the logits of more than `chunk_rows` rows in memory.

    Args:
        hidden: ... x C, input of the output projection.
        weight: V x C.
        bias: V.
        dtype: of the matrix product's operands; fp32 is the reference, see `refinement` for bf16.
        chunk_rows: rows whose logits are in memory at once; the GPU kernel stores none.
    Returns:
        ... fp32, nats.
    """
    rows, weight, bias = hidden.reshape(-1, hidden.size(-1)).to(dtype), weight.to(dtype), bias.float()
    if has_kernel(hidden.device) and kernel_is_right(hidden.device, dtype):
        from .triton_entropy import fused_entropy

        return fused_entropy(rows, weight, bias).view(hidden.shape[:-1])
    return plain_projected_entropy(rows, weight, bias, chunk_rows).view(hidden.shape[:-1])


def plain_projected_entropy(rows: Tensor, weight: Tensor, bias: Tensor, chunk_rows: int = CHUNK_ROWS) -> Tensor:
    """The same in chunks of rows. rows: N x C; weight: V x C, of the same type; bias: V fp32. Returns N fp32, nats."""
    r, t = torch.empty(2, len(rows), dtype=torch.float32, device=rows.device)
    memory = torch.empty(min(chunk_rows, len(rows)), len(weight), dtype=rows.dtype, device=rows.device)
    together = rows_together(rows.device)
    with torch.autocast(rows.device.type, enabled=False):  # the caller's autocast would round the logits to bf16
        for start in range(0, len(rows), chunk_rows):
            chunk = rows[start : start + chunk_rows]
            logits = torch.mm(chunk, weight.t(), out=memory[: len(chunk)])
            for first, part in zip(range(start, len(rows), together), logits.split(together)):
                of_part = slice(first, first + len(part))
                r[of_part], t[of_part] = _sums_without_largest(part + bias)
    return _entropy_from_sums(r, t)


SCORES.add("entropy", unit="nats", version=1, needs_tokens=False, projected=projected_entropy)(entropy)
