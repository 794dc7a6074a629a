"""The masks of an epoch, by sample: in which batch, update and rank they were recorded does not matter.

Shapes: N samples of an epoch, B sentences of a batch, T positions, W = ceil(T / 8) bytes.
"""

from typing import List, NamedTuple, Sequence

import numpy as np

from ..system.errors import UsageError
from .facts import read_facts
from .parts import parts_in, read_content, read_part


class EpochMasks(NamedTuple):
    """The masks of an epoch. ids: N int64, ascending; bits: N x W uint8, a bit for each position."""

    ids: np.ndarray
    bits: np.ndarray

    def missing(self, ids: Sequence[int]) -> List[int]:
        """Those of some sample ids that have no masks."""
        places = np.searchsorted(self.ids, ids).clip(max=max(0, len(self.ids) - 1))
        return [i for i, is_there in zip(ids, self.ids[places] == ids) if not is_there]

    def at(self, ids: Sequence[int], length: int) -> np.ndarray:
        """The masked positions of B samples, none of them missing, of which the longest has T tokens: B x T bool."""
        bits = self.bits[np.searchsorted(self.ids, ids)]
        mask = np.unpackbits(bits, axis=1, count=min(length, 8 * bits.shape[1])).astype(bool)
        return np.pad(mask, ((0, 0), (0, length - mask.shape[1])))


class Recording:
    """A folder written with --record-masks.

    Args:
        folder: the recording.
        flag: which names it, for messages.
    Raises:
        UsageError: it is no recording, or a part of it is damaged.
    """

    def __init__(self, folder: str, flag: str):
        self.folder, self.flag = folder, flag
        self.facts, self.parts = read_facts(folder, flag), parts_in(folder)
        for part in self.parts:
            read_content(part.path)

    def epochs(self) -> List[int]:
        """Those of which there are masks."""
        return sorted({part.epoch for part in self.parts})

    def masks(self, epoch: int) -> EpochMasks:
        """The masks of an epoch; of a sample that was masked twice, the later ones.

        Raises:
            UsageError: there are none, or a part is damaged.
        """
        batches = [batch for part in self.parts if part.epoch == epoch for batch in read_part(part.path)]
        if not batches:
            raise UsageError(f"{self.flag}: {self.folder} has no masks of epoch {epoch}, expected as many epochs as "
                             "this run has")
        width = max(batch.bits.shape[1] for batch in batches)
        ids = np.concatenate([batch.ids for batch in batches]).astype(np.int64)
        bits = np.concatenate([np.pad(batch.bits, ((0, 0), (0, width - batch.bits.shape[1]))) for batch in batches])
        unique, from_the_end = np.unique(ids[::-1], return_index=True)
        return EpochMasks(unique, bits[len(ids) - 1 - from_the_end])
