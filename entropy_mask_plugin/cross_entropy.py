"""Cross-entropy that makes no second tensor of the logits' size: their memory becomes their gradient.

torch's keeps fp32 log-probabilities and makes a gradient beside them, each of K x V.
Shapes: K rows, V vocabulary.
"""

import torch

CHUNK_ROWS = 256  # what is held in fp32 at once where the logits are of a shorter type


class ConsumingCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        """See `cross_entropy_of_consumed`."""
        loss, correct = logits.new_zeros((), dtype=torch.float32), target.new_zeros(())
        for part, target_of_part in zip(logits.split(CHUNK_ROWS), target.split(CHUNK_ROWS)):
            at = target_of_part[:, None]
            p = part.float()
            largest, predicted = p.max(dim=-1, keepdim=True)
            of_target = p.gather(-1, at)
            p.sub_(largest).exp_()
            total = p.sum(dim=-1, keepdim=True)
            loss += (total.log() + largest - of_target).sum()
            correct += predicted.eq(at).sum()
            p.div_(total).scatter_add_(-1, at, torch.full_like(total, -1.0))
            part.copy_(p)  # nothing to do in fp32, where p is part
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
    if torch.is_grad_enabled() and logits.requires_grad:
        return ConsumingCrossEntropy.apply(logits, target)
    loss = torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum")
    return loss, logits.argmax(dim=-1).eq(target).sum()
