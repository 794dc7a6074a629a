"""What masking needs of a dictionary.

Shapes: V vocabulary, R tokens that may replace another.
"""

import functools
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What masking needs of a dictionary. Two are equal only if they are the same object, so that a function of one can
    be cached.

    mask, padding: ids; ordinary: R int64, the tokens that may replace another (no specials); symbols: the V subword
    strings, for units that need them.
    """

    mask: int
    padding: int
    ordinary: Tensor
    symbols: Sequence[str] = ()


@functools.lru_cache(maxsize=4)  # copied once, not in every update
def ordinary_on(vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """`vocabulary.ordinary` on the device: R int64."""
    return vocabulary.ordinary.to(device)
