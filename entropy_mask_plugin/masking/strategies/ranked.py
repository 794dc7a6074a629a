"""Strategies that take one or two parts of the ranking by (score descending, position ascending).

Each returns a priority, B x T fp32; `registry` says what the arguments are. n: candidates of a row; r: the rank from
the top, counted from 0; b: the rank from the bottom.
"""

import torch
from torch import Tensor

from ..noise import Draw
from ..take import ranks
from .registry import STRATEGIES


@STRATEGIES.add("high", cuts_scores=True)
def high(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """The most uncertain tokens."""
    return scores


@STRATEGIES.add("low", cuts_scores=True)
def low(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """The least uncertain tokens."""
    return -scores


@STRATEGIES.add("mid", cuts_scores=True)
def mid(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """The k central ranks.

    Priority: -|2 r - (2 floor((n - k) / 2) + k - 1)|.
    """
    first = (candidates.sum(dim=1) - k) // 2
    center = 2 * first + k - 1  # twice the middle of the ranks first, ..., first + k - 1
    return -(2 * ranks(scores, candidates) - center[:, None]).abs().float()


@STRATEGIES.add("marginal", cuts_scores=True)
def marginal(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """Half from the top of the ranking, half from its bottom; an odd one from the top.

    Priority: -min(2 r, 2 b + 1).
    """
    from_top, from_bottom = ranks(scores, candidates), ranks(-scores, candidates)
    return -torch.minimum(2 * from_top, 2 * from_bottom + 1).float()
