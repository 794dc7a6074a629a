"""The numbers of an update stay on the device until the log is read, and are then copied in one transfer.

fairseq copies each of them in each update, and every copy waits until the device has finished all earlier work. With
fairseq-train, the log is read every --log-interval updates, at validations, checkpoints and ends of epochs.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Union

import torch
from fairseq.logging import meters, metrics
from fairseq.trainer import Trainer
from torch import Tensor

from ..system.errors import require
from .late_norm import may_be_late, name_update, refuse_infinite, skips_updates

MAX_PENDING = 1000  # updates whose numbers may stay on the device
READERS = ("get_smoothed_value", "get_smoothed_values", "get_meter", "get_meters", "state_dict", "load_state_dict",
           "reset_meter", "reset_meters")

fairseq_log, fairseq_reset = Trainer._reduce_and_log_stats, metrics.reset
_pending: List["Update"] = []


def read_numbers_late() -> None:
    """Replace fairseq's logging of each update, and flush the pending updates before any meter is read."""
    Trainer._reduce_and_log_stats, metrics.reset = keep_or_log, reset_and_discard
    for name in READERS:
        setattr(metrics, name, after_logging(getattr(metrics, name)))


class Update:
    """The numbers of one update, some of them on the device, and the aggregators that they are logged to."""

    def __init__(self, trainer: Trainer, logging_outputs: List[Dict[str, Any]], sample_size: Union[Tensor, float],
                 grad_norm: Union[Tensor, float]):
        self.trainer, self.number, self.moment = trainer, trainer.get_num_updates(), time.perf_counter()
        self.logging_outputs = [{key: value.detach() if isinstance(value, torch.Tensor) else value
                                 for key, value in log.items()} for log in logging_outputs]
        self.sample_size = sample_size
        self.is_late, self.ids = may_be_late(trainer), trainer.latest_ids
        self.grad_norm = trainer.latest_norm if self.is_late else grad_norm
        self.aggregators = metrics._active_aggregators.copy()

    def tensors(self) -> List[Tensor]:
        """Its numbers that are tensors of one element."""
        values = [self.sample_size, self.grad_norm, *(v for log in self.logging_outputs for v in log.values())]
        return [value for value in values if isinstance(value, torch.Tensor) and value.numel() == 1]


def keep_or_log(self: Trainer, logging_outputs: List[Dict[str, Any]], sample_size: Union[Tensor, float],
                grad_norm: Optional[Tensor] = None) -> Any:
    """Replaces Trainer._reduce_and_log_stats."""
    if grad_norm is None or self.tpu:  # a validation has no norm
        return fairseq_log(self, logging_outputs, sample_size, grad_norm)
    _pending.append(Update(self, logging_outputs, sample_size, grad_norm))
    if len(_pending) >= MAX_PENDING:
        flush_pending()
    return {}  # fairseq-train only tests it for None


def after_logging(read: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function that reads meters: all pending updates are logged first."""

    def log_and_read(*arguments: Any, **named: Any) -> Any:
        if _pending:
            flush_pending()
        return read(*arguments, **named)

    return log_and_read


def reset_and_discard() -> None:
    """Replaces metrics.reset: pending updates belong to the meters that are dropped."""
    _pending.clear()
    fairseq_reset()


def flush_pending() -> None:
    """Log all pending updates."""
    updates = _pending.copy()
    _pending.clear()
    on_host = numbers(tensor for update in updates for tensor in update.tensors())
    for update in updates:
        with aggregators_active(update.aggregators), clock_at(update.moment):
            log_update(update, on_host)


def log_update(update: Update, on_host: Callable[[Any], Any]) -> None:
    """As fairseq logs an update, with numbers instead of tensors. on_host: tensor or number -> number."""
    norm, clip_norm = on_host(update.grad_norm), update.trainer.cfg.optimization.clip_norm
    if update.is_late:
        refuse_infinite(norm, update.number, update.ids)
    logs = [{key: on_host(value) for key, value in log.items()} for log in update.logging_outputs]
    if not skips_updates(update.trainer):
        for log in logs:
            refuse_bad_numbers(log, update)
    if math.isfinite(norm):
        metrics.log_speed("ups", 1.0, priority=100, round=2)
        metrics.log_scalar("gnorm", norm, priority=400, round=3)
    if math.isfinite(norm) and clip_norm > 0:
        metrics.log_scalar("clip", 100.0 * (norm > clip_norm), priority=500, round=1)
    fairseq_log(update.trainer, logs, on_host(update.sample_size))


def refuse_bad_numbers(log: Mapping[str, float], update: Update) -> None:
    """Raise a UsageError where the loss of an update is nan or inf, though its gradients may be finite, or a score of
    its tokens is nan."""
    refuse_infinite(log.get("loss", 0.0), update.number, update.ids, "loss: it")
    require("--mask-source", f"scores that are nan in {name_update(update.number, update.ids)}",
            not math.isnan(log.get("entropy_sum", 0.0)), "numbers: weights of the model that scores may be too large")


def numbers(tensors: Iterable[Tensor]) -> Callable[[Any], Any]:
    """A function from a tensor of one element to its number, and from a number to itself. The tensors are copied to the
    host in one transfer per dtype and device."""
    by_type = {}
    for tensor in tensors:
        by_type.setdefault((tensor.dtype, tensor.device), {})[id(tensor)] = tensor.reshape(())
    values = {}
    for same in by_type.values():
        values.update(zip(same, torch.stack(list(same.values())).tolist(), strict=True))
    return lambda value: values.get(id(value), value)


@contextlib.contextmanager
def aggregators_active(aggregators: Any) -> Iterator[None]:
    """Log to these aggregators instead of the current ones."""
    current, metrics._active_aggregators = metrics._active_aggregators, aggregators
    try:
        yield
    finally:
        metrics._active_aggregators = current


@contextlib.contextmanager
def clock_at(moment: float) -> Iterator[None]:
    """Set the meters' clock to this time (seconds of perf_counter); each reading advances it by a nanosecond, as speed
    meters divide by the time since their start."""
    ticks = itertools.count()
    meters.time = SimpleNamespace(perf_counter=lambda: moment + 1e-9 * next(ticks))
    try:
        yield
    finally:
        meters.time = time
