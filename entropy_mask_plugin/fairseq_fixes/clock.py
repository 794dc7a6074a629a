"""Training time: when it starts, and who is told."""

import os
import time

from fairseq.logging import metrics
from fairseq.trainer import Trainer


def start_training_clock(cfg, trainer):
    """Of training time. fairseq begins with the start-up, in which an entropy cache may be built that other runs read,
    and charges a new run with the time of the one whose weights it starts from."""
    trainer._start_time = time.time()
    if cfg.reset_optimizer or cfg.finetune_from_model and not has_own_checkpoint(cfg):
        trainer._previous_training_time = 0
    if trainer._optimizer is not None:
        trainer.lr_step_update()  # a checkpoint was loaded, and the rate with it


def has_own_checkpoint(cfg):
    """Whether the run has a checkpoint of its own."""
    return os.path.exists(os.path.join(cfg.save_dir, "checkpoint_last.pt"))


def tell_schedulers_the_time():
    """fairseq's schedulers know the number of updates only. One that has `seconds` gets the training time that fairseq
    keeps in checkpoints and stops by; and so does the log, where a resumed run's own clocks begin at zero."""
    fairseq_step = Trainer.lr_step_update

    def lr_step_update(self):
        seconds = training_time(self)
        metrics.log_scalar("hours", seconds / 3600, weight=0, priority=860, round=5)
        if hasattr(self.lr_scheduler, "seconds"):
            self.lr_scheduler.seconds = seconds
        return fairseq_step(self)

    Trainer.lr_step_update = lr_step_update


def training_time(trainer):
    """Seconds, the same on all ranks. fairseq agrees on them in each step; before the first one, what a checkpoint said
    is all that every rank knows."""
    if trainer.data_parallel_world_size > 1 and trainer._cumulative_training_time is None:
        return trainer._previous_training_time
    return trainer.cumulative_training_time()
