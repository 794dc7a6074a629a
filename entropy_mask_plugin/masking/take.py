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
        mask_prob: fraction of n, in (0, 1].
        mask_count: a fixed number instead (at most n).
    Returns:
        B int64.
    """
    if mask_count is not None:
        return n.clamp(max=mask_count)
    k = (n.double() * mask_prob + 0.5).floor().long().clamp(min=1)
    return torch.minimum(k, n)


def take(priority: Tensor, candidates: Tensor, k: Tensor, units: Optional[Tensor] = None) -> Tensor:
    """The k candidates of each row with the largest priority; ties go to the lower position.

    Args:
        priority: B x T fp32, finite.
        candidates: B x T bool.
        k: B int64, at most the number of candidates of the row.
        units: B x T int64, what is taken together (see `units`); None = each position alone. A unit has the priority
            of its first candidate. One that does not fit into what is left of k is skipped, so fewer may be taken.
    Returns:
        B x T bool.
    """
    if units is not None:
        return take_units(priority, candidates, k, units)
    return candidates & (ranks(priority, candidates) < k[:, None])


def ranks(scores: Tensor, candidates: Tensor) -> Tensor:
    """Rank of each candidate in its row by (score descending, position ascending), from 0; others come last: B x T
    int64."""
    order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(scores.size(1), device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def take_units(priority: Tensor, candidates: Tensor, k: Tensor, units: Tensor) -> Tensor:
    """As `take`: whole units, in order of priority, as long as they fit."""
    candidates = candidates & (units >= 0)
    units = units.clamp(min=0)
    size = of_units(candidates.long(), units)  # B x T: candidates of each unit, by its number
    first = first_of_units(candidates, units)  # B x T bool
    order = priority.masked_fill(~first, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    sizes = size.gather(1, units.gather(1, order))  # B x T, in order of priority
    is_open, left = first.gather(1, order), k[:, None]
    taken = torch.zeros_like(is_open)
    while True:  # each round takes all up to the first that does not fit: seldom more than the longest unit is long
        fits = is_open & (sizes <= left)
        new = fits & ((sizes * fits).cumsum(1) <= left)
        if not new.any():
            break
        taken, is_open, left = taken | new, fits & ~new, left - (sizes * new).sum(1, keepdim=True)
    is_taken = torch.zeros_like(taken).scatter_(1, order, taken)  # by position, at the first of each unit
    return candidates & of_units((is_taken & first).long(), units).bool().gather(1, units)


def of_units(values: Tensor, units: Tensor) -> Tensor:
    """Sum of the values in each unit: B x T, by its number."""
    return torch.zeros_like(values).scatter_add_(1, units, values)


def first_of_units(candidates: Tensor, units: Tensor) -> Tensor:
    """B x T bool: the first candidate of each unit."""
    length = units.size(1)
    positions = torch.arange(length, device=units.device).expand_as(units)
    positions = positions.masked_fill(~candidates, length)
    first = torch.full_like(units, length).scatter_reduce_(1, units, positions, "amin")  # by number
    return candidates & (positions == first.gather(1, units))


def mean_of_units(scores: Tensor, candidates: Tensor, units: Tensor) -> Tensor:
    """B x T fp32: at each candidate, the mean score of the candidates of its unit."""
    candidates, units = candidates & (units >= 0), units.clamp(min=0)
    total = of_units(scores * candidates, units)
    return (total / of_units(candidates.to(scores.dtype), units).clamp(min=1)).gather(1, units)
