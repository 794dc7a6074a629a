"""Which positions are masked (paper, section 2.3).

Shapes: B sentences, T positions. `scores` is B x T fp32 and finite, `candidates` and every result B x T bool, `k` is B
int64: how many to choose in each row, at most the number of candidates there.
"""

import torch


def number_to_mask(n, mask_prob, mask_count=None):
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


def highest(scores, candidates, k):
    """The k highest scores; ties go to the lower position."""
    return candidates & (_ranks(scores, candidates) < k[:, None])


def lowest(scores, candidates, k):
    """The k lowest scores; ties go to the lower position."""
    return highest(-scores, candidates, k)


def middle(scores, candidates, k):
    """The k central ranks of (score descending, position ascending)."""
    first = ((candidates.sum(dim=1) - k) // 2)[:, None]
    ranks = _ranks(scores, candidates)
    return candidates & (first <= ranks) & (ranks < first + k[:, None])


def marginal(scores, candidates, k):
    """The ceil(k / 2) highest, and of the others the floor(k / 2) lowest."""
    top = highest(scores, candidates, (k + 1) // 2)
    return top | lowest(scores, candidates & ~top, k // 2)


# Random masking is `highest` on uniform noise. `alternating` is not here: each update, it is one of high and low.
CHOOSE = {"random": highest, "high": highest, "low": lowest, "mid": middle, "marginal": marginal}


def _ranks(scores, candidates):
    """Rank of each candidate in its row by (score descending, position ascending), from 0. Others come last."""
    order = scores.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(scores.size(1), device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)
