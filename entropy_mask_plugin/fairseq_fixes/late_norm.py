"""Whether the gradients of an update are finite is asked for while the next one computes.

fairseq asks in each update before it lets the optimizer go on, and the device then has nothing to do until the host has
the answer and the next update is under way. An update that was not finite is never lost: the run stops in the next one,
or where a checkpoint would be written or the log is read before that; `fused_adamw` does not apply it.
"""

import math

import torch
from fairseq.trainer import Trainer

from ..system.errors import UsageError

fairseq_clip = Trainer.clip_grad_norm


def apply():
    Trainer.clip_grad_norm, Trainer.save_checkpoint = clip_grad_norm, checked_first(Trainer.save_checkpoint)


class AsyncScalar:
    """A number that the device has not computed yet; the host asks for it when it has long been there."""

    def __init__(self, tensor):
        self.value = torch.empty((), pin_memory=True).copy_(tensor, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def number(self):
        self.arrived.synchronize()
        return float(self.value)


def clip_grad_norm(self, clip_norm):
    """In place of Trainer.clip_grad_norm."""
    self.latest_norm = fairseq_clip(self, clip_norm)
    if not may_be_late(self):
        return self.latest_norm
    stop_if_not_finite(self)
    self.pending_norm = self.get_num_updates() + 1, AsyncScalar(self.latest_norm)
    return torch.ones(())  # finite, for now


def checked_first(save):
    def save_checkpoint(self, filename, extra_state):
        stop_if_not_finite(self)
        return save(self, filename, extra_state)

    return save_checkpoint


def stop_if_not_finite(trainer):
    number, norm = vars(trainer).pop("pending_norm", (None, None))
    if norm is not None:
        refuse_infinite(norm.number(), number)


def may_be_late(trainer):
    """On one GPU. fp16 and --amp go on after an overflow; ranks compare their norms, and wait for that."""
    common = trainer.cfg.common
    return trainer.cuda and not (common.fp16 or common.amp) and trainer.data_parallel_world_size == 1


def refuse_infinite(norm, number):
    if not math.isfinite(norm):
        raise UsageError(f"gradients: their norm is {norm} in update {number}, expected a finite number; no checkpoint "
                         "was written after it (a lower --lr, a longer --warmup-updates or --clip-norm may help)")
