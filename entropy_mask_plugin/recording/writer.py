"""A training writes which positions it masks.

Shapes: B sentences, T positions, W = ceil(T / 8) bytes.
"""

import logging
import os
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Sequence, Tuple

import numpy as np
from torch import Tensor

from ..masking.devices import to_host_async
from ..masking.when import When
from ..system.atomic_files import make_folder, remove, remove_leftovers
from .parts import Batch, folder_of_rank, parts_in, read_part, write_part

logger = logging.getLogger(__name__)

UPDATES_PER_PART = 200
LAG = 8  # batches after which a mask has arrived on the host, so that nothing waits for it


class MaskRecorder:
    """Writes the masks of one rank.

    A part ends with an epoch, before each multiple of UPDATES_PER_PART, and before each checkpoint. A resumed run
    therefore begins a part with its first update, and removes what was recorded from that update on.

    Args:
        folder: of the recording; created if it does not exist.
        rank: of this process.
        ranks: how many processes train.
    Raises:
        UsageError: the folder cannot be created.
    """

    def __init__(self, folder: str, rank: int = 0, ranks: int = 1):
        self.recording, self.folder, self.rank, self.ranks = folder, folder_of_rank(folder, rank), rank, ranks
        make_folder(self.folder, "--record-masks")
        remove_leftovers(self.folder)
        self.part: Optional[Tuple[int, int]] = None  # epoch, and number of UPDATES_PER_PART; None = nothing recorded
        self.arriving: Deque[Tuple[int, Sequence[int], Callable[[], Any]]] = deque()  # update, ids, copy of the mask
        self.batches: List[Batch] = []  # of the part that is not yet written

    def record(self, when: When, ids: Sequence[int], mask: Tensor) -> None:
        """Record a batch. ids: of its B sentences, on the host; mask: B x T bool, the masked positions."""
        part = when.epoch, when.update // UPDATES_PER_PART
        if self.part is None:
            self.remove_from(when.update)
        elif part != self.part:
            self.flush()
        self.part = part
        self.arriving.append((when.update, ids, to_host_async(mask)))
        if len(self.arriving) > LAG:
            self.pack_oldest()

    def pack_oldest(self) -> None:
        """Move the oldest batch that is arriving to those that are on the host."""
        update, ids, mask = self.arriving.popleft()
        self.batches.append(Batch(update, np.array(ids, np.uint32), np.packbits(mask().numpy(), axis=1)))

    def flush(self) -> None:
        """Write what was recorded since the last part.

        Raises:
            UsageError: the disk is full or read-only.
        """
        while self.arriving:
            self.pack_oldest()
        if self.batches:
            assert self.part is not None
            write_part(self.folder, self.part[0], self.batches)
            self.batches = []

    def remove_from(self, update: int) -> None:
        """Remove what was recorded from an update on: by this rank, and by ranks that there are no longer.

        Raises:
            UsageError: a part that begins earlier is damaged.
        """
        parts = parts_in(self.recording)
        recorded = max((part.last + 1 for part in parts if part.first < update), default=0)
        if recorded < update and self.rank == 0:
            logger.warning(f"--record-masks: {self.recording} has no masks of the updates {recorded + 1} to {update}, "
                           "which were made without it")
        for part in parts:
            if part.last >= update and (part.rank == self.rank or self.rank == 0 and part.rank >= self.ranks):
                earlier = [batch for batch in read_part(part.path) if batch.update < update] \
                    if part.first < update else []
                if earlier:  # not where a checkpoint was written, as a part would end there
                    write_part(os.path.dirname(part.path), part.epoch, earlier)
                remove(part.path)
