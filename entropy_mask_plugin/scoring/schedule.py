"""Whose scores choose the masks, and when. Functions of the epoch alone, so that there is no state to save.

An epoch is fairseq's: one pass over one shard, counted from 1.
"""

from typing import NamedTuple, Optional, Set

from ..masking.strategies import STRATEGIES


def is_scored(strategy: str) -> bool:
    """Whether masks are chosen by scores; also True for a strategy that is not registered here: records of other
    installations may name one."""
    return strategy not in STRATEGIES or STRATEGIES[strategy].traits["needs_scores"]


class SourceSchedule(NamedTuple):
    """Whose predictions score the tokens in which epoch (paper, section 2.2).

    first: the source before the epoch `switch`, None = random masks; then: the source from it on; switch: counted from
    1, None = never. Sources are names in SOURCES.
    """

    first: Optional[str]
    then: str = "self"
    switch: Optional[int] = None

    def at(self, epoch: int) -> Optional[str]:
        """The source of an epoch, counted from 1; None = random masks."""
        return self.then if self.switch is not None and epoch >= self.switch else self.first

    def used(self) -> Set[str]:
        """The sources of all epochs."""
        return {source for source in (self.at(1), self.at(self.switch or 1)) if source is not None}

    def first_epoch_of(self, source: str) -> int:
        """The first epoch with this source."""
        return 1 if self.at(1) == source or self.switch is None else self.switch


RANDOM = SourceSchedule(None)


def epoch_of_self_entropies(epoch: int, begin: int, every: int = 1, shards: int = 1) -> int:
    """The epoch whose self entropies are used in this one; the same epoch where they are computed anew.

    Args:
        epoch: counted from 1.
        begin: first epoch of self-masking.
        every: compute them in one of this many passes over a shard.
        shards: epochs in a pass over all the data.
    """
    passes = max(0, epoch - begin) // shards
    return epoch - passes % every * shards


def total_updates(max_update: int, max_epoch: int, updates_per_epoch: float) -> Optional[float]:
    """The number of updates of a run; None where no end is known.

    Args:
        max_update: where the run ends; 0 = no such end.
        max_epoch: likewise; whichever comes first counts.
        updates_per_epoch: how many make an epoch.
    """
    return min((total for total in (max_update, max_epoch * updates_per_epoch) if total > 0), default=None)


def distils(epoch: int, kd_weight: float, kd_start_epoch: int) -> bool:
    """Whether distillation is on in this epoch."""
    return kd_weight > 0 and epoch >= kd_start_epoch
