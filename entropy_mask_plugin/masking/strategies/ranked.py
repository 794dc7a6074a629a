"""Strategies that take one part of the ranking by (score descending, position ascending), or two."""

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
    """The k central ranks."""
    first = (candidates.sum(dim=1) - k) // 2
    center = 2 * first + k - 1  # twice the middle of the ranks first, ..., first + k - 1
    return -(2 * ranks(scores, candidates) - center[:, None]).abs().float()


@STRATEGIES.add("marginal", cuts_scores=True)
def marginal(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """Half from the top of the ranking, half from its bottom; an odd one from the top."""
    from_top, from_bottom = ranks(scores, candidates), ranks(-scores, candidates)
    return -torch.minimum(2 * from_top, 2 * from_bottom + 1).float()
