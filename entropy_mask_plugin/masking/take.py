"""How many positions are masked, and the only place where they are separated from the rest.

Shapes: B sentences, T positions.
"""

from typing import Optional

import torch
from torch import Tensor


def number_to_mask(n: Tensor, mask_prob: float, mask_count: Optional[int] = None) -> Tensor:
    """How many positions of each row are masked: floor(mask_prob n + 0.5), at least 1 where n >= 1, at most n.

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
            of its first candidate. A unit that does not fit into what is left of k is skipped, so that fewer than k
            may be taken.
    Returns:
        B x T bool.
    """
    if units is not None:
        return take_units(priority, candidates, k, units)
    return candidates & (ranks(priority, candidates) < k[:, None])


def ranks(scores: Tensor, candidates: Tensor) -> Tensor:
    """Rank of each candidate in its row by (score descending, position ascending), from 0; all others come last.

    Args:
        scores: B x T, finite.
        candidates: B x T bool.
    Returns:
        B x T int64.
    """
    order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(scores.size(1), device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def take_units(priority: Tensor, candidates: Tensor, k: Tensor, units: Tensor) -> Tensor:
    """As `take`, with units given: whole units in order of priority, skipping those that do not fit."""
    candidates = candidates & (units >= 0)
    units = units.clamp(min=0)
    size = sum_by_unit(candidates.long(), units)  # B x T: candidates of each unit, indexed by its number
    first = is_first_of_unit(candidates, units)  # B x T bool
    order = priority.masked_fill(~first, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    sizes = size.gather(1, units.gather(1, order))  # B x T, in order of priority
    is_open, left = first.gather(1, order), k[:, None]
    taken = torch.zeros_like(is_open)
    while True:  # a round takes all units before the first that does not fit; few rounds, since units are short
        fits = is_open & (sizes <= left)
        new = fits & ((sizes * fits).cumsum(1) <= left)
        if not new.any():
            break
        taken, is_open, left = taken | new, fits & ~new, left - (sizes * new).sum(1, keepdim=True)
    is_taken = torch.zeros_like(taken).scatter_(1, order, taken)  # by position, at the first of each unit
    return candidates & sum_by_unit((is_taken & first).long(), units).bool().gather(1, units)


def sum_by_unit(values: Tensor, units: Tensor) -> Tensor:
    """Sum of the values, B x T, over each unit: B x T, indexed by the unit's number."""
    return torch.zeros_like(values).scatter_add_(1, units, values)


def is_first_of_unit(candidates: Tensor, units: Tensor) -> Tensor:
    """Whether a position is the first candidate of its unit: B x T bool."""
    length = units.size(1)
    positions = torch.arange(length, device=units.device).expand_as(units)
    positions = positions.masked_fill(~candidates, length)
    first = torch.full_like(units, length).scatter_reduce_(1, units, positions, "amin")  # indexed by number
    return candidates & (positions == first.gather(1, units))


def mean_of_units(scores: Tensor, candidates: Tensor, units: Tensor) -> Tensor:
    """At each candidate, the mean score of the candidates of its unit: B x T fp32."""
    candidates, units = candidates & (units >= 0), units.clamp(min=0)
    total = sum_by_unit(scores * candidates, units)
    return (total / sum_by_unit(candidates.to(scores.dtype), units).clamp(min=1)).gather(1, units)
