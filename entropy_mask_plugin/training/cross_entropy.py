"""Cross-entropy without a second tensor of the logits' size: the gradient overwrites the logits.

torch's keeps fp32 log-probabilities and allocates two gradients, each K x V.
Shapes: K rows, V vocabulary.
"""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ROWS = {"cpu": 16, "cuda": 1024}  # of fp32 log-probabilities: fits a CPU's cache; avoids many small kernels
SMALLEST = -80.0  # ln of a probability: fp32 numbers below e^-87 are denormal, and slow in matrix products


class InplaceCrossEntropy(torch.autograd.Function):
    """softmax(logits) - onehot(target), the gradient of the summed loss, written over the logits in `forward`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, by_row: bool) -> Tuple[Tensor, ...]:
        """See `inplace_cross_entropy` and, for by_row, `inplace_cross_entropy_by_row`."""
        loss, correct = logits.new_zeros((), dtype=torch.float32), target.new_zeros(())
        target_log_ps, hits = [], []  # rows x 1 each
        rows = CHUNK_ROWS[logits.device.type]
        for chunk, chunk_target in zip(logits.split(rows), target.split(rows), strict=True):  # rows x V, rows
            at = chunk_target[:, None]  # rows x 1
            hit = chunk.argmax(dim=-1, keepdim=True).eq(at)  # rows x 1
            correct += hit.sum()
            log_p = F.log_softmax(chunk.float(), dim=-1)  # rows x V
            target_log_p = log_p.gather(-1, at)  # rows x 1
            loss -= target_log_p.sum()
            target_log_ps.append(target_log_p)
            hits.append(hit)
            gradient = log_p.clamp_(min=SMALLEST).exp_()
            chunk.copy_(gradient.scatter_add_(-1, at, torch.full_like(target_log_p, -1.0)))
        ctx.gradient = logits
        of_rows = (-torch.cat(target_log_ps)[:, 0], torch.cat(hits)[:, 0]) if by_row else ()
        ctx.mark_non_differentiable(correct, *of_rows)
        return loss, correct, *of_rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Tuple[Tensor, None, None]:
        """The gradient of the logits, K x V, in their memory."""
        return ctx.gradient.mul_(gradient), None, None


def inplace_cross_entropy(logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
    """Sum of -ln softmax(logits)[target], and the number of rows whose largest logit is the target's.

    Args:
        logits: K x V, any float type. Destroyed where gradients are needed: do not use them afterwards.
        target: K int64.
    Returns:
        the loss, 0-dim fp32, nats; the number, 0-dim int64.
    """
    if overwrites(logits):
        return InplaceCrossEntropy.apply(logits, target, False)
    loss = F.cross_entropy(logits.float(), target, reduction="sum")
    return loss, logits.argmax(dim=-1).eq(target).sum()


def inplace_cross_entropy_by_row(logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `inplace_cross_entropy`, bit for bit, and what each row adds to it.

    Args:
        logits: K x V, any float type; destroyed where gradients are needed.
        target: K int64.
    Returns:
        the loss and the number, 0-dim; without gradient the losses, K fp32, nats, and whether the largest logit is the
        target's, K bool.
    """
    if overwrites(logits):
        return InplaceCrossEntropy.apply(logits, target, True)
    losses, correct = cross_entropy_by_row(logits, target)
    return F.cross_entropy(logits.float(), target, reduction="sum"), correct.sum(), losses, correct


@torch.no_grad()
def cross_entropy_by_row(logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
    """The losses, K fp32, nats, and whether the largest logit is the target's, K bool. logits: K x V; target: K int64.
    """
    return F.cross_entropy(logits.float(), target, reduction="none"), logits.argmax(dim=-1).eq(target)


def overwrites(logits: Tensor) -> bool:
    """Whether the gradient is computed at once, over the logits."""
    is_half = logits.dtype == torch.float16  # unscaled fp16 gradients would underflow
    return torch.is_grad_enabled() and logits.requires_grad and not is_half
