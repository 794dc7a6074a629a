"""What fairseq's trainer does in each update beside the update: less of it, and without waiting for the device.

A host that asks the device for a number waits until everything that it has asked for before is done, and the device
then waits for the host. fairseq asks seven times an update: whether the gradients are finite, twice for constants, and
for each number of the log, whether or not anybody reads it.
"""

import contextlib
import math
from types import SimpleNamespace

import torch
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

from ..errors import UsageError

MOST_WAITING = 1000  # updates whose numbers may wait on the device
READERS = ("get_smoothed_value", "get_smoothed_values", "get_meter", "get_meters", "state_dict", "load_state_dict",
           "reset_meter", "reset_meters")

_waiting = []


def apply():
    seed_each_update_directly()
    read_settings_as_plain_attributes()
    log_when_the_log_is_read()
    look_at_the_gradients_an_update_later()


def seed_each_update_directly():
    """fairseq saves the states of all generators, which nobody restores, before it seeds them, and torch.manual_seed
    walks through every kind of device: a millisecond."""
    fairseq_seed = Trainer._set_seed

    def _set_seed(self):
        if self.tpu:
            return fairseq_seed(self)
        seed = self.cfg.common.seed + self.get_num_updates()
        torch.default_generator.manual_seed(seed)
        if self.cuda:
            torch.cuda.manual_seed(seed)

    Trainer._set_seed = _set_seed


def read_settings_as_plain_attributes():
    """An update reads 35 settings of the trainer's, each of which takes OmegaConf ten microseconds. Checkpoints hold
    OmegaConf's as ever."""
    fairseq_step, fairseq_state = Trainer.train_step, Trainer.state_dict

    def train_step(self, samples, raise_oom=False):
        self.optimizer, self.lr_scheduler  # built on first use, with OmegaConf's
        with using(self, plain_settings(self)):
            return fairseq_step(self, samples, raise_oom)

    def state_dict(self):
        with using(self, getattr(self, "original_cfg", self.cfg)):  # also where an update fails, for crash.pt
            return fairseq_state(self)

    Trainer.train_step, Trainer.state_dict = train_step, state_dict


def plain_settings(trainer):
    """The trainer's settings as nested namespaces, made once."""
    if OmegaConf.is_config(trainer.cfg) and trainer.cfg is not getattr(trainer, "original_cfg", None):
        trainer.original_cfg = trainer.cfg
        trainer.plain_cfg = as_namespace(OmegaConf.to_container(trainer.cfg, resolve=True))
    return trainer.plain_cfg


def as_namespace(x):
    return SimpleNamespace(**{key: as_namespace(value) for key, value in x.items()}) if isinstance(x, dict) else x


@contextlib.contextmanager
def using(trainer, cfg):
    """Within, the trainer's settings are these."""
    before, trainer.cfg = trainer.cfg, cfg
    try:
        yield
    finally:
        trainer.cfg = before


# ---- the log


class Update:
    """The numbers of one update, some of them on the device, and the meters that they are for."""

    def __init__(self, trainer, logging_outputs, sample_size, grad_norm):
        self.trainer, self.number = trainer, trainer.get_num_updates()
        self.logging_outputs, self.sample_size = logging_outputs, sample_size
        self.is_late = may_be_late(trainer, trainer.latest_norm)
        self.grad_norm = trainer.latest_norm if self.is_late else grad_norm
        self.aggregators = metrics._active_aggregators.copy()

    def tensors(self):
        values = [self.sample_size, self.grad_norm, *(v for log in self.logging_outputs for v in log.values())]
        return [value for value in values if isinstance(value, torch.Tensor)]


