"""Strategies with a random component."""

import torch
from torch import Tensor

from ..noise import SELECTION, STRATEGY, Draw
from ..registry import Option
from .ranked import high, low
from .registry import STRATEGIES

TEMPERATURE = Option(1.0, "temperature of --mask-strategy gumbel, in the unit of the score (above 0): towards 0 it "
                     "approaches high, larger is more uniform", lambda value: 1e-6 <= value <= 1e6,
                     "a number above 0, 1e-6 to 1e6")


@STRATEGIES.add("random", needs_scores=False)
def random(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """Uniformly random tokens."""
    return draw.noise(SELECTION)


@STRATEGIES.add("alternating", cuts_scores=True)
def alternating(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw) -> Tensor:
    """One of high and low, by a fair coin for each update."""
    return (high if draw.coin() else low)(scores, candidates, k, draw)


@STRATEGIES.add("gumbel", options={"gumbel_temperature": TEMPERATURE})
def gumbel(scores: Tensor, candidates: Tensor, k: Tensor, draw: Draw,
           gumbel_temperature: float = TEMPERATURE.default) -> Tensor:
    """Random tokens without replacement, in proportion to e^(score / temperature).

    Priority: score / temperature + Gumbel noise (Gumbel-top-k trick: Kool, van Hoof, Welling 2019).
    """
    noise = gumbel_noise(draw.noise(STRATEGY))
    # below 1, times the temperature, which leaves the order and keeps the priority finite
    return scores / max(gumbel_temperature, 1.0) + noise * min(gumbel_temperature, 1.0)


def gumbel_noise(uniform: Tensor) -> Tensor:
    """Gumbel noise -ln(-ln(u)), between -2.9 and 17.4.

    Args:
        uniform: any shape, fp32 in [0, 1), multiples of 2^-24; u lies half a step above, so that no logarithm is
            infinite. In fp32 the largest u would be rounded to 1.
    Returns:
        the same shape, fp32.
    """
    return -torch.log(-torch.log(uniform.double() + 2.0**-25)).float()
