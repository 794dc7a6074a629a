"""Every place where the plug-in changes something of fairseq itself, and why. Nothing else in the package does.

training_step   what an update does beside the update
late_norm       are the gradients finite? asked for an update later
late_log        numbers stay on the device until the log is read
"""

import argparse
import atexit
import contextlib
import gc
import importlib
import itertools
import logging
import os
import queue
import shutil
import sys
import threading
import time
import warnings
import weakref

import fairseq.models
import torch
import torch.distributed.nn.functional  # its default arguments would hold the groups, were it imported after them
from fairseq import checkpoint_utils
from fairseq.data import iterators
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.logging import metrics
from fairseq.models import distributed_fairseq_model
from fairseq.trainer import Trainer
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError
from . import late_log, late_norm, training_step

logger = logging.getLogger(__name__)


def apply_fairseq_fixes():
    """All but `make_room_for_bert_base`, which `models` asks for."""
    allow_harmless_classes_in_checkpoints()
    copy_checkpoints_atomically()
    say_that_a_checkpoint_cannot_be_written()
    remember_patience()
    listen_to_torchrun()
    wrap_cpu_models_without_device_ids()
    send_objects_between_ranks()
    leave_process_groups_before_python_ends()
    stop_reading_ahead_before_python_ends()
    look_at_checkpoints_and_limits_before_training()
    tell_schedulers_the_time()
    silence_warnings_of_fairseqs_own_calls()
    training_step.apply()
    late_norm.apply()
    late_log.apply()


def make_room_for_bert_base():
    """fairseq's legacy `masked_lm` model holds the arch name `bert_base`, and a name can be registered once only."""
    legacy = fairseq.models.ARCH_MODEL_NAME_REGISTRY.pop("bert_base", None)
    if legacy is None:
        return
    del fairseq.models.ARCH_MODEL_REGISTRY["bert_base"]
    del fairseq.models.ARCH_CONFIG_REGISTRY["bert_base"]
    fairseq.models.ARCH_MODEL_INV_REGISTRY[legacy].remove("bert_base")
    logger.info(f"--arch bert_base is entropy_mask_plugin's BERT, not fairseq's legacy model '{legacy}'")


def allow_harmless_classes_in_checkpoints():
    """Checkpoints of fairseq's older models hold an argparse.Namespace, which torch.load(weights_only=True) refuses."""
    torch.serialization.add_safe_globals([argparse.Namespace])


def copy_checkpoints_atomically():
    """fairseq writes checkpoint1.pt atomically and then copies it over checkpoint_last.pt byte by byte: a run killed in
    that moment could not be resumed."""

    fairseq_copy = PathManager.copy

    def copy(src_path, dst_path, overwrite=False):
        if PathManager.path_requires_pathmanager(dst_path):  # not on this machine's disks
            return fairseq_copy(src_path, dst_path, overwrite)
        with no_leftovers(dst_path):
            shutil.copyfile(src_path, dst_path + ".tmp")
            os.replace(dst_path + ".tmp", dst_path)
        return dst_path

    PathManager.copy = staticmethod(copy)


def say_that_a_checkpoint_cannot_be_written():
    """On a full disk fairseq leaves checkpoint.pt.tmp behind, after a page of traceback."""
    fairseq_save = checkpoint_utils.torch_persistent_save

    def save(obj, filename, async_write=False):
        with no_leftovers(filename):
            fairseq_save(obj, filename, async_write)

    checkpoint_utils.torch_persistent_save = save


@contextlib.contextmanager
def no_leftovers(filename):
    try:
        yield
    except (OSError, RuntimeError) as error:
        if os.path.exists(filename + ".tmp"):
            os.remove(filename + ".tmp")
        raise UsageError(f"--save-dir: {filename} cannot be written ({error})") from error


def listen_to_torchrun():
    """fairseq takes the number of GPUs for the number of ranks, and looks at torchrun's environment only where that is
    above 1: on a CPU, N processes would train N copies of the model, each overwriting the others' checkpoints."""
    infer = distributed_utils.infer_init_method

    def infer_init_method(cfg, force_distributed=False):
        alone = cfg.distributed_world_size == 1 and cfg.distributed_init_method is None and not cfg.tpu
        if started_by_torchrun() and alone:
            cfg.distributed_init_method = "env://"
            cfg.distributed_world_size = int(os.environ["WORLD_SIZE"])
            cfg.distributed_rank = int(os.environ["RANK"])
            cfg.device_id = int(os.environ["LOCAL_RANK"])
            cfg.distributed_no_spawn = True
        infer(cfg, force_distributed)

    distributed_utils.infer_init_method = infer_init_method


def started_by_torchrun():
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def wrap_cpu_models_without_device_ids():
    """fairseq gives every model a device id, with which torch's DistributedDataParallel refuses a model on the CPU."""

    def wrap(module, device_ids, output_device, **kwargs):
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        return DistributedDataParallel(module, device_ids, output_device, **kwargs)

    distributed_fairseq_model.DistributedDataParallel = wrap


def send_objects_between_ranks():
    """On resume, fairseq's rank 0 sends what it read to the others through torch.save and torch.load, which since
    torch 2.6 refuses the configuration in it. It is rank 0's memory and no file, so torch's own broadcast may do it."""

    def broadcast(obj, src_rank, group, dist_device):
        objects = [obj]
        torch.distributed.broadcast_object_list(objects, src=src_rank, group=group, device=dist_device)
        return objects[0]

    distributed_utils._broadcast_object_slow = broadcast


