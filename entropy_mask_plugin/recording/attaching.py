"""Which recording a training writes, and which it reads."""

import logging
import os
from typing import Any

import torch

from ..system.atomic_files import make_folder
from ..system.errors import UsageError
from .facts import Facts, check_facts, facts_of_masks, path_of, read_facts, write_facts
from .reader import Recording
from .replay import Replay
from .writer import MaskRecorder

logger = logging.getLogger(__name__)


def attach_recordings(task: Any, samples: Any, split: str, epoch: int) -> None:
    """Give the task its `recorder` and `replay`, when the data of an epoch are loaded.

    Args:
        task: an EntropyMaskedLMTask that trains.
        samples: the data, a `training.blocks.Samples`.
        split: its name.
        epoch: counted from 1.
    Raises:
        UsageError: a recording is of other data or blocks, belongs to another run, or cannot be read or written.
    """
    cfg = task.cfg
    if not (cfg.record_masks or cfg.replay_masks):
        return  # saves reading all the data for its digest
    facts = facts_of_masks(cfg, task.dictionary, split, epoch, samples.sizes)
    if cfg.replay_masks:
        if task.replay is None:
            task.replay = Replay(Recording(cfg.replay_masks, "--replay-masks"))
            warn_of_missing_epochs(task.replay.recording, cfg.max_epoch or 0)
        check_facts(task.replay.recording.facts, facts, cfg.replay_masks, "--replay-masks")
    if cfg.record_masks:
        resumes = task.restored is not None and task.restored.flag == "--save-dir"
        begin_recording(cfg.record_masks, os.path.abspath(cfg.save_dir), facts, resumes)
        if task.recorder is None:
            task.recorder = MaskRecorder(cfg.record_masks, *rank_and_ranks())


def warn_of_missing_epochs(recording: Recording, max_epoch: int) -> None:
    """Log where the run may have more epochs than the recording; --max-update or --patience may end it before that.
    max_epoch: of the run, 0 = no such end."""
    last = max(recording.epochs(), default=0)
    if max_epoch > last:
        logger.warning(f"--replay-masks: {recording.folder} has masks of {last} epochs, expected --max-epoch "
                       f"({max_epoch}): this run cannot go on after epoch {last}")


def begin_recording(folder: str, run: str, facts: Facts, resumes: bool) -> None:
    """Check that a recording may be written, and write its facts.

    Args:
        folder: the recording, new or of this run.
        run: the run's folder; where it was moved, it may resume, but not start anew: that would overwrite a recording.
        facts: of the data.
        resumes: whether the run continues from its own checkpoint.
    Raises:
        UsageError: the folder is another run's, the data are others, or the folder cannot be created.
    """
    if os.path.exists(path_of(folder)):
        content = read_facts(folder, "--record-masks")
        if content["run"] != run and not resumes:
            raise UsageError(f"--record-masks: {folder} holds the recording of {content['run']}, expected a new folder")
        check_facts(content, facts, folder, "--record-masks")
    make_folder(folder, "--record-masks")
    if rank_and_ranks()[0] == 0:
        write_facts(folder, run, facts)


def rank_and_ranks() -> tuple[int, int]:
    """This process's number among those that train, and how many there are."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
