"""Training time: when it starts, and what uses it."""

import os
import time
from typing import Any

from fairseq.logging import metrics
from fairseq.trainer import Trainer


def start_training_clock(cfg: Any, trainer: Trainer) -> None:
    """Start counting training time. fairseq also counts the start-up, during which an entropy cache may be built that
    other runs share, and for a new run the training time of the one whose weights it starts from.

    Args:
        cfg: fairseq's CheckpointConfig.
        trainer: after a checkpoint, if any, was loaded.
    """
    trainer._start_time = time.time()
    if cfg.reset_optimizer or cfg.finetune_from_model and not has_own_checkpoint(cfg):
        trainer._previous_training_time = 0
    if trainer._optimizer is not None:
        trainer.lr_step_update()  # a checkpoint was loaded, with its learning rate


def has_own_checkpoint(cfg: Any) -> bool:
    """Whether the run resumes from its own checkpoint. cfg: fairseq's CheckpointConfig."""
    return os.path.exists(os.path.join(cfg.save_dir, "checkpoint_last.pt"))


def pass_training_time_to_schedulers() -> None:
    """fairseq's schedulers see only the number of updates. One with an attribute `seconds` gets the training time that
    fairseq keeps in checkpoints and stops by. The log gets it too: fairseq's own meters restart at zero on resume."""
    fairseq_step = Trainer.lr_step_update

    def lr_step_update(self):
        seconds = training_time(self)
        metrics.log_scalar("hours", seconds / 3600, weight=0, priority=860, round=5)
        if hasattr(self.lr_scheduler, "seconds"):
            self.lr_scheduler.seconds = seconds
        return fairseq_step(self)

    Trainer.lr_step_update = lr_step_update


def training_time(trainer: Trainer) -> float:
    """Seconds, the same on all ranks. fairseq synchronizes them in each step; before the first one, the ranks share
    only the time in the checkpoint."""
    if trainer.data_parallel_world_size > 1 and trainer._cumulative_training_time is None:
        return trainer._previous_training_time
    return trainer.cumulative_training_time()
