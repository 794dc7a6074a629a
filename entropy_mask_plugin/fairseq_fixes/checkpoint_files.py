"""Checkpoints: what they may contain, how they are written, and what is checked before a run resumes from one."""

import argparse
import ast
import contextlib
import functools
import importlib
import logging
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer

from ..checkpoints.reading import checkpoint_to_resume_from
from ..checkpoints.structure import UNFIT
from ..checkpoints.writing import write_checkpoint
from ..system.atomic_files import atomic_path
from ..system.errors import UsageError, naming, require
from ..system.text import one_line
from .clock import start_training_clock

logger = logging.getLogger(__name__)

LEARNED = "learned_state"  # key in extra_state: what a score has learned


def allow_harmless_classes_in_checkpoints() -> None:
    """Checkpoints of fairseq's older models contain an argparse.Namespace, refused by torch.load(weights_only=True)."""
    torch.serialization.add_safe_globals([argparse.Namespace])


def write_checkpoints_atomically() -> None:
    """Where writing fails, fairseq tries twice more, behind what is in the file already, which then gets its final name
    and cannot be read. On a full disk it prints a long traceback and leaves checkpoint.pt.tmp behind. And it copies
    checkpoint1.pt over checkpoint_last.pt in place: a run killed in the meantime could not be resumed."""

    fairseq_save, fairseq_copy = checkpoint_utils.torch_persistent_save, PathManager.copy

    def save(obj, filename, async_write=False):
        if async_write or PathManager.path_requires_pathmanager(filename):  # a remote path
            return fairseq_save(obj, filename, async_write)
        with atomic_checkpoint(filename) as tmp:
            write_checkpoint(tmp, obj)

    def copy(src_path, dst_path, overwrite=False):
        if PathManager.path_requires_pathmanager(dst_path):
            return fairseq_copy(src_path, dst_path, overwrite)
        with atomic_checkpoint(dst_path) as tmp:
            shutil.copyfile(src_path, tmp)
        return dst_path

    checkpoint_utils.torch_persistent_save, PathManager.copy = save, staticmethod(copy)


@contextlib.contextmanager
def atomic_checkpoint(filename: str) -> Iterator[str]:
    """`atomic_path`, whose UsageError begins with the flag; every OSError becomes one."""
    try:
        with atomic_path(filename) as tmp:
            yield tmp
    except UsageError as error:
        raise UsageError(f"--save-dir: {error}") from error
    except OSError as error:
        raise UsageError(f"--save-dir: {filename} cannot be written ({error})") from error


def name_unreadable_checkpoints() -> None:
    """Where the disk fails while fairseq reads a checkpoint, the error does not say which."""
    fairseq_load = checkpoint_utils.load_checkpoint_to_cpu

    def load_checkpoint_to_cpu(path, *arguments, **named):
        with naming(path):
            return fairseq_load(path, *arguments, **named)

    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu


def validate_before_training() -> None:
    """For any task, fairseq trains from random weights where --restore-file does not exist, prints a long traceback for
    a checkpoint of other sizes, another optimizer or criterion, and adds an update when a run that reached --max-update
    or --stop-time-hours is started again.
    """
    fairseq_load = checkpoint_utils.load_checkpoint

    def load_checkpoint(cfg, trainer, **kwargs):
        if cfg.restore_file != "checkpoint_last.pt" and not PathManager.exists(cfg.restore_file):
            raise UsageError(f"--restore-file: {cfg.restore_file} does not exist, expected a checkpoint file")
        check_what_to_reset(cfg)
        try:
            loaded = fairseq_load(cfg, trainer, **kwargs)
        except (UsageError, torch.OutOfMemoryError):
            raise
        except UNFIT as error:
            resumed = checkpoint_to_resume_from(cfg)
            if resumed is None:  # the data are read here, too
                raise
            reason = f"{type(error).__name__}: {one_line(str(error))[:300]}"
            raise UsageError(f"{': '.join(resumed)} cannot be resumed from ({reason}), expected a checkpoint of the "
                             "same flags") from error
        except Exception as error:  # fairseq raises nothing more precise
            if not str(error).startswith("Cannot load model parameters from checkpoint"):
                raise
            raise UsageError(f"{str(error).split(';')[0]}: it is of another model than the flags describe, expected "
                             "the --arch and the flags that it was trained with") from error
        start_training_clock(cfg, trainer)
        limits, hours = trainer.cfg.optimization, trainer._previous_training_time / 3600
        if 0 < limits.max_update <= trainer.get_num_updates():
            logger.info(f"--max-update {limits.max_update} is reached: nothing left to do")
            sys.exit(0)
        if 0 < limits.stop_time_hours < hours:
            logger.info(f"--stop-time-hours {limits.stop_time_hours} is reached ({hours:.4f}): nothing left to do")
            sys.exit(0)
        return loaded

    checkpoint_utils.load_checkpoint = load_checkpoint


def check_what_to_reset(cfg: Any) -> None:
    """fairseq refuses these flags in a traceback, in which it prints all others. cfg: its CheckpointConfig."""
    others = [name for name in ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
              if getattr(cfg, name)]
    others += ["restore_file"] if cfg.restore_file != "checkpoint_last.pt" else []
    if cfg.finetune_from_model and others:
        raise UsageError(f"--finetune-from-model together with --{others[0].replace('_', '-')} found, expected one of "
                         "them: it resets optimizer, scheduler, meters and data")
    try:
        overrides = ast.literal_eval(cfg.optimizer_overrides)
    except (ValueError, SyntaxError, TypeError):
        overrides = None
    require("--optimizer-overrides", cfg.optimizer_overrides, isinstance(overrides, dict), "a dict, such as {'lr': 1}")


