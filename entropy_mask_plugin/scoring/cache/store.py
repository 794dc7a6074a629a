"""A folder with the entropies of all blocks of a data set.

    facts.json          what they depend on, for people
    00000.entropies …   parts: fp32 values of consecutive blocks, one behind the other, and a digest at the end

A part appears under its name when it is complete, and is read only when its digest is right.
Shapes: N blocks.
"""

import hashlib
import os

import numpy as np

from ...system.atomic_files import atomic_path, write_bytes, write_json
from ...system.locks import try_lock

PART_TOKENS = 1 << 20  # 4 MiB
MOST_PARTS = 256  # each is a memory map and an open file
DIGEST_BYTES = 16


class EntropyStore:
    """
    Args:
        folder: made where it is not there; its name is the fingerprint.
        facts: content of facts.json.
        sizes: N, tokens of each block.
    """

    def __init__(self, folder, facts, sizes):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        if not os.path.exists(os.path.join(folder, "facts.json")):  # a complete cache may be on a read-only disk
            write_json(os.path.join(folder, "facts.json"), facts)
        self.ends = np.cumsum(sizes, dtype=np.int64)  # of each block, in all values
        parts = min(MOST_PARTS, -(-int(self.ends[-1]) // PART_TOKENS))
        self.blocks_per_part = -(-len(sizes) // parts)
        self.number_of_parts = -(-len(sizes) // self.blocks_per_part)
        self.maps = {}  # part -> memory map; a data worker opens its own

    def blocks(self, part):
        """Which blocks a part holds: a range."""
        first = part * self.blocks_per_part
        return range(first, min(first + self.blocks_per_part, len(self.ends)))

    def begin(self, block):
        return int(self.ends[block - 1]) if block else 0

    def path(self, part):
        return os.path.join(self.folder, f"{part:05d}.entropies")

    def missing(self):
        """The parts that are not there, or damaged."""
        return [part for part in range(self.number_of_parts) if not self.is_whole(part)]

    def is_whole(self, part):
        try:
            with open(self.path(part), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return False
        values, found = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        return len(values) == 4 * self.number_of_values(part) and found == self.digest(part, values)

    def number_of_values(self, part):
        blocks = self.blocks(part)
        return int(self.ends[blocks[-1]]) - self.begin(blocks[0])

    def digest(self, part, values):
        """Of the values, and of where they belong: a part that was copied to another place is not whole there."""
        name = f"{os.path.basename(self.folder)} {part}".encode()
        return hashlib.blake2b(values, digest_size=DIGEST_BYTES, key=name[:64]).digest()

    def write(self, part, entropies):
        """entropies: fp32 arrays, one for each block of the part."""
        values = np.concatenate(entropies).astype("<f4").tobytes()
        assert len(values) == 4 * self.number_of_values(part)
        with atomic_path(self.path(part)) as tmp:
            write_bytes(tmp, values + self.digest(part, values))

    def read(self, block):
        """fp32, one value for each token of the block."""
        part = block // self.blocks_per_part
        if part not in self.maps:
            self.maps[part] = np.memmap(self.path(part), "<f4", "r", shape=self.number_of_values(part))
        offset = self.begin(self.blocks(part)[0])
        return self.maps[part][self.begin(block) - offset : int(self.ends[block]) - offset]

    def __getstate__(self):  # for data workers that are not forked
        return {**vars(self), "maps": {}}

    def try_lock(self, part):
        """A block that knows whether nobody else is at work on the part."""
        return try_lock(os.path.join(self.folder, "claims"), part)
