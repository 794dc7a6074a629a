"""Whose entropies choose the masks, and when: functions of the epoch or update number alone, so nothing is saved.

An epoch is fairseq's: one pass over one shard, counted from 1.
"""

from .strategies import STRATEGIES


def entropy_source(strategy, epoch, self_mask_from_epoch=None):
    """Who scores the tokens in this epoch (paper, section 2.2).

    Args:
        strategy: a name in STRATEGIES.
        self_mask_from_epoch: first epoch of self-masking: 1 = cold start, 2 = the paper's `init`, None = never.
    Returns:
        "teacher", "self", or None where the strategy needs no entropies.
    """
    if not STRATEGIES[strategy].traits["needs_scores"]:
        return None
    return "self" if self_mask_from_epoch is not None and epoch >= self_mask_from_epoch else "teacher"


def epoch_of_self_entropies(epoch, self_mask_from_epoch, every=1, shards=1):
    """The epoch whose self entropies count in this one: itself, where they are computed anew.

    Args:
        every: compute them in one of so many passes over a shard.
        shards: epochs that a pass over all the data takes.
    """
    passes = (epoch - self_mask_from_epoch) // shards
    return epoch - passes % every * shards


def needs_teacher(strategy, self_mask_from_epoch=None):
    """Whether any epoch takes its entropies from the teacher: the first one does, or none."""
    return entropy_source(strategy, 1, self_mask_from_epoch) == "teacher"


def distils(epoch, kd_weight, kd_start_epoch):
    """Whether distillation is on in this epoch."""
    return kd_weight > 0 and epoch >= kd_start_epoch