def log_when_the_log_is_read():
    """The numbers of an update stay on the device until a meter is read, reset or saved: with fairseq-train, each
    --log-interval, at validations, checkpoints and the end of an epoch. Then they come in one transfer."""
    fairseq_log = Trainer._reduce_and_log_stats

    def _reduce_and_log_stats(self, logging_outputs, sample_size, grad_norm=None):
        if grad_norm is None or self.tpu:  # of a validation
            return fairseq_log(self, logging_outputs, sample_size, grad_norm)
        _waiting.append(Update(self, logging_outputs, sample_size, grad_norm))
        if len(_waiting) >= MOST_WAITING:
            log_what_waits()
        return {}  # fairseq-train looks whether there is something, not what

    def log_what_waits():
        updates = _waiting.copy()
        _waiting.clear()
        on_host = numbers(tensor for update in updates for tensor in update.tensors())
        for update in updates:
            with into(update.aggregators):
                log_update(update, on_host)

    def log_update(update, on_host):
        norm, clip_norm = on_host(update.grad_norm), update.trainer.cfg.optimization.clip_norm
        if update.is_late:
            refuse_infinite(norm, update.number)
        if math.isfinite(norm):
            metrics.log_speed("ups", 1.0, priority=100, round=2)
            metrics.log_scalar("gnorm", norm, priority=400, round=3)
        if math.isfinite(norm) and clip_norm > 0:
            metrics.log_scalar("clip", 100.0 * (norm > clip_norm), priority=500, round=1)
        logs = [{key: on_host(value) for key, value in log.items()} for log in update.logging_outputs]
        fairseq_log(update.trainer, logs, on_host(update.sample_size))

    def logging_first(read):
        def after_logging(*arguments, **named):
            if _waiting:
                log_what_waits()
            return read(*arguments, **named)

        return after_logging

    fairseq_reset = metrics.reset

    def reset():
        _waiting.clear()
        fairseq_reset()

    Trainer._reduce_and_log_stats, metrics.reset = _reduce_and_log_stats, reset
    for name in READERS:
        setattr(metrics, name, logging_first(getattr(metrics, name)))


def numbers(tensors):
    """A function from a tensor of one element to its number, or a number to itself; one transfer for all of a type."""
    by_type = {}
    for tensor in tensors:
        by_type.setdefault((tensor.dtype, tensor.device), {})[id(tensor)] = tensor.reshape(())
    values = {}
    for same in by_type.values():
        values.update(zip(same, torch.stack(list(same.values())).tolist()))
    return lambda value: values.get(id(value), value)


@contextlib.contextmanager
def into(aggregators):
    """Log into these aggregators instead of those of now."""
    now, metrics._active_aggregators = metrics._active_aggregators, aggregators
    try:
        yield
    finally:
        metrics._active_aggregators = now


# ---- the gradients


class OnItsWay:
    """A number that the device has not computed yet; the host asks for it when it has long been there."""

    def __init__(self, tensor):
        self.value = torch.empty((), pin_memory=True).copy_(tensor, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def number(self):
        self.arrived.synchronize()
        return float(self.value)


def look_at_the_gradients_an_update_later():
    """fairseq asks in each update whether the norm of its gradients is finite before it lets the optimizer go on. On one
    GPU it is asked for while the next update computes. An update that was not finite is never lost: the run stops in
    the next one, or where a checkpoint would be written or the log is read before that; `fused_adamw` does not apply
    it.
    """
    fairseq_clip, fairseq_save = Trainer.clip_grad_norm, Trainer.save_checkpoint

    def clip_grad_norm(self, clip_norm):
        self.latest_norm = fairseq_clip(self, clip_norm)
        if not may_be_late(self, self.latest_norm):
            return self.latest_norm
        look_back(self)
        self.norm_on_its_way = self.get_num_updates() + 1, OnItsWay(self.latest_norm)
        return torch.ones(())  # finite, for now

    def look_back(self):
        number, norm = vars(self).pop("norm_on_its_way", (None, None))
        if norm is not None:
            refuse_infinite(norm.number(), number)

    def save_checkpoint(self, filename, extra_state):
        look_back(self)
        return fairseq_save(self, filename, extra_state)

    Trainer.clip_grad_norm, Trainer.save_checkpoint = clip_grad_norm, save_checkpoint


def may_be_late(trainer, norm):
    """fp16 and --amp go on after an overflow; ranks compare their norms, and wait for that."""
    common = trainer.cfg.common
    return norm.is_cuda and not (common.fp16 or common.amp) and trainer.data_parallel_world_size == 1


def refuse_infinite(norm, number):
    if not math.isfinite(norm):
        raise UsageError(f"gradients: their norm is {norm} in update {number}, expected a finite number; no checkpoint "
                         "was written after it (a lower --lr, a longer --warmup-updates or --clip-norm may help)")
