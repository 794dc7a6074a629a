"""Margin between the two largest logits of a masked language model's prediction, negated.

Shapes: V vocabulary.
"""

from typing import Optional

import torch
from torch import Tensor

from .registry import LARGEST, SCORES


@SCORES.add("margin", unit="nats", version=1, needs_tokens=False)
def margin(logits: Tensor, tokens: Optional[Tensor] = None) -> Tensor:
    """Lead of the most probable token over the next, as a difference of logits, negated.

    Args:
        logits: ... x V, any float type; -inf is a probability of zero.
        tokens: not used; other scores need the clean tokens.
    Returns:
        ... fp32, nats, from -LARGEST, which stands for infinity, to 0 where the two are equally probable.
    """
    logits = logits.float()
    at = logits.argmax(dim=-1, keepdim=True)
    second = logits.scatter(-1, at, -torch.inf).amax(dim=-1)
    return (second - logits.gather(-1, at).squeeze(-1)).clamp(min=-LARGEST)
