"""A file of masks: of one rank and epoch, and of consecutive updates.

    magic line, then zlib of
        n                     int64, the number of batches
        update, B, W          n x 3 int64
        sample ids            uint32, B for each batch
        masked positions      uint8, B x W for each batch: a bit for each position, the first in the highest
    and a digest

Masks are nearly random bits, which no list of positions states in fewer bytes.
Shapes: B sentences, T positions, W = ceil(T / 8) bytes.
"""

import glob
import hashlib
import os
import re
import zlib
from typing import List, NamedTuple, Sequence

import numpy as np

from ..system.atomic_files import atomic_path, write_bytes
from ..system.errors import UsageError

MAGIC = b"masks of entropy-mask, version 1\n"
NAME = re.compile(r"rank(\d+)/(\d+)-(\d+)-(\d+)\.masks")
DIGEST_BYTES = 16


class Batch(NamedTuple):
    """The masks of a batch. update: counted from 0; ids: B uint32; bits: B x W uint8."""

    update: int
    ids: np.ndarray
    bits: np.ndarray


class Part(NamedTuple):
    """A file of masks. first, last: its updates, both included."""

    path: str
    rank: int
    epoch: int
    first: int
    last: int


def folder_of_rank(folder: str, rank: int) -> str:
    """Where a rank writes its parts."""
    return os.path.join(folder, f"rank{rank}")


def parts_in(folder: str) -> List[Part]:
    """The parts of all ranks, in the order of their updates."""
    paths = glob.glob(os.path.join(glob.escape(folder), "rank*", "*.masks"))
    matches = [(path, NAME.fullmatch(name_of(path))) for path in paths]
    parts = [Part(path, *map(int, match.groups())) for path, match in matches if match]
    return sorted(parts, key=lambda part: (part.first, part.last, part.rank))


def name_of(path: str) -> str:
    """The name of a part in its recording."""
    return "/".join(path.split(os.sep)[-2:])


def write_part(folder: str, epoch: int, batches: Sequence[Batch]) -> str:
    """Write a part atomically. folder: of the rank; batches: at least one, in order. Returns its path."""
    path = os.path.join(folder, f"{epoch:05d}-{batches[0].update:09d}-{batches[-1].update:09d}.masks")
    table = np.array([(batch.update, *batch.bits.shape) for batch in batches], "<i8")
    payload = b"".join([np.array([len(batches)], "<i8").tobytes(), table.tobytes(),
                        *(batch.ids.astype("<u4").tobytes() for batch in batches),
                        *(batch.bits.tobytes() for batch in batches)])
    content = MAGIC + compressed(payload)
    with atomic_path(path) as tmp:
        write_bytes(tmp, content + digest(path, content))
    return path


def compressed(payload: bytes) -> bytes:
    """By zlib without a search for repetitions: of nearly random bits, that is smaller, and three times as quick."""
    compressor = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(payload) + compressor.flush()


def read_part(path: str) -> List[Batch]:
    """The batches of a part.

    Raises:
        UsageError: see `read_content`; the digest is right, but it holds no masks.
    """
    content = read_content(path)[len(MAGIC):]
    try:
        return batches_in(decompressed(content))
    except (ValueError, zlib.error) as error:
        raise UsageError(f"{path}: damaged ({error}), expected the file as --record-masks wrote it") from error


def decompressed(content: bytes) -> bytes:
    """What `compressed` was given, which cannot be more than eight times as long: each of its bytes takes a bit.

    Raises:
        zlib.error, ValueError: `compressed` has not written this.
    """
    decompressor = zlib.decompressobj()
    payload = decompressor.decompress(content, 8 * len(content) + 1)
    if not decompressor.eof:
        raise ValueError("compressed in another way")
    return payload


def batches_in(payload: bytes) -> List[Batch]:
    """The batches of a decompressed part; raises a ValueError where its table does not describe it."""
    n = int(np.frombuffer(payload, "<i8", 1)[0])
    table = np.frombuffer(payload, "<i8", 3 * n if 0 < n < len(payload) else 0, 8).reshape(-1, 3)
    size = 8 + table.nbytes + sum(b * (4 + w) for b, w in table[:, 1:].tolist())
    if not len(table) or table.min() < 0 or size != len(payload):
        raise ValueError("its table describes other masks")
    rows, at = table[:, 1], 8 + table.nbytes
    ids = np.split(np.frombuffer(payload, "<u4", int(rows.sum()), at), rows.cumsum()[:-1])
    sizes = rows * table[:, 2]
    bits = np.split(np.frombuffer(payload, np.uint8, int(sizes.sum()), at + 4 * int(rows.sum())), sizes.cumsum()[:-1])
    return [Batch(int(update), of_ids, of_bits.reshape(b, w))
            for (update, b, w), of_ids, of_bits in zip(table, ids, bits, strict=True)]


def read_content(path: str) -> bytes:
    """A part without its digest.

    Raises:
        UsageError: it cannot be read, is damaged, or was copied from another place.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}), expected the file as --record-masks wrote it"
                         ) from error
    content, stored_digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if not content.startswith(MAGIC) or stored_digest != digest(path, content):
        raise UsageError(f"{path}: damaged (its digest is wrong), expected the file as --record-masks wrote it")
    return content


def digest(path: str, content: bytes) -> bytes:
    """Digest of the content and the part's name: a part copied to another place is rejected."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=name_of(path).encode()[:64]).digest()
