"""The same selection from cheaper scores: scores near a boundary between selected and not are computed exactly.

A strategy cuts the ranking of a row in one place or several (`marginal`, `mid`). Only what is near a cut can change
sides.
Shapes: B sentences, T positions, N positions in all.
"""

import torch
import torch.nn.functional as F

NEAR, LEAST_NEAR = 1 / 8, 8  # share of a row's positions that `refine_nearest` computes again; at least so many
SAFETY = 4.0  # margin, in largest errors seen so far: errors at other positions may be larger
LEAST_MARGIN = 1e-3  # nats


def refine_near_cut(scores, candidates, choose, exact_at):
    """Scores from which `choose` selects the same positions as from exact ones, unless an error somewhere is more than
    SAFETY times the largest that was seen near the cuts.

    Args:
        scores: B x T fp32, approximate.
        candidates: B x T bool, the positions that may be selected.
        choose: scores -> B x T bool.
        exact_at: an index into B x T (here a bool tensor B x T) -> the exact scores there, N.
    How many are near a cut is known on the device alone, so the host waits for it once a round.

    Returns:
        B x T fp32: exact wherever a position is within SAFETY times the largest error seen of a cut, else `scores`.
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


def refine_nearest(scores, candidates, choose, exact_at):
    """As `refine_near_cut`, but with exact scores at a fixed number of positions in each row, NEAR of its length, those
    nearest to a cut: their number is known on the host, so it never waits. Where an error is larger than the distance
    of the others from their cut, a position may be chosen that exact scores would not choose.

    exact_at: an index into B x T (here two int64 tensors) -> the exact scores there, B x S.
    """
    rows, length = scores.shape
    distance = distance_to_cut(scores, candidates, choose(scores)).masked_fill(~candidates, torch.inf)
    number = min(length, max(LEAST_NEAR, round(NEAR * length)))  # S; of the strategies' two cuts, each has two sides
    near = distance.topk(number, dim=1, largest=False).indices  # B x S
    at = torch.arange(rows, device=scores.device)[:, None], near
    return scores.index_put(at, exact_at(at))


def distance_to_cut(scores, candidates, selected):
    """B x T: how far a candidate's score is from the nearest cut of its row, however many there are: 0 for the two next
    to it, infinite without a cut."""
    ranked, order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True)
    chosen = selected.gather(1, order)
    no_cut = (chosen[:, 1:] == chosen[:, :-1]) | (ranked[:, 1:] == -torch.inf)  # between a rank and the next
    lowest_above = ranked.masked_fill(F.pad(no_cut, (0, 1), value=True), -torch.inf)  # of each cut
    highest_below = ranked.masked_fill(F.pad(no_cut, (1, 0), value=True), torch.inf)
    to_cut_below = ranked - lowest_above.flip(1).cummax(1).values.flip(1)
    to_cut_above = highest_below.cummin(1).values - ranked
    distance = torch.minimum(to_cut_below, to_cut_above)
    return torch.empty_like(distance).scatter_(1, order, distance)
