"""Which tokens of a sequence are hidden together, so that each can be scored while a model does not see it.

Shapes: B sentences, T positions.
"""

import torch
from torch import Tensor

from . import noise
from .take import ranks


def folds(ids: Tensor, maskable: Tensor, number: int) -> Tensor:
    """A random partition of the maskable positions of each row into folds whose sizes differ by at most 1.

    It is a function of the sample id alone, not of seed or epoch, so that caches can be shared between runs.

    Args:
        ids: B int64, of the sentences.
        maskable: B x T bool.
        number: F, of folds, 1 or more; a row with fewer maskable positions has one in each of its first folds.
    Returns:
        B x T int64: 0 to F - 1; -1 where not maskable.
    """
    order = noise.uniform(0, 0, ids, maskable.size(1), noise.FOLD)
    return torch.where(maskable, ranks(order, maskable) % number, -1)
