"""The numbers of an update stay on the device until somebody reads the log, and come in one transfer then.

fairseq asks for each of them in each update, and the host then waits until the device has done all that it was asked
for before. With fairseq-train, the log is read each --log-interval, at validations, checkpoints and ends of epochs.
"""

import contextlib
import itertools
import math
import time
from types import SimpleNamespace

import torch
from fairseq.logging import meters, metrics
from fairseq.trainer import Trainer

from .late_norm import may_be_late, refuse_infinite

MAX_PENDING = 1000  # updates whose numbers may wait
READERS = ("get_smoothed_value", "get_smoothed_values", "get_meter", "get_meters", "state_dict", "load_state_dict",
           "reset_meter", "reset_meters")

fairseq_log, fairseq_reset = Trainer._reduce_and_log_stats, metrics.reset
_pending = []


def apply():
    Trainer._reduce_and_log_stats, metrics.reset = keep_or_log, reset_and_discard
    for name in READERS:
        setattr(metrics, name, after_logging(getattr(metrics, name)))


class Update:
    """The numbers of one update, some of them on the device, and the meters that they are for."""

    def __init__(self, trainer, logging_outputs, sample_size, grad_norm):
        self.trainer, self.number, self.moment = trainer, trainer.get_num_updates(), time.perf_counter()
        self.logging_outputs = [{key: value.detach() if isinstance(value, torch.Tensor) else value
                                 for key, value in log.items()} for log in logging_outputs]
        self.sample_size = sample_size
        self.is_late = may_be_late(trainer)
        self.grad_norm = trainer.latest_norm if self.is_late else grad_norm
        self.aggregators = metrics._active_aggregators.copy()

    def tensors(self):
        values = [self.sample_size, self.grad_norm, *(v for log in self.logging_outputs for v in log.values())]
        return [value for value in values if isinstance(value, torch.Tensor) and value.numel() == 1]


def keep_or_log(self, logging_outputs, sample_size, grad_norm=None):
    """In place of Trainer._reduce_and_log_stats."""
    if grad_norm is None or self.tpu:  # of a validation
        return fairseq_log(self, logging_outputs, sample_size, grad_norm)
    _pending.append(Update(self, logging_outputs, sample_size, grad_norm))
    if len(_pending) >= MAX_PENDING:
        flush_pending()
    return {}  # fairseq-train looks whether there is something, not what


def after_logging(read):
    """The function that reads meters, when all that is pending has been logged."""

    def log_and_read(*arguments, **named):
        if _pending:
            flush_pending()
        return read(*arguments, **named)

    return log_and_read


def reset_and_discard():
    _pending.clear()
    fairseq_reset()


def flush_pending():
    updates = _pending.copy()
    _pending.clear()
    on_host = numbers(tensor for update in updates for tensor in update.tensors())
    for update in updates:
        with aggregators_active(update.aggregators), clock_at(update.moment):
            log_update(update, on_host)


def log_update(update, on_host):
    """As fairseq does it, with numbers in place of tensors. on_host: tensor or number -> number."""
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
def aggregators_active(aggregators):
    """Log into these aggregators instead of those of now."""
    now, metrics._active_aggregators = metrics._active_aggregators, aggregators
    try:
        yield
    finally:
        metrics._active_aggregators = now


@contextlib.contextmanager
def clock_at(moment):
    """The meters' clock shows this moment, and goes on by nanoseconds: a speed is measured from the first update on."""
    ticks = itertools.count()
    meters.time = SimpleNamespace(perf_counter=lambda: moment + 1e-9 * next(ticks))
    try:
        yield
    finally:
        meters.time = time
