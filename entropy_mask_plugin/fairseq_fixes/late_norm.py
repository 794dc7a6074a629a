"""A gradient norm that is nan or inf ends the run in one line, which names the update and its samples; on a GPU, it is
read while the next update computes.

fairseq checks it before the optimizer's step, so that the device idles until the host has read the norm and launched
the next update, and ends in a traceback, after a second pass over the batch that prints every module's output. No bad
update goes unnoticed: the run stops in the next one, or before that where a checkpoint would be written or the log is
read; `fused_adamw` does not apply it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, List, Mapping

import torch
from fairseq.trainer import Trainer
from torch import Tensor

from ..system.errors import UsageError

SHOWN = 64  # sample ids in a message

fairseq_clip = Trainer.clip_grad_norm


def check_gradients_late() -> None:
    """Replace fairseq's check, on a GPU by one an update later, and check before any checkpoint is written."""
    Trainer.train_step, Trainer.clip_grad_norm = remembering_samples(Trainer.train_step), clip_grad_norm
    Trainer.save_checkpoint = checked_first(Trainer.save_checkpoint)


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
    self.latest_norm, number = fairseq_clip(self, clip_norm), self.get_num_updates() + 1
    if skips_updates(self):
        return self.latest_norm
    if not may_be_late(self):
        refuse_infinite(float(self.latest_norm), number, self.latest_ids)
        return self.latest_norm
    stop_if_not_finite(self)
    self.pending_norm = AsyncScalar(self.latest_norm), number, self.latest_ids
    return torch.ones(())  # finite, so that fairseq's check passes


def remembering_samples(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Trainer.train_step: the trainer remembers the ids of the samples that the latest update is made of."""

    def train_step(self: Trainer, samples: Sequence[Mapping[str, Any]], raise_oom: bool = False) -> Any:
        self.latest_ids = [i for sample in samples if sample for i in sample.get("ids", ())]
        return step(self, samples, raise_oom)

    return train_step


def checked_first(save: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Trainer.save_checkpoint: the pending norm is checked first."""

    def save_checkpoint(self: Trainer, filename: str, extra_state: dict) -> Any:
        stop_if_not_finite(self)
        return save(self, filename, extra_state)

    return save_checkpoint


def stop_if_not_finite(trainer: Trainer) -> None:
    """Raise a UsageError if the pending norm, if any, is nan or inf."""
    if "pending_norm" in vars(trainer):
        norm, number, ids = vars(trainer).pop("pending_norm")
        refuse_infinite(norm.number(), number, ids)


def skips_updates(trainer: Trainer) -> bool:
    """--fp16 and --amp leave out updates that overflow."""
    return trainer.cfg.common.fp16 or trainer.cfg.common.amp


def may_be_late(trainer: Trainer) -> bool:
    """Only on one GPU without loss scaling: several ranks wait for each other's norms anyway."""
    return trainer.cuda and not skips_updates(trainer) and trainer.data_parallel_world_size == 1


def refuse_infinite(norm: float, number: int, ids: List[int]) -> None:
    """Raise a UsageError if the gradient norm of update `number`, made of the samples `ids`, is nan or inf."""
    if not math.isfinite(norm):
        shown = " ".join(map(str, ids[:SHOWN])) + (" …" if len(ids) > SHOWN else "")
        samples = f" (samples {shown})" if ids else ""
        raise UsageError(f"gradients: their norm is {norm} in update {number}{samples}, expected a finite number; no "
                         "checkpoint was written after it (a lower --lr, a longer --warmup-updates or --clip-norm may "
                         "help)")
