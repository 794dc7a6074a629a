"""The gradient norm of an update is checked for nan and inf while the next update computes.

fairseq checks it before the optimizer's step, so that the device idles until the host has read the norm and launched
the next update. No bad update goes unnoticed: the run stops in the next one, or before that where a checkpoint would be
written or the log is read; `fused_adamw` does not apply it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from fairseq.trainer import Trainer
from torch import Tensor

from ..system.errors import UsageError

fairseq_clip = Trainer.clip_grad_norm


def check_gradients_late() -> None:
    """Replace fairseq's check by one an update later, and check before any checkpoint is written."""
    Trainer.clip_grad_norm, Trainer.save_checkpoint = clip_grad_norm, checked_first(Trainer.save_checkpoint)


class AsyncScalar:
    """A 0-dim tensor on its way to the host; by the time the host reads it, it has usually arrived."""

    def __init__(self, tensor: Tensor):
        self.value = torch.empty((), pin_memory=True).copy_(tensor, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def number(self) -> float:
        """Its value; waits for the copy to finish."""
        self.arrived.synchronize()
        return float(self.value)


def clip_grad_norm(self: Trainer, clip_norm: float) -> Tensor:
    """Replaces Trainer.clip_grad_norm."""
    self.latest_norm = fairseq_clip(self, clip_norm)
    if not may_be_late(self):
        return self.latest_norm
    stop_if_not_finite(self)
    self.pending_norm = self.get_num_updates() + 1, AsyncScalar(self.latest_norm)
    return torch.ones(())  # finite, so that fairseq's check passes


def checked_first(save: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Trainer.save_checkpoint: the pending norm is checked first."""

    def save_checkpoint(self: Trainer, filename: str, extra_state: dict) -> Any:
        stop_if_not_finite(self)
        return save(self, filename, extra_state)

    return save_checkpoint


def stop_if_not_finite(trainer: Trainer) -> None:
    """Raise a UsageError if the pending norm, if any, is nan or inf."""
    number, norm = vars(trainer).pop("pending_norm", (None, None))
    if norm is not None:
        refuse_infinite(norm.number(), number)


def may_be_late(trainer: Trainer) -> bool:
    """Only on one GPU without loss scaling: fp16 and --amp skip updates that overflow, and several ranks wait for each
    other's norms anyway."""
    common = trainer.cfg.common
    return trainer.cuda and not (common.fp16 or common.amp) and trainer.data_parallel_world_size == 1


def refuse_infinite(norm: float, number: int) -> None:
    """Raise a UsageError if the gradient norm of update `number` is nan or inf."""
    if not math.isfinite(norm):
        raise UsageError(f"gradients: their norm is {norm} in update {number}, expected a finite number; no checkpoint "
                         "was written after it (a lower --lr, a longer --warmup-updates or --clip-norm may help)")
