"""The moving average of the weights that fairseq keeps with --store-ema."""

from typing import Any, Optional

import torch
from fairseq.models.ema.ema import EMA
from torch import Tensor, nn


def update_average_at_once() -> None:
    """fairseq averages one tensor after the other, each in two passes over the memory. Under --ema-update-freq it
    counts updates from the start of the process, so that a resumed run averages other ones."""
    fairseq_step, fairseq_average = EMA.step, EMA._step_internal

    def step(self: Any, new_model: nn.Module, updates: Optional[int] = None) -> None:
        if updates is not None:
            self.update_freq_counter = (updates - 1) % self.config.ema_update_freq
        fairseq_step(self, new_model, updates)

    def average(self: Any, new_model: nn.Module, updates: Optional[int] = None) -> None:
        averages, values = self.model.state_dict(), new_model.state_dict()
        if self.config.ema_fp32 or self.skip_keys or not can_be_averaged_together(averages, values):
            fairseq_average(self, new_model, updates)
            return
        torch._foreach_lerp_([averages[name] for name in values], list(values.values()), 1 - self.decay)

    EMA.step, EMA._step_internal = step, average


def can_be_averaged_together(averages: Any, values: Any) -> bool:
    """Whether both are the same names, with float tensors of the same types and shapes."""
    return averages.keys() == values.keys() and all(
        isinstance(value, Tensor) and value.is_floating_point() and "version" not in name
        and (value.dtype, value.shape) == (averages[name].dtype, averages[name].shape)
        for name, value in values.items())
