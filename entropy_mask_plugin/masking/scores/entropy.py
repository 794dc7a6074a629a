"""Entropy of a masked language model's prediction at every position, in nats (paper, section 2.1).

Shapes: N rows (positions), V vocabulary, C width.
"""

import functools
import time
from typing import Optional

import torch
from torch import Tensor

from ..kernels import verified_once
from .registry import CHUNK_ROWS, SCORES

PAYS = 1.5
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-3}  # of the kernel, relative
CACHED_ROWS = 16  # whose fp32 logits stay in the CPU's cache from one operation to the next


def entropy(logits: Tensor, tokens: Optional[Tensor] = None) -> Tensor:
    """Entropy of softmax(logits) over the last dimension, exact in fp32 also for confident predictions.

    The textbook logsumexp(z) - sum(p z) cancels: below 1e-5 nats nothing but rounding is left. With the largest
    logit taken out, x = z - max, r = sum of e^x and t = sum of x e^x over all entries but that one,

        H = log(1 + r) - t / (1 + r)

    adds two terms that are both positive.

    Args:
        logits: ... x V, any float type; -inf is a probability of zero.
        tokens: whatever they are.
    Returns:
        ... fp32, nats, between 0 and ln V.
    """
    return _of_sums(*_sums_beside_the_largest(logits))


def _sums_beside_the_largest(logits):
    """r and t: ... fp32 each."""
    logits = logits.float()
    at = logits.argmax(dim=-1, keepdim=True)  # with the maximum, in one operation, it would take longer
    x = (logits - logits.gather(-1, at)).clamp_(min=-200.0)  # e^-200 is 0 in fp32, and 0 times -inf would be nan
    e = x.exp().scatter_(-1, at, 0.0)
    return e.sum(dim=-1), x.mul_(e).sum(dim=-1)


def _of_sums(r, t):
    return torch.log1p(r) - t / (1.0 + r)


@functools.cache
def bf16_pays(device: torch.device) -> bool:
    """Whether matrix products with bf16 operands are much faster than with fp32 there. On a CPU, tried once."""
    if device.type == "cuda":
        return has_kernel(device)

    def seconds(dtype):
        a, b = (torch.ones(CHUNK_ROWS, 512, dtype=dtype, device=device) for _ in range(2))
        b = b.repeat(16, 1).t()
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            float((a @ b)[0, 0])  # waits for the device
            times.append(time.perf_counter() - begin)
        return min(times)

    return seconds(torch.float32) > PAYS * seconds(torch.bfloat16)


def has_kernel(device: torch.device) -> bool:
    """Whether the GPU multiplies bf16 and tf32 on tensor cores, for which the kernel is made."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


@verified_once("entropy")
def kernel_is_right(device, dtype):
    """Whether the GPU's kernel compiles there and gives the plain form's numbers."""
    from .triton_entropy import fused_entropy  # triton comes with torch for GPUs, and with no other

    generator = torch.Generator(device).manual_seed(0)  # the training's own would move on
    hidden, weight, bias = (torch.randn(*shape, device=device, generator=generator)
                            for shape in ((300, 96), (1000, 96), (1000,)))
    fused = fused_entropy(hidden.to(dtype), weight.to(dtype), bias)
    plain = plain_projected_entropy(hidden.to(dtype).float(), weight.to(dtype).float(), bias)
    return torch.allclose(fused, plain, rtol=TOLERANCE[dtype], atol=0.1 * TOLERANCE[dtype])


@torch.no_grad()
def projected_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, dtype=torch.float32,
                      chunk_rows: int = CHUNK_ROWS) -> Tensor:
    """Entropy of softmax(hidden @ weight.T + bias), without ever holding the logits of more than `chunk_rows` rows.

    Args:
        hidden: ... x C, input of the output projection.
        weight: V x C.
        bias: V.
        dtype: of the matrix product's operands; fp32 is the reference, see `refinement` for bf16.
    Returns:
        ... fp32, nats.
    """
    rows, weight, bias = hidden.reshape(-1, hidden.size(-1)).to(dtype), weight.to(dtype), bias.float()
    if has_kernel(hidden.device) and kernel_is_right(hidden.device, dtype):
        from .triton_entropy import fused_entropy

        return fused_entropy(rows, weight, bias).view(hidden.shape[:-1])
    return plain_projected_entropy(rows, weight, bias, chunk_rows).view(hidden.shape[:-1])


def plain_projected_entropy(rows: Tensor, weight: Tensor, bias: Tensor, chunk_rows: int = CHUNK_ROWS) -> Tensor:
    """The same in chunks of rows: N x C, V x C, V -> N fp32, nats."""
    r, t = torch.empty(2, len(rows), dtype=torch.float32, device=rows.device)
    memory = torch.empty(min(chunk_rows, len(rows)), len(weight), dtype=rows.dtype, device=rows.device)
    together = CACHED_ROWS if rows.device.type == "cpu" else chunk_rows
    with torch.autocast(rows.device.type, enabled=False):  # a caller's autocast would round the logits to bf16
        for start in range(0, len(rows), chunk_rows):
            chunk = rows[start : start + chunk_rows]
            logits = torch.mm(chunk, weight.t(), out=memory[: len(chunk)])
            for first, part in zip(range(start, len(rows), together), logits.split(together)):
                of_part = slice(first, first + len(part))
                r[of_part], t[of_part] = _sums_beside_the_largest(part + bias)
    return _of_sums(r, t)


SCORES.add("entropy", unit="nats", version=1, needs_tokens=False, projected=projected_entropy)(entropy)
