"""Selected positions of a batch as indices whose counts the host knows: with a bool mask alone, each use would make the
host wait for the device.

Shapes: B sentences, T positions, K selected positions in all, S the most in one sentence.
"""

from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch
from torch import Tensor

from ..masking.devices import to_device_async


class SelectedPositions:
    """The positions of a batch at which something is computed; converts tensors between three layouts:

        B x T, selected in []      gather -> K      pad -> B x S
          p [a] q [b]              a b c            a b             unpad: B x S -> K, drops the padding
          s  t [c] u                                c s             pad_packed: K -> B x S, pads with zeros

    Args:
        mask: B x T bool.
        counts: number of selected positions in each row, B integers on the host; None = ask the device.
    Raises:
        ValueError: the counts are not the mask's. (Checked on a CPU only: the host would have to wait for a GPU.)
    """

    def __init__(self, mask: Tensor, counts: Optional[Union[Sequence[int], np.ndarray]] = None):
        self.mask = mask
        counts = np.asarray(mask.sum(1).tolist() if counts is None else counts)
        if mask.device.type == "cpu" and not np.array_equal(mask.numpy().sum(1), counts):
            raise ValueError(f"{mask.numpy().sum(1)} selected positions per row found, expected {counts}")
        self.max_per_row = max(1, int(counts.max(initial=0)))  # S
        self.number = int(counts.sum())  # K
        self.padded_indices = padded_indices_of(mask, self.max_per_row)  # B x S, into the flattened B x T
        self.unpadded = None  # K indices into the flattened B x S, where it is not padding; None = nowhere is padding
        if self.number < self.padded_indices.numel():
            unpadded = np.flatnonzero(np.arange(self.max_per_row) < counts[:, None])
            self.unpadded = to_device_async(torch.from_numpy(unpadded), mask.device)
        self.indices = self.unpad(self.padded_indices)  # K, into the flattened B x T

    def gather(self, x: Tensor) -> Tensor:
        """B x T x ... -> K x ..., row by row, in the order of the positions."""
        return x.flatten(0, 1).index_select(0, self.indices)

    def pad(self, x: Tensor) -> Tensor:
        """B x T x ... -> B x S x ...; the padding repeats the sentence's first position, selected or not."""
        x = x.flatten(0, 1).index_select(0, self.padded_indices.flatten())  # BS x ...
        return x.unflatten(0, self.padded_indices.shape)

    def pad_packed(self, x: Tensor) -> Tensor:
        """K x C -> B x S x C, zeros as padding: the inverse of `unpad`."""
        if self.unpadded is not None:
            x = x.new_zeros(self.padded_indices.numel(), x.size(-1)).index_copy(0, self.unpadded, x)  # BS x C
        return x.unflatten(0, self.padded_indices.shape)

    def unpad(self, x: Tensor) -> Tensor:
        """B x S x ... -> K x ..., without the padding."""
        x = x.flatten(0, 1)  # BS x ...
        return x if self.unpadded is None else x.index_select(0, self.unpadded)


def padded_indices_of(mask: Tensor, max_per_row: int) -> Tensor:
    """B x T bool -> B x S int64, into the flattened B x T: each row's selected positions, then its first position."""
    rows, length = mask.shape
    column = torch.where(mask, mask.cumsum(1) - 1, max_per_row)  # B x T; unselected ones go to column S, cut off below
    positions = torch.arange(length, device=mask.device).expand(rows, length)
    indices = mask.new_zeros((rows, max_per_row + 1), dtype=torch.int64).scatter_(1, column, positions)
    return indices[:, :max_per_row] + length * torch.arange(rows, device=mask.device)[:, None]  # B x S
