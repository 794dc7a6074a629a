"""The .idx file of a data-bin: the offset of each line in the .bin file.

With numpy 2 and several processes, fairseq's own writer adds up sizes in int32: its offsets are wrong beyond 2 GiB.

    header (magic, version, type of the ids, n lines)  +  n sizes (int32, in ids)  +  n pointers (int64, in bytes)
"""

import struct

import numpy as np

from ..system.errors import naming

HEADER = struct.Struct("<9sQBQ")
MAGIC, VERSION = b"MMIDIDX\0\0", 1
TYPE_CODES = {2: 8, 4: 4}  # bytes of an id -> fairseq's code: uint16, int32


def read_sizes(path: str) -> np.ndarray:
    """(n) int32: the number of ids in each line."""
    with naming(path), open(path, "rb") as file:
        *_, lines = HEADER.unpack(file.read(HEADER.size))
        return np.fromfile(file, np.int32, lines)


def write_index(path: str, sizes: np.ndarray, width: int) -> None:
    """Write an .idx file. sizes: (n) int32, ids per line; width: bytes per id."""
    ends = np.cumsum(sizes, dtype=np.int64) * width
    with open(path, "wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, TYPE_CODES[width], len(sizes)))
        file.write(sizes.tobytes())  # where `tofile` fails, its error has no number
        file.write((ends - sizes.astype(np.int64) * width).tobytes())
