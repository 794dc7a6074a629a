"""Cross-entropy that makes no second tensor of the logits' size: their memory becomes their gradient.

torch's keeps fp32 log-probabilities and makes two gradients beside them, each of K x V.
Shapes: K rows, V vocabulary.
"""

import torch
import torch.nn.functional as F

CHUNK_ROWS = {"cpu": 16, "cuda": 1024}  # of fp32 log-probabilities: fits the processor's cache; many small kernels wait
SMALLEST = -80.0  # ln of a probability: below e^-87, fp32 numbers are denormal, and matrix products with them slow


class ConsumingCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        """See `cross_entropy_of_consumed`."""
        loss, correct = logits.new_zeros((), dtype=torch.float32), target.new_zeros(())
        rows = CHUNK_ROWS[logits.device.type]
        for part, target_of_part in zip(logits.split(rows), target.split(rows)):
            at = target_of_part[:, None]
            correct += part.argmax(dim=-1, keepdim=True).eq(at).sum()
            log_p = F.log_softmax(part.float(), dim=-1)
            of_target = log_p.gather(-1, at)
            loss -= of_target.sum()
            gradient = log_p.clamp_(min=SMALLEST).exp_()
            part.copy_(gradient.scatter_add_(-1, at, torch.full_like(of_target, -1.0)))
        ctx.gradient = logits
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx, gradient, _):
        return ctx.gradient.mul_(gradient), None


def cross_entropy_of_consumed(logits, target):
    """Sum of -ln softmax(logits)[target], and how many rows have their largest logit at the target.

    Args:
        logits: K x V, any float type; not to be used afterwards, in training their memory becomes the gradient.
        target: K int64.
    Returns:
        the loss, 0-dim fp32, nats; the number, 0-dim int64.
    """
    is_half = logits.dtype == torch.float16  # whose gradients would vanish before the loss is scaled
    if torch.is_grad_enabled() and logits.requires_grad and not is_half:
        return ConsumingCrossEntropy.apply(logits, target)
    loss = F.cross_entropy(logits.float(), target, reduction="sum")
    return loss, logits.argmax(dim=-1).eq(target).sum()
