"""Counts of masks, and what follows from them.

Shapes: P maskable positions of a text, D draws of the masks, G groups, V vocabulary.
"""

from typing import NamedTuple, Optional, Tuple

import numpy as np


def ratio(count: float, total: float) -> Optional[float]:
    """count / total; None where the total is 0."""
    return float(count) / float(total) if total else None


def jaccard(one: np.ndarray, other: np.ndarray) -> Optional[float]:
    """Positions that both mask, divided by those that either does; None where nothing is masked.

    Args:
        one: bool, of any shape.
        other: the same shape.
    """
    return ratio(int((one & other).sum()), int((one | other).sum()))


def jaccard_by_chance(p: float, q: float) -> Optional[float]:
    """What two independent random choices of a fraction p and a fraction q of the positions have in common."""
    return ratio(p * q, p + q - p * q)


def repetition(masked: np.ndarray) -> Optional[float]:
    """The Jaccard overlap of each draw with the next one, positions of all pairs pooled; None for a single draw.

    Args:
        masked: D x P bool.
    """
    return jaccard(masked[:-1], masked[1:])


def never_masked(masked: np.ndarray) -> Optional[float]:
    """The fraction of the positions that no draw masks. masked: D x P bool."""
    return ratio(int((~masked.any(0)).sum()), masked.shape[1])


def ranks(scores: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The rank of each position within its block by (score descending, position ascending), from 1: P int64.

    Args:
        scores: P float.
        blocks: P int64, ascending.
    """
    order = np.lexsort((np.arange(len(scores)), -scores.astype(np.float64), blocks))
    first = np.searchsorted(blocks, blocks)  # where the block of each position begins
    result = np.empty(len(scores), np.int64)
    result[order] = np.arange(len(scores)) - first[order] + 1
    return result


class GroupCounts(NamedTuple):
    """Positions of each group, and how many of these all draws together mask: G int64 each."""

    positions: np.ndarray
    masked: np.ndarray


def count_groups(groups: np.ndarray, masked: np.ndarray, n_groups: int) -> GroupCounts:
    """
    Args:
        groups: P int64, the group of each position; -1 = none.
        masked: D x P bool.
        n_groups: G.
    """
    inside = groups >= 0
    draws = masked[:, inside].sum(0)
    return GroupCounts(np.bincount(groups[inside], minlength=n_groups),
                       np.bincount(groups[inside], draws, n_groups).astype(np.int64))


class TypeCounts(NamedTuple):
    """Of each token type: positions, how many of these all draws together mask, and the sum of the scores: V each."""

    positions: np.ndarray
    masked: np.ndarray
    score_sum: np.ndarray


def count_types(tokens: np.ndarray, scores: np.ndarray, masked: np.ndarray, vocabulary_size: int) -> TypeCounts:
    """
    Args:
        tokens: P int64.
        scores: P float.
        masked: D x P bool.
        vocabulary_size: V.
    """
    counts = count_groups(tokens, masked, vocabulary_size)
    return TypeCounts(*counts, np.bincount(tokens, scores.astype(np.float64), vocabulary_size))


def extremes(fractions: np.ndarray, positions: np.ndarray, least_positions: int,
             most: int) -> Tuple[np.ndarray, np.ndarray]:
    """The types that are masked most and least, in this order: ids. Ties go to the more frequent type, then the lower
    id; no type is in both.

    Args:
        fractions: V float, how often each is masked.
        positions: V int64.
        least_positions: types that are rarer are left out.
        most: length of each list.
    """
    types = np.flatnonzero(positions >= least_positions)
    length = min(most, len(types) // 2)
    highest = types[np.lexsort((types, -positions[types], -fractions[types]))][:length]
    others = np.setdiff1d(types, highest)
    return highest, others[np.lexsort((others, -positions[others], fractions[others]))][:length]
