"""The same selection from cheaper scores: only scores near a boundary between selected and not are computed exactly.

A strategy cuts the ranking of a row in one place or in several (`marginal`, `mid`). Only positions near a cut can end
up on its other side.
Shapes: B sentences, T positions, S positions of a row that are computed again, N positions in all.
"""

from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Choose = Callable[[Tensor], Tensor]  # scores, B x T fp32 -> selected, B x T bool
ExactAt = Callable[[Any], Tensor]  # an index into B x T -> the exact scores there, fp32

NEAR, LEAST_NEAR = 1 / 8, 8  # fraction of a row that `refine_nearest` computes again, and the least number of positions
SAFETY = 4.0  # margin, as a multiple of the largest error so far: errors at other positions may be larger
LEAST_MARGIN = 1e-3  # nats


def refine_near_cut(scores: Tensor, candidates: Tensor, choose: Choose, exact_at: ExactAt) -> Tensor:
    """Scores from which `choose` selects the same positions as from exact ones, unless an error elsewhere is more than
    SAFETY times the largest one observed near the cuts.

    Only the device knows how many positions are near a cut, so the host waits for it once a round.

    Args:
        scores: B x T fp32, approximate.
        candidates: B x T bool, the positions that may be selected.
        choose: scores -> B x T bool.
        exact_at: an index into B x T (here a bool tensor B x T) -> the exact scores there, N fp32.
    Returns:
        B x T fp32: exact at positions whose distance to a cut is at most SAFETY times the largest observed error, else
        as in `scores`.
    """
    approximate, scores = scores, scores.clone()
    is_open, margin = candidates.clone(), 0.0  # first, the positions on both sides of each cut
    while True:
        near = is_open & (distance_to_cut(scores, candidates, choose(scores)) <= margin)
        if not near.any():
            return scores
        exact = exact_at(near)
        largest_error = float((exact - approximate[near]).abs().max())
        scores[near] = exact
        is_open.masked_fill_(near, False)
        margin = max(margin, LEAST_MARGIN, SAFETY * largest_error)


def refine_nearest(scores: Tensor, candidates: Tensor, choose: Choose, exact_at: ExactAt) -> Tensor:
    """As `refine_near_cut`, but with exact scores at a fixed number of positions in each row, the ones nearest to a
    cut: the fraction NEAR of its length. The host knows their number and never waits. Where an error at another
    position is larger than its distance to the cut, the selection may differ from that of exact scores.

    Args:
        scores: B x T fp32, approximate.
        candidates: B x T bool, the positions that may be selected.
        choose: scores -> B x T bool.
        exact_at: an index into B x T (here two int64 tensors) -> the exact scores there, B x S fp32.
    Returns:
        B x T fp32.
    """
    rows, length = scores.shape
    distance = distance_to_cut(scores, candidates, choose(scores)).masked_fill(~candidates, torch.inf)
    number = min(length, max(LEAST_NEAR, round(NEAR * length)))  # S, for both sides of at most two cuts
    near = distance.topk(number, dim=1, largest=False).indices  # B x S
    at = torch.arange(rows, device=scores.device)[:, None], near
    return scores.index_put(at, exact_at(at))


def distance_to_cut(scores: Tensor, candidates: Tensor, selected: Tensor) -> Tensor:
    """How far each candidate's score is from the nearest of its row's cuts: 0 for the two scores next to a cut,
    infinite in a row without one.

    Args:
        scores: B x T fp32.
        candidates: B x T bool.
        selected: B x T bool.
    Returns:
        B x T fp32, in the unit of the scores.
    """
    ranked, order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True)
    chosen = selected.gather(1, order)
    no_cut = (chosen[:, 1:] == chosen[:, :-1]) | (ranked[:, 1:] == -torch.inf)  # between a rank and the next
    lowest_above = ranked.masked_fill(F.pad(no_cut, (0, 1), value=True), -torch.inf)  # of each cut
    highest_below = ranked.masked_fill(F.pad(no_cut, (1, 0), value=True), torch.inf)
    to_cut_below = ranked - lowest_above.flip(1).cummax(1).values.flip(1)
    to_cut_above = highest_below.cummin(1).values - ranked
    distance = torch.minimum(to_cut_below, to_cut_above)
    return torch.empty_like(distance).scatter_(1, order, distance)