def leave_process_groups_before_python_ends():
    """gloo's threads let go of a collective's tensors some time after it. Where Python ends before them, the process is
    aborted ("terminate called without an active exception") after a training that has succeeded. These threads end
    with the last reference to their group. (Ranks that fairseq starts itself are multiprocessing's, which end with
    os._exit.)"""
    fairseq_call_main = distributed_utils.call_main

    def call_main(cfg, main, **kwargs):
        try:
            fairseq_call_main(cfg, main, **kwargs)
        except SystemExit as end:
            if end.code:  # other ranks may wait in a collective for this one, and its threads with them
                raise
        if torch.distributed.is_initialized():
            vars(distributed_utils.get_global_group).clear()
            torch.distributed.destroy_process_group()
            gc.collect()  # the trainer's model, in a cycle

    distributed_utils.call_main = call_main


def stop_reading_ahead_before_python_ends():
    """fairseq reads batches ahead in a daemon thread. Where Python ends while that thread is inside torch, the process
    is aborted ("terminate called without an active exception") after a training that has succeeded."""
    ended, readers = threading.Event(), weakref.WeakSet()

    class Reader(iterators.BackgroundConsumer):
        def __init__(self, batches, source, *more):
            super().__init__(batches, itertools.takewhile(lambda _: not ended.is_set(), source), *more)
            readers.add(self)

    def stop():
        ended.set()
        for reader in list(readers):
            while reader.is_alive():  # it may be waiting for room in a full queue
                with contextlib.suppress(queue.Empty):
                    reader._queue.get(timeout=0.05)

    iterators.BackgroundConsumer = Reader
    atexit.register(stop)


def look_at_checkpoints_and_limits_before_training():
    """Whatever the task, fairseq trains from random weights where --restore-file does not exist, answers a checkpoint
    of other sizes with a page of traceback, and adds an update when a run that reached --max-update or the end of its
    --stop-time-hours is started again.
    """
    fairseq_load = checkpoint_utils.load_checkpoint

    def load_checkpoint(cfg, trainer, **kwargs):
        if cfg.restore_file != "checkpoint_last.pt" and not PathManager.exists(cfg.restore_file):
            raise UsageError(f"--restore-file: {cfg.restore_file} does not exist, expected a checkpoint file")
        try:
            loaded = fairseq_load(cfg, trainer, **kwargs)
        except Exception as error:  # fairseq raises nothing more precise
            if not str(error).startswith("Cannot load model parameters from checkpoint"):
                raise
            raise UsageError(f"{str(error).split(';')[0]}: it is of another model than the flags describe, expected "
                             "the --arch and the flags of the model that it was trained with") from error
        begin_the_account(cfg, trainer)
        limits, hours = trainer.cfg.optimization, trainer._previous_training_time / 3600
        if 0 < limits.max_update <= trainer.get_num_updates():
            logger.info(f"--max-update {limits.max_update} is reached: nothing to do")
            sys.exit(0)
        if 0 < limits.stop_time_hours < hours:
            logger.info(f"--stop-time-hours {limits.stop_time_hours} are over ({hours:.4f}): nothing to do")
            sys.exit(0)
        return loaded

    checkpoint_utils.load_checkpoint = load_checkpoint


def begin_the_account(cfg, trainer):
    """Of training time. fairseq begins with the start-up, in which an entropy cache may be built that other runs read,
    and charges a new run with the time of the one whose weights it starts from."""
    trainer._start_time = time.time()
    if cfg.reset_optimizer or cfg.finetune_from_model and not goes_on(cfg):
        trainer._previous_training_time = 0
    if trainer._optimizer is not None:
        trainer.lr_step_update()  # a checkpoint was loaded, and the rate with it


def goes_on(cfg):
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


def remember_patience():
    """fairseq counts the validations without improvement on a function, where a resumed run begins anew: it would train
    longer than an uninterrupted one. Checkpoints hold the count, and a run that was at its end stays there."""

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
            logger.info(f"--patience {patience} is reached: nothing to do")
            sys.exit(0)
        return extra_state

    Trainer.save_checkpoint, Trainer.load_checkpoint = save_checkpoint, load_checkpoint


def patience_counter():
    """The function, in the module that runs: under `python -m fairseq_cli.train`, that is __main__."""
    main = sys.modules["__main__"]
    if hasattr(main, "should_stop_early"):
        return main.should_stop_early
    return importlib.import_module("fairseq_cli.train").should_stop_early


def silence_warnings_of_fairseqs_own_calls():
    """It calls hydra and torch's data loader in ways of older versions: two dozen lines that no user can do anything
    about."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"hydra\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.utils\.data\.")
    warnings.filterwarnings("ignore", message="(?s).*(is validated against ConfigStore schema|version_base parameter)")


def refuse_unconnected_ranks():
    """Under fairseq-hydra-train, this module is imported after fairseq has looked for other ranks."""
    if started_by_torchrun() and not torch.distributed.is_initialized():
        raise UsageError(
            "torchrun: several processes found that do not know of each other, expected fairseq-train: each would "
            "train a model of its own and overwrite the others' checkpoints"
        )
