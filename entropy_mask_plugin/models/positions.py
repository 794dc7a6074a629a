"""Chosen positions of a batch as indices, their numbers known on the host: with a bool mask alone, each use would make
the host wait for the device.

Shapes: B sentences, T positions, K chosen positions in all, S the most in one sentence.
"""

import numpy as np
import torch

from ..masking.devices import to_device_async


class Positions:
    """Where the rows of a batch are wanted.

    Args:
        mask: B x T bool.
        counts: how many are chosen in each row, B integers on the host; None = ask the device.
    Raises:
        ValueError: the counts are not the mask's. (Checked on a CPU only: a GPU's host would wait for it.)
    """

    def __init__(self, mask, counts=None):
        self.mask = mask
        counts = np.asarray(mask.sum(1).tolist() if counts is None else counts)
        if mask.device.type == "cpu" and not np.array_equal(mask.numpy().sum(1), counts):
            raise ValueError(f"{mask.numpy().sum(1)} positions are chosen in the rows, expected {counts}")
        self.slots = max(1, int(counts.max(initial=0)))  # S
        self.number = int(counts.sum())  # K
        self.in_slots = indices_of_slots(mask, self.slots)  # B x S, positions in the flattened batch
        self.filled = None  # K, which of the flattened B x S slots hold a chosen position; None = all
        if self.number < self.in_slots.numel():
            filled = np.flatnonzero(np.arange(self.slots) < counts[:, None])
            self.filled = to_device_async(torch.from_numpy(filled), mask.device)
        self.flat = self.of_slots(self.in_slots)  # K, positions in the flattened batch

    def of(self, x):
        """B x T x ... -> K x ..., row by row, in the order of the positions."""
        return x.flatten(0, 1).index_select(0, self.flat)

    def slotted(self, x):
        """B x T x C -> B x S x C. A slot that holds no chosen position repeats the first of the sentence."""
        return x.flatten(0, 1).index_select(0, self.in_slots.flatten()).unflatten(0, self.in_slots.shape)

    def into_slots(self, x):
        """K x C -> B x S x C, zeros in slots that hold no chosen position: the inverse of `of_slots`."""
        if self.filled is not None:
            x = x.new_zeros(self.in_slots.numel(), x.size(-1)).index_copy(0, self.filled, x)
        return x.unflatten(0, self.in_slots.shape)

    def of_slots(self, x):
        """B x S x ... -> K x ..."""
        x = x.flatten(0, 1)
        return x if self.filled is None else x.index_select(0, self.filled)


def indices_of_slots(mask, slots):
    """B x T bool -> B x S int64: where each row's chosen positions are in the flattened batch, then its first."""
    rows, length = mask.shape
    place = torch.where(mask, mask.cumsum(1) - 1, slots)  # the others go to a last column, which is cut off
    positions = torch.arange(length, device=mask.device).expand(rows, length)
    indices = mask.new_zeros((rows, slots + 1), dtype=torch.int64).scatter_(1, place, positions)[:, :slots]
    return indices + length * torch.arange(rows, device=mask.device)[:, None]
