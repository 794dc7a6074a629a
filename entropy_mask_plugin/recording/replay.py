"""Recorded masks become part of the batches of another training.

Shapes: B sentences, T positions.
"""

from typing import Any, Dict, Mapping, Optional

import torch

from ..masking.devices import to_device_async
from ..system.errors import UsageError
from .reader import EpochMasks, Recording


class Replay:
    """The masks of a recording, epoch by epoch.

    Args:
        recording: what is replayed.
    """

    def __init__(self, recording: Recording):
        self.recording = recording
        self.epoch, self.masks = 0, None  # none is read yet
        self.masks: Optional[EpochMasks]

    def begin_epoch(self, epoch: int) -> None:
        """Read the masks of an epoch, unless it is the current one.

        Raises:
            UsageError: there are none, or they are damaged.
        """
        if epoch != self.epoch:
            self.epoch, self.masks = epoch, self.recording.masks(epoch)

    def with_masks(self, sample: Mapping[str, Any]) -> Dict[str, Any]:
        """The clean batch with recorded_mask (B x T bool, on its device) and recorded_counts (B int64, on the host).

        Raises:
            UsageError: names the first sample that has no masks in this epoch.
        """
        assert self.masks is not None, "begin_epoch comes first"
        tokens, ids = sample["net_input"]["src_tokens"], sample["ids"]
        missing = self.masks.missing(ids)
        if missing:
            raise UsageError(f"{self.recording.flag}: {self.recording.folder} has no masks of sample {missing[0]} in "
                             f"epoch {self.epoch}, expected those of every sample that this run trains on")
        mask = torch.from_numpy(self.masks.at(ids, tokens.size(1)))
        return {**sample, "recorded_mask": to_device_async(mask, tokens.device), "recorded_counts": mask.sum(1)}
