"""A gradient norm that is nan or inf ends the run in one line, which names the update and its samples; on a GPU, it is
read while the next update computes.

fairseq checks it before the optimizer's step, so that the device idles until the host has read the norm and launched
the next update, and ends in a traceback, after a second pass over the batch that prints every module's output. No bad
update goes unnoticed: the run stops in the next one, or before that where a checkpoint would be written or the log is
read; `fused_adamw` does not apply it.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, List, Mapping

import torch
from fairseq.trainer import Trainer
from torch import Tensor

from ..system.errors import UsageError

SHOWN = 64  # sample ids in a message
MOST_SKIPPED = 100  # updates in a row; --fp16 halves the loss scale in each and ends sooner
REMEDY = "a lower --lr, a longer --warmup-updates or --clip-norm may help"

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
    number = self.get_num_updates() + 1
    with refusing_lost_scale(self, number):
        self.latest_norm = fairseq_clip(self, clip_norm)
    if skips_updates(self):
        refuse_skipping_forever(self, number)
        return self.latest_norm
    if not may_be_late(self):
        norm = float(self.latest_norm.cpu().numpy())  # on a CPU no operation, as item() would be
        refuse_infinite(norm, number, self.latest_ids)
        return self.latest_norm
    stop_if_not_finite(self)
    self.pending_norm = AsyncScalar(self.latest_norm), number, self.latest_ids
    return torch.ones(())  # finite, so that fairseq's check passes


def remembering_samples(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Trainer.train_step: the trainer remembers the ids of the samples that the latest update is made of."""

    def train_step(self: Trainer, samples: Sequence[Mapping[str, Any]], raise_oom: bool = False) -> Any:
        self.latest_ids = [i for sample in samples if sample for i in ids_of(sample)]
        return step(self, samples, raise_oom)

    return train_step


def ids_of(sample: Mapping[str, Any]) -> List[int]:
    """The ids of a batch: a list of this plug-in's tasks, a tensor of fairseq's."""
    ids = sample.get("ids", sample.get("id", ()))
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


@contextlib.contextmanager
def refusing_lost_scale(trainer: Trainer, number: int) -> Iterator[None]:
    """A context in which fairseq unscales the gradients of --fp16 in update `number`. It would end in a traceback, and
    leave a crash.pt, when it cannot scale the loss down further.

    Raises:
        UsageError: instead of that.
    """
    try:
        yield
    except FloatingPointError as error:
        raise UsageError(f"--fp16: gradients that are nan or inf at --min-loss-scale in "
                         f"{name_update(number, trainer.latest_ids)} found, expected finite ones ({REMEDY})") from error


def refuse_skipping_forever(trainer: Trainer, number: int) -> None:
    """Raise a UsageError where MOST_SKIPPED updates in a row have overflowed: --amp would skip all others too."""
    is_finite = math.isfinite(float(trainer.latest_norm))
    trainer.n_skipped = 0 if is_finite else getattr(trainer, "n_skipped", 0) + 1
    if trainer.n_skipped >= MOST_SKIPPED:
        raise UsageError(f"gradients: nan or inf {MOST_SKIPPED} times in a row, now in "
                         f"{name_update(number, trainer.latest_ids)}, expected a finite norm ({REMEDY})")


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


def refuse_infinite(value: float, number: int, ids: List[int], name: str = "gradients: their norm") -> None:
    """Raise a UsageError if a number of update `number`, made of the samples `ids`, is nan or inf."""
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value} in {name_update(number, ids)}, expected a finite number; no checkpoint "
                         f"was written after it ({REMEDY})")


def name_update(number: int, ids: List[int]) -> str:
    """An update and its samples, for a message."""
    shown = " ".join(map(str, ids[:SHOWN])) + (" …" if len(ids) > SHOWN else "")
    return f"update {number} (samples {shown})" if ids else f"update {number}"
