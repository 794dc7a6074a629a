"""The same selection from cheaper scores: scores near a boundary between selected and not are computed exactly.

A strategy cuts the ranking of a row in one place or two (`marginal`, `mid`). Only what is near a cut can change sides.
Shapes: B sentences, T positions, N positions in all.
"""

import torch

SAFETY = 4.0  # margin, in largest errors seen so far: errors at other positions may be larger
LEAST_MARGIN = 1e-3  # nats


def refined(scores, candidates, choose, exact_at):
    """Scores from which `choose` selects the same positions as from exact ones, unless an error somewhere is more than
    SAFETY times the largest that was seen near the cuts.

    Args:
        scores: B x T fp32, approximate.
        candidates: B x T bool, the positions that may be selected.
        choose: scores -> B x T bool.
        exact_at: B x T bool -> the exact scores there, N.
    How many are near a cut is known on the device alone, so the host waits for it once a round.

    Returns:
        B x T fp32: exact wherever a position is within SAFETY times the largest error seen of a cut, else `scores`.
    """
    approximate, scores = scores, scores.clone()
    is_exact, margin = torch.zeros_like(candidates), 0.0  # first, the positions on both sides of each cut
    while True:
        wanted = candidates & ~is_exact & (distance_to_cut(scores, candidates, choose(scores)) <= margin)
        if not wanted.any():
            return scores
        scores[wanted] = exact_at(wanted)
        is_exact |= wanted
        largest_error = (scores - approximate)[is_exact].abs().max()
        margin = max(margin, LEAST_MARGIN, SAFETY * float(largest_error))


def distance_to_cut(scores, candidates, selected):
    """B x T: how far a score is from the nearest cut of its row; 0 for the two next to it, infinite without a cut."""
    if scores.size(1) < 2:
        return torch.full_like(scores, torch.inf)
    ranked, order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True)
    chosen = selected.gather(1, order)
    is_cut = (chosen[:, 1:] != chosen[:, :-1]) & ranked[:, 1:].isfinite()  # between a rank and the next
    distance = torch.full_like(ranked, torch.inf)
    last = is_cut.size(1) - 1
    for cut in (is_cut.int().argmax(1), last - is_cut.flip(1).int().argmax(1)):  # the first and the last
        above, below = ranked.gather(1, cut[:, None]), ranked.gather(1, cut[:, None] + 1)
        to_this = torch.where(ranked >= above, ranked - above, below - ranked).clamp(min=0)
        distance = torch.where(is_cut.any(1, keepdim=True), torch.minimum(distance, to_this), distance)
    return torch.empty_like(distance).scatter_(1, order, distance)