def save_plain_numbers() -> None:
    """fairseq keeps the best score of a run as its metric computed it: F1, MCC and correlations are numpy's numbers,
    with which torch.load(weights_only=True) refuses the checkpoint."""
    fairseq_save = checkpoint_utils.torch_persistent_save

    def save(obj, filename, async_write=False):
        if isinstance(obj, dict):
            obj = {key: plain_numbers(value) if key == "extra_state" else value for key, value in obj.items()}
        fairseq_save(obj, filename, async_write)

    checkpoint_utils.torch_persistent_save = save


def plain_numbers(value: Any) -> Any:
    """The same dicts and lists, with Python's numbers in place of numpy's."""
    if isinstance(value, dict):
        return {key: plain_numbers(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_numbers, value))
    return value.item() if isinstance(value, np.generic) else value


def save_patience() -> None:
    """fairseq counts validations without improvement in an attribute of a function, which is lost on resume: a resumed
    run would train longer than an uninterrupted one. Checkpoints keep the count, and a finished run stays finished."""

    fairseq_save, fairseq_load = Trainer.save_checkpoint, Trainer.load_checkpoint

    def save_checkpoint(self, filename, extra_state):
        counted = {key: value for key, value in vars(patience_counter()).items() if key in ("best", "num_runs")}
        fairseq_save(self, filename, {**extra_state, "patience": counted})

    def load_checkpoint(self, filename, reset_optimizer=False, *arguments, **named):
        extra_state = fairseq_load(self, filename, reset_optimizer, *arguments, **named)
        counted = (extra_state or {}).get("patience", {}) if not reset_optimizer else {}
        vars(patience_counter()).update(counted)
        patience = self.cfg.checkpoint.patience
        if 0 < patience <= counted.get("num_runs", 0):
            logger.info(f"--patience {patience} is reached: nothing left to do")
            sys.exit(0)
        return extra_state

    Trainer.save_checkpoint, Trainer.load_checkpoint = save_checkpoint, load_checkpoint


def save_learned_state() -> None:
    """fairseq's trainer saves a task's state_dict, but never reads it. Only `load_model_ensemble` does, which loads
    teachers and models to validate or export: these need nothing of what a masking policy has learned. So it is kept in
    the trainer's own state, as fairseq keeps an EMA, and is restored with the optimizer."""

    fairseq_save, fairseq_load = Trainer.save_checkpoint, Trainer.load_checkpoint

    def save_checkpoint(self, filename, extra_state):
        learned = self.task.learned_state() if hasattr(self.task, "learned_state") else {}
        return fairseq_save(self, filename, {**extra_state, LEARNED: learned} if learned else extra_state)

    def load_checkpoint(self, filename, reset_optimizer=False, *arguments, **named):
        extra_state = fairseq_load(self, filename, reset_optimizer, *arguments, **named)
        if extra_state is not None and not reset_optimizer and hasattr(self.task, "load_learned_state"):
            self.task.load_learned_state(extra_state.get(LEARNED, {}))
        return extra_state

    Trainer.save_checkpoint, Trainer.load_checkpoint = save_checkpoint, load_checkpoint


def save_no_crash_file_after_a_usage_error() -> None:
    """fairseq writes crash.pt, as large as a checkpoint, whatever ends an update: also what the user has to repair."""

    fairseq_save = Trainer.save_checkpoint

    def save_checkpoint(self, filename, extra_state):
        if not isinstance(sys.exc_info()[1], UsageError):
            return fairseq_save(self, filename, extra_state)

    Trainer.save_checkpoint = save_checkpoint


def announce_checkpoints() -> None:
    """fairseq asks a task for its part of a checkpoint on the first rank alone. A task with the method
    `before_checkpoint` is told on every rank, before anything is written."""
    fairseq_save = checkpoint_utils.save_checkpoint

    @functools.wraps(fairseq_save)
    def save_checkpoint(cfg, trainer, *arguments, **named):
        if hasattr(trainer.task, "before_checkpoint"):
            trainer.task.before_checkpoint()
        return fairseq_save(cfg, trainer, *arguments, **named)

    checkpoint_utils.save_checkpoint = save_checkpoint


def begin_average_with_restored_weights() -> None:
    """With --store-ema and a checkpoint without an average, of another run or of an import, fairseq means to begin the
    average with the checkpoint's weights, but has deleted them by then: KeyError 'model'."""

    fairseq_load = Trainer.load_checkpoint

    def load_checkpoint(self, *arguments, **named):
        read = checkpoint_utils.load_checkpoint_to_cpu

        def read_with_average(*arguments, **named):
            state = read(*arguments, **named)
            if self.cfg.ema.store_ema and "ema" not in state["extra_state"]:
                logger.info("--store-ema: the checkpoint has no average, it begins with the checkpoint's weights")
                state["extra_state"]["ema"] = state["model"]
            return state

        checkpoint_utils.load_checkpoint_to_cpu = read_with_average
        try:
            return fairseq_load(self, *arguments, **named)
        finally:
            checkpoint_utils.load_checkpoint_to_cpu = read

    Trainer.load_checkpoint = load_checkpoint


def patience_counter() -> Any:
    """The function `should_stop_early` of the running module: under `python -m fairseq_cli.train`, that is __main__."""
    main = sys.modules["__main__"]
    if hasattr(main, "should_stop_early"):
        return main.should_stop_early
    return importlib.import_module("fairseq_cli.train").should_stop_early
