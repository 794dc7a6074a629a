"""A folder with the entropies of all blocks of a data set.

    facts.json          what they depend on, for humans
    00000.entropies …   parts: the fp32 values of consecutive blocks, and a digest at the end

A part gets its name when it is complete, and is used only if its digest is correct.
Shapes: N blocks.
"""

import hashlib
import os
from typing import Any, ContextManager, Dict, List, Mapping, Sequence

import numpy as np

from ...system.atomic_files import atomic_path, make_folder, read_bytes, write_bytes, write_json
from ...system.errors import require
from ...system.locks import try_lock

PART_TOKENS = 1 << 20  # 4 MiB
MAX_PARTS = 256  # each is a memory map and an open file
DIGEST_BYTES = 16
ANEW = "numbers: remove it, and they are computed anew"


class EntropyStore:
    """Entropies of N blocks, in parts.

    Args:
        folder: created if it does not exist; its name is the fingerprint.
        facts: content of facts.json.
        sizes: N integers, tokens of each block.
    """

    def __init__(self, folder: str, facts: Mapping[str, Any], sizes: Sequence[int]):
        make_folder(folder, "--entropy-cache")
        self.folder = folder
        if not os.path.exists(os.path.join(folder, "facts.json")):  # a complete cache may be on a read-only disk
            write_json(os.path.join(folder, "facts.json"), facts)
        self.ends = np.cumsum(sizes, dtype=np.int64)  # N: where each block ends among all values
        parts = min(MAX_PARTS, -(-int(self.ends[-1]) // PART_TOKENS))
        self.blocks_per_part = -(-len(sizes) // parts)
        self.number_of_parts = -(-len(sizes) // self.blocks_per_part)
        self.maps: Dict[int, np.ndarray] = {}  # part -> memory map; each data worker opens its own

    def blocks(self, part: int) -> range:
        """The indices of the blocks in a part."""
        first = part * self.blocks_per_part
        return range(first, min(first + self.blocks_per_part, len(self.ends)))

    def start_of(self, block: int) -> int:
        """Where a block starts among all values."""
        return int(self.ends[block - 1]) if block else 0

    def path(self, part: int) -> str:
        """The file of a part."""
        return os.path.join(self.folder, f"{part:05d}.entropies")

    def missing(self) -> List[int]:
        """The parts that do not exist or are damaged."""
        return [part for part in range(self.number_of_parts) if not self.is_complete(part)]

    def is_complete(self, part: int) -> bool:
        """Whether a part exists with the right size and digest."""
        try:
            content = read_bytes(self.path(part))
        except FileNotFoundError:
            return False
        values, stored_digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        return len(values) == 4 * self.number_of_values(part) and stored_digest == self.digest(part, values)

    def number_of_values(self, part: int) -> int:
        """Tokens of all blocks in a part."""
        blocks = self.blocks(part)
        return int(self.ends[blocks[-1]]) - self.start_of(blocks[0])

    def digest(self, part: int, values: bytes) -> bytes:
        """Digest of the values, the fingerprint and the part's number: a part copied to another place is rejected."""
        name = f"{os.path.basename(self.folder)} {part}".encode()
        return hashlib.blake2b(values, digest_size=DIGEST_BYTES, key=name[:64]).digest()

    def write(self, part: int, entropies: Sequence[np.ndarray]) -> None:
        """Write a part atomically. entropies: an array for each block of the part, nats."""
        values = np.concatenate(entropies).astype("<f4").tobytes()
        assert len(values) == 4 * self.number_of_values(part)
        with atomic_path(self.path(part)) as tmp:
            write_bytes(tmp, values + self.digest(part, values))

    def read(self, block: int) -> np.ndarray:
        """The entropies of a block, fp32, nats, one for each token.

        Raises:
            UsageError: they are nan, as those of blocks that are too long to be scored, which no training reads.
        """
        part = block // self.blocks_per_part
        if part not in self.maps:
            self.maps[part] = np.memmap(self.path(part), "<f4", "r", shape=self.number_of_values(part))
        offset = self.start_of(self.blocks(part)[0])
        values = self.maps[part][self.start_of(block) - offset : int(self.ends[block]) - offset]
        require("--entropy-cache", f"{self.path(part)} with nan in block {block}", not np.isnan(values).any(), ANEW)
        return values

    def __getstate__(self) -> Dict[str, Any]:  # for data workers that are spawned instead of forked
        return {**vars(self), "maps": {}}

    def try_lock(self, part: int) -> ContextManager[bool]:
        """A context manager that yields whether it got the lock of the part; it does not wait."""
        return try_lock(os.path.join(self.folder, "claims"), part)
