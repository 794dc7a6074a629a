"""Spans of random lengths, as SpanBERT draws them (Joshi et al. 2020, section 3.1).

Shapes: B sentences, T positions.
"""

import functools
import itertools

import torch
from torch import Tensor

from ..noise import UNIT, Draw
from ..vocabulary import Vocabulary
from .registry import UNITS, number_by_start

# Lengths are geometric, P(l) in proportion to (1 - PROBABILITY)^(l - 1), for l = 1 ... LONGEST: 3.8 tokens on average.
PROBABILITY = 0.2
LONGEST = 10


@UNITS.add("span")
def span(tokens: Tensor, candidates: Tensor, vocabulary: Vocabulary, draw: Draw) -> Tensor:
    """Neighbouring tokens, in spans of 1 to 10 as SpanBERT draws them.

    Spans follow each other from the first position on; the last one ends with the row.
    """
    lengths = torch.bucketize(draw.noise(UNIT), cumulative(tokens.device), right=True) + 1
    return number_by_start(reached(lengths))


@functools.lru_cache(maxsize=4)  # copied once, not in every update
def cumulative(device: torch.device) -> Tensor:
    """The probabilities that a span has at most 1 ... LONGEST - 1 tokens: fp32 on the device."""
    weights = [(1 - PROBABILITY) ** (length - 1) for length in range(1, LONGEST + 1)]
    return torch.tensor([below / sum(weights) for below in itertools.accumulate(weights)][:-1], device=device)


def reached(lengths: Tensor) -> Tensor:
    """The positions that are reached from the first one, each time going on by the length at the position.

    Args:
        lengths: B x T int64, 1 or more.
    Returns:
        B x T bool.
    """
    end = lengths.size(1)  # a place behind the row, for jumps that leave it
    places = torch.arange(end + 1, device=lengths.device)
    jump = (places + torch.nn.functional.pad(lengths, (0, 1))).clamp(max=end)  # B x (T + 1)
    visited = (places == 0).repeat(len(lengths), 1)
    for _ in range(end.bit_length()):  # places within 1, 2, 4, … jumps, which are one jump, then two, then four, …
        visited = visited.scatter(1, jump.masked_fill(~visited, end), True)
        jump = jump.gather(1, jump)
    return visited[:, :-1]
