"""A model's own entropies, block by block, as computed most recently.

    values    fp32, one for each token, block after block
    epochs    int32, for each block the epoch in which its values were computed; 0 = never

Shapes: N blocks.
"""

import os
from typing import Any, Dict, Iterable, Mapping, Sequence, Tuple

import numpy as np

from ...system.atomic_files import atomic_path, make_folder, write_json
from ...system.errors import require
from .store import ANEW


class SelfEntropyStore:
    """Entropies of N blocks, and the epoch in which each was computed.

    Args:
        folder: created if it does not exist.
        facts: content of facts.json.
        sizes: N integers, tokens of each block.
    """

    def __init__(self, folder: str, facts: Mapping[str, Any], sizes: Sequence[int]):
        make_folder(folder, "--entropy-cache")
        self.folder = folder
        self.ends = np.cumsum(sizes, dtype=np.int64)
        write_json(os.path.join(folder, "facts.json"), facts)
        self.make("values", "<f4", int(self.ends[-1]))
        self.make("epochs", "<i4", len(sizes))
        self.maps: Dict[str, np.ndarray] = {}

    def make(self, name: str, dtype: str, length: int) -> None:
        """Create a file of zeros, unless one of the right size exists."""
        path, size = os.path.join(self.folder, name), np.dtype(dtype).itemsize * length
        if not os.path.exists(path) or os.path.getsize(path) != size:
            with atomic_path(path) as tmp, open(tmp, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # writing to a map kills the process when the disk is full

    def map(self, name: str, dtype: str) -> np.ndarray:
        """The file as a writable memory map."""
        if name not in self.maps:
            self.maps[name] = np.memmap(os.path.join(self.folder, name), dtype, "r+")
        return self.maps[name]

    def __getstate__(self) -> Dict[str, Any]:  # for data workers that are spawned instead of forked
        return {**vars(self), "maps": {}}

    def place(self, block: int) -> slice:
        """Where the values of a block are."""
        return slice(int(self.ends[block - 1]) if block else 0, int(self.ends[block]))

    def read(self, block: int) -> Tuple[np.ndarray, int]:
        """The entropies of a block, fp32, nats, one for each token, and the epoch in which they were computed (0 =
        never).

        Raises:
            UsageError: they are nan.
        """
        values = self.map("values", "<f4")[self.place(block)]
        require("--entropy-cache", f"{self.folder} with nan in block {block}", not np.isnan(values).any(), ANEW)
        return values, int(self.map("epochs", "<i4")[block])

    def write(self, blocks: Iterable[int], entropies: Iterable[np.ndarray], epoch: int) -> None:
        """Replace the entropies of some blocks.

        Args:
            blocks: their indices.
            entropies: fp32, nats, an array for each, at least as long as the block.
            epoch: in which they were computed.
        """
        epochs = self.map("epochs", "<i4")
        for block, values in zip(blocks, entropies):
            place = self.place(block)
            epochs[block] = 0  # if the process is killed here, the block has no values
            self.map("values", "<f4")[place] = values[: place.stop - place.start]
            epochs[block] = epoch
