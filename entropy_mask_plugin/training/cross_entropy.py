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
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
        """See `inplace_cross_entropy`."""
        loss, correct = logits.new_zeros((), dtype=torch.float32), target.new_zeros(())
        rows = CHUNK_ROWS[logits.device.type]
        for chunk, chunk_target in zip(logits.split(rows), target.split(rows), strict=True):  # rows x V, rows
            at = chunk_target[:, None]  # rows x 1
            correct += chunk.argmax(dim=-1, keepdim=True).eq(at).sum()
            log_p = F.log_softmax(chunk.float(), dim=-1)  # rows x V
            target_log_p = log_p.gather(-1, at)  # rows x 1
            loss -= target_log_p.sum()
            gradient = log_p.clamp_(min=SMALLEST).exp_()
            chunk.copy_(gradient.scatter_add_(-1, at, torch.full_like(target_log_p, -1.0)))
        ctx.gradient = logits
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Tuple[Tensor, None]:
        """The gradient of the logits, K x V, in their memory."""
        return ctx.gradient.mul_(gradient), None


def inplace_cross_entropy(logits: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
    """Sum of -ln softmax(logits)[target], and the number of rows whose largest logit is the target's.

    Args:
        logits: K x V, any float type. Destroyed where gradients are needed: do not use them afterwards.
        target: K int64.
    Returns:
        the loss, 0-dim fp32, nats; the number, 0-dim int64.
    """
    is_half = logits.dtype == torch.float16  # unscaled fp16 gradients would underflow
    if torch.is_grad_enabled() and logits.requires_grad and not is_half:
        return InplaceCrossEntropy.apply(logits, target)
    loss = F.cross_entropy(logits.float(), target, reduction="sum")
    return loss, logits.argmax(dim=-1).eq(target).sum()
