"""Entropies on disk become part of the batches of a training."""

import os
from typing import Any, Dict

from ..sources import models_read
from . import fingerprint
from .building import build
from .self_store import SelfEntropyStore
from .store import EntropyStore


def attach_entropies(task: Any, samples: Any, split: str, epoch: int, length: int) -> None:
    """Make each batch carry the entropies on disk that may be needed in this epoch.

    Args:
        task: an EntropyMaskedLMTask.
        samples: the data of the epoch, a `training.blocks.Samples`.
        split: its name.
        epoch: counted from 1.
        length: positions of a block, the longest one's.
    """
    cfg = task.cfg
    by_teacher = "teacher" in models_read(task.sources_by_epoch.at(epoch)) and task.teacher is not None
    keeps_own = cfg.self_entropy_every > 1 and task.trains and not cfg.replay_masks
    if not (by_teacher or keeps_own):
        return  # saves reading all the data for its digest
    facts = fingerprint.facts_of_data(cfg, task.dictionary, split, epoch, samples.sizes, length)
    if by_teacher:
        samples.entropies = filled_cache(task, samples, facts)
    if keeps_own:
        begin = [cfg.seed, cfg.restore_file, cfg.finetune_from_model]
        facts = {**facts, "run": os.path.abspath(cfg.save_dir), "begin": begin}
        folder = os.path.join(cfg.entropy_cache, "self-" + fingerprint.name_of(facts))
        samples.self_entropies = SelfEntropyStore(folder, facts, samples.blocks.sizes)


def filled_cache(task: Any, samples: Any, facts: Dict[str, Any]) -> EntropyStore:
    """The teacher's entropies on these samples, computed where they are missing. facts: of the data."""
    facts = {**facts, **fingerprint.facts_of_teacher(task.teacher)}
    store = EntropyStore(os.path.join(task.cfg.entropy_cache, fingerprint.name_of(facts)), facts, samples.sizes)
    device = task.scoring_device()
    build(store, samples, task.max_positions(), lambda clean: task.scorer.exact(task.teacher_on(device), clean), device)
    return store
