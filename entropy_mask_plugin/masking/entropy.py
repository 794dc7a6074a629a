"""Entropy of a masked language model's prediction at every position, in nats (paper, section 2.1).

Shapes: N rows (positions), V vocabulary, C width.
"""

import functools
import logging
import time

import torch

logger = logging.getLogger(__name__)

CHUNK_ROWS = 256  # of a matrix product: below 64 it gets slow
PAYS = 1.5
CACHED_ROWS = 16  # whose fp32 logits stay in the processor's cache from one operation to the next


def entropy(logits):
    """Entropy of softmax(logits) over the last dimension, exact in fp32 also for confident predictions.

    The textbook logsumexp(z) - sum(p z) cancels: below 1e-5 nats nothing but rounding is left. With the largest
    logit taken out, x = z - max, r = sum of e^x and t = sum of x e^x over all entries but that one,

        H = log(1 + r) - t / (1 + r)

    adds two terms that are both positive.

    Args:
        logits: ... x V, any float type; -inf is a probability of zero.
    Returns:
        ... fp32, nats, between 0 and ln V.
    """
    logits = logits.float()
    at = logits.argmax(dim=-1, keepdim=True)  # with the maximum, in one operation, it would take longer
    x = (logits - logits.gather(-1, at)).clamp_(min=-200.0)  # e^-200 is 0 in fp32, and 0 times -inf would be nan
    e = x.exp().scatter_(-1, at, 0.0)
    r = e.sum(dim=-1)
    t = x.mul_(e).sum(dim=-1)
    return torch.log1p(r) - t / (1.0 + r)


@functools.cache
def bf16_pays(device):
    """Whether matrix products with bf16 operands are much faster than with fp32 there. On a processor, tried once."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8

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


@functools.cache
def kernel_is_right(device):
    """Whether the GPU's kernel compiles there and gives the plain form's numbers, by trying it once."""
    try:
        from .triton_entropy import fused_entropy  # triton comes with torch for GPUs, and with no other

        generator = torch.Generator(device).manual_seed(0)  # the training's own would move on
        hidden, weight, bias = (torch.randn(*shape, device=device, generator=generator)
                                for shape in ((300, 96), (1000, 96), (1000,)))
        found = fused_entropy(hidden.bfloat16(), weight.bfloat16(), bias)
        plain = projected_entropy(hidden.bfloat16().float(), weight.bfloat16().float(), bias)
        return bool(torch.allclose(found, plain, rtol=1e-3, atol=1e-4))
    except Exception as error:  # triton has a kind for each stage of a compilation
        logger.warning(f"the entropy kernel cannot be used on {device}: {' '.join(str(error).split())[:200]}")
        return False


@torch.no_grad()
def projected_entropy(hidden, weight, bias, dtype=torch.float32, chunk_rows=CHUNK_ROWS):
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
    if dtype == torch.bfloat16 and hidden.device.type == "cuda" and kernel_is_right(hidden.device):
        from .triton_entropy import fused_entropy

        return fused_entropy(rows, weight, bias).view(hidden.shape[:-1])
    result = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
    memory = torch.empty(min(chunk_rows, len(rows)), len(weight), dtype=dtype, device=hidden.device)
    together = CACHED_ROWS if hidden.device.type == "cpu" else chunk_rows
    with torch.autocast(hidden.device.type, enabled=False):  # a caller's autocast would round the logits to bf16
        for start in range(0, len(rows), chunk_rows):
            chunk = rows[start : start + chunk_rows]
            logits = torch.mm(chunk, weight.t(), out=memory[: len(chunk)])
            for first, part in zip(range(start, len(rows), together), logits.split(together)):
                result[first : first + len(part)] = entropy(part + bias)
    return result.view(hidden.shape[:-1])
