"""A model's own entropies from the epoch in which they were last computed, block by block.

    values    fp32, one for each token, blocks one behind the other
    epochs    int32, for each block the epoch in which its values were computed; 0 = never

Shapes: N blocks.
"""

import os

import numpy as np

from ...system.atomic_files import atomic_path, write_json


class SelfEntropyStore:
    """
    Args:
        folder: made where it is not there.
        facts: content of facts.json.
        sizes: N, tokens of each block.
    """

    def __init__(self, folder, facts, sizes):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.ends = np.cumsum(sizes, dtype=np.int64)
        write_json(os.path.join(folder, "facts.json"), facts)
        self.make("values", "<f4", int(self.ends[-1]))
        self.make("epochs", "<i4", len(sizes))
        self.maps = {}

    def make(self, name, dtype, length):
        """A file of zeros, unless one of the right size is there."""
        path, size = os.path.join(self.folder, name), np.dtype(dtype).itemsize * length
        if not os.path.exists(path) or os.path.getsize(path) != size:
            with atomic_path(path) as tmp, open(tmp, "wb") as file:
                file.truncate(size)

    def map(self, name, dtype):
        if name not in self.maps:
            self.maps[name] = np.memmap(os.path.join(self.folder, name), dtype, "r+")
        return self.maps[name]

    def __getstate__(self):  # for data workers that are not forked
        return {**vars(self), "maps": {}}

    def place(self, block):
        return slice(int(self.ends[block - 1]) if block else 0, int(self.ends[block]))

    def read(self, block):
        """(fp32, one value for each token of the block; the epoch in which they were computed)."""
        return self.map("values", "<f4")[self.place(block)], int(self.map("epochs", "<i4")[block])

    def write(self, blocks, entropies, epoch):
        """entropies: an array for each block, not shorter than the block."""
        epochs = self.map("epochs", "<i4")
        for block, values in zip(blocks, entropies):
            place = self.place(block)
            epochs[block] = 0  # killed in between, the block has no values
            self.map("values", "<f4")[place] = values[: place.stop - place.start]
            epochs[block] = epoch
