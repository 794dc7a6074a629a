"""Strategies with a random component."""

from torch import Tensor

from ..noise import SELECTION, Draw
from .ranked import high, low
from .registry import STRATEGIES


@STRATEGIES.add("random", needs_scores=False)
def random(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """Uniformly random tokens."""
    return draw.noise(SELECTION)


@STRATEGIES.add("alternating", cuts_scores=True)
def alternating(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """One of high and low, by a fair coin for each update."""
    return (high if draw.coin() else low)(scores, candidates, k, draw)
