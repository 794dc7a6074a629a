"""Surprisal of the token itself under a masked language model's prediction, in nats.

Shapes: V vocabulary.
"""

import torch
from torch import Tensor

from .registry import LARGEST, SCORES


@SCORES.add("surprisal", unit="nats", version=1, needs_tokens=True)
def surprisal(logits: Tensor, tokens: Tensor) -> Tensor:
    """Surprisal -ln P(token) of the clean token, accurate in fp32 also for confident predictions.

    The textbook logsumexp(z) - z_t cancels where P(token) is nearly 1. With the largest logit taken out, x = z - max
    and r = sum of e^x over all other entries,

        S = log(1 + r) - x_t

    adds two terms that are not negative; the second is 0 where the token is the predicted one.

    Args:
        logits: ... x V, any float type; -inf is a probability of zero.
        tokens: ... int64, the clean tokens.
    Returns:
        ... fp32, nats, from 0 to LARGEST, which stands for infinity.
    """
    logits = logits.float()
    at = logits.argmax(dim=-1, keepdim=True)
    x = logits - logits.gather(-1, at)
    of_token = x.gather(-1, tokens[..., None]).squeeze(-1)
    r = x.exp_().scatter_(-1, at, 0.0).sum(dim=-1)
    return (torch.log1p(r) - of_token).clamp(max=LARGEST)
