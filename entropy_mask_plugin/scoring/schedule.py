"""Whose scores choose the masks, and when. Functions of the epoch alone, so that there is no state to save.

An epoch is fairseq's: one pass over one shard, counted from 1.
"""

from typing import Optional

from ..masking.scores import is_learned
from ..masking.strategies import STRATEGIES


def is_scored(strategy: str) -> bool:
    """Whether masks are chosen by scores; also True for a strategy that is not registered here: records of other
    installations may name one."""
    return strategy not in STRATEGIES or STRATEGIES[strategy].traits["needs_scores"]


def source_of(strategy: str, epoch: int, self_mask_from_epoch: Optional[int] = None,
              first: str = "teacher", score: str = "entropy") -> Optional[str]:
    """Whose predictions score the tokens in this epoch (paper, section 2.2).

    Args:
        strategy: a name in STRATEGIES.
        epoch: counted from 1.
        self_mask_from_epoch: first epoch of self-masking: 1 = cold start, 2 = the paper's `init`, None = never.
        first: the source of the epochs before.
        score: a name in SCORES. One that learns belongs to the model being trained: before self-masking, which begins
            with epoch 1 where it is not given, masks are random.
    Returns:
        a name in SOURCES; None where the masks of this epoch need no scores.
    """
    if not is_scored(strategy):
        return None
    if is_learned(score):
        return "self" if epoch >= (self_mask_from_epoch or 1) else None
    return "self" if self_mask_from_epoch is not None and epoch >= self_mask_from_epoch else first


def epoch_of_self_entropies(epoch: int, self_mask_from_epoch: Optional[int], every: int = 1, shards: int = 1,
                            first: str = "teacher") -> int:
    """The epoch whose self entropies are used in this one; the same epoch where they are computed anew.

    Args:
        epoch: counted from 1.
        self_mask_from_epoch: first epoch of self-masking.
        every: compute them in one of this many passes over a shard.
        shards: epochs in a pass over all the data.
        first: the source of the epochs before; "self" = self-masking begins with epoch 1.
    """
    begin = 1 if first == "self" or self_mask_from_epoch is None else self_mask_from_epoch
    passes = max(0, epoch - begin) // shards
    return epoch - passes % every * shards



def distils(epoch: int, kd_weight: float, kd_start_epoch: int) -> bool:
    """Whether distillation is on in this epoch."""
    return kd_weight > 0 and epoch >= kd_start_epoch
