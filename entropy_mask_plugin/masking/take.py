"""How many positions are masked, and the one place where they are cut off from the rest.

Shapes: B sentences, T positions.
"""

from typing import Optional

import torch
from torch import Tensor


def number_to_mask(n: Tensor, mask_prob: float, mask_count: Optional[int] = None) -> Tensor:
    """How many positions of each row are masked: floor(mask_prob n + 0.5), at least 1 where there is one, at most n.

    Args:
        n: B int64, the maskable positions of each row.
        mask_prob: share of n, in (0, 1].
        mask_count: a fixed number instead (at most n).
    Returns:
        B int64.
    """
    if mask_count is not None:
        return n.clamp(max=mask_count)
    k = (n.double() * mask_prob + 0.5).floor().long().clamp(min=1)
    return torch.minimum(k, n)


def take(priority: Tensor, candidates: Tensor, k: Tensor) -> Tensor:
    """The k candidates of each row with the largest priority; ties go to the lower position.

    Args:
        priority: B x T fp32, finite.
        candidates: B x T bool.
        k: B int64, at most the number of candidates of the row.
    Returns:
        B x T bool.
    """
    return candidates & (ranks(priority, candidates) < k[:, None])


def ranks(scores: Tensor, candidates: Tensor) -> Tensor:
    """Rank of each candidate in its row by (score descending, position ascending), from 0; others come last: B x T
    int64."""
    order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(scores.size(1), device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)
