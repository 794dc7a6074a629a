"""Are the files of a data-bin complete, and do they belong together? Without these checks, a cut file or another
dictionary ends in a traceback, perhaps in the middle of a run."""

import itertools
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from fairseq.data import Dictionary, data_utils, indexed_dataset
from fairseq.data.indexed_dataset import MMapIndexedDataset
from torch import Tensor

from ..system.errors import UsageError, require

HEADER = struct.Struct("<9sQBQ")  # of an .idx: magic, version, type of the ids, number of lines
BYTES_PER_LINE = 12  # behind it: a size (int32) and a pointer (int64)
MAGIC = MMapIndexedDataset.Index._HDR_MAGIC
DTYPES = indexed_dataset._code_to_dtype


def check_split(prefix: str) -> None:
    """Check that a split exists and holds text. prefix: path of its files without .bin and .idx.

    Raises:
        UsageError: it does not.
    """
    if not indexed_dataset.dataset_exists(prefix, impl=None):
        below = os.path.join(os.path.dirname(prefix), "bin")
        instead = below if os.path.isdir(below) else "a folder written by fairseq-preprocess"
        raise UsageError(f"data: {prefix}.bin and .idx not found, expected {instead}")
    if os.path.getsize(prefix + ".bin") == 0:
        raise UsageError(f"data: {prefix}.bin holds no sequences, expected at least one")


def load_lines(prefix: str, dictionary: Dictionary, combine: bool) -> Any:
    """fairseq's dataset of the lines of a split, once its files have passed all checks.

    Args:
        prefix: path of the files without .bin and .idx.
        dictionary: of the data.
        combine: also split1, split2, ….
    Raises:
        UsageError: a file is missing, or damaged.
    """
    check_split(prefix)
    try:
        check_indices(prefix, combine)
        lines = data_utils.load_indexed_dataset(prefix, dictionary, combine=combine)
    except UsageError:
        raise
    except Exception as error:  # a damaged index can trip its reader anywhere
        raise UsageError(f"data: {prefix}.bin or .idx cannot be read ({error}), expected complete files") from error
    check_sizes(prefix, combine)
    return lines


def parts_of(prefix: str, combine: bool) -> Iterator[str]:
    """The paths of the files of a split without .bin and .idx: split, and with `combine` split1, split2, …."""
    for number in itertools.count():
        path = f"{prefix}{number or ''}"
        if number and not (combine and indexed_dataset.dataset_exists(path, impl=None)):
            return
        if indexed_dataset.infer_dataset_impl(path) == "mmap":
            yield path


def check_indices(prefix: str, combine: bool) -> None:
    """Check that each .idx is as long as its header says: fairseq's reader prints a traceback where it is not.

    Arguments as for `check_sizes`.

    Raises:
        UsageError: one is not.
    """
    for path in parts_of(prefix, combine):
        with open(path + ".idx", "rb") as file:
            header = file.read(HEADER.size)
        fine = len(header) == HEADER.size
        if fine:
            magic, version, code, n = HEADER.unpack(header)
            size = os.path.getsize(path + ".idx")
            fine = magic == MAGIC and version == 1 and code in DTYPES and size == HEADER.size + n * BYTES_PER_LINE
        require("data", f"{path}.idx, which is damaged,", fine, "it as fairseq-preprocess wrote it")


def check_sizes(prefix: str, combine: bool) -> None:
    """Check that each .bin is as large as its .idx says.

    Args:
        prefix: path of the files without .bin and .idx, which can be read.
        combine: also check split1, split2, ….
    Raises:
        UsageError: one is not, as when a copy was interrupted.
    """
    for path in parts_of(prefix, combine):
        size, expected = os.path.getsize(path + ".bin"), size_by_index(path + ".idx")
        require("data", f"{path}.bin of {size:,} bytes", size == expected, f"{expected:,}, as {path}.idx says")


def size_by_index(path: str) -> int:
    """Bytes of the .bin that belongs to an .idx.

    Raises:
        UsageError: the index is damaged.
    """
    index = MMapIndexedDataset.Index(path)
    ends = index.sizes.cumsum(dtype=np.int64) * np.dtype(index.dtype).itemsize
    is_consistent = len(ends) and index.sizes.min() >= 0 and index._pointers[0] == 0 and np.array_equal(
        index._pointers[1:], ends[:-1])
    require("data", f"{path}, which is damaged,", is_consistent, "it as fairseq-preprocess wrote it")
    return int(ends[-1])


def check_symbols(block: Tensor, n_symbols: int, prefix: str) -> None:
    """Check that a block's ids are in the dictionary.

    Args:
        block: T int64.
        n_symbols: of the dictionary, <mask> included.
        prefix: path of the file that the block is from, without .bin.
    Raises:
        UsageError: one is not.
    """
    smallest, largest = (int(block.min()), int(block.max())) if len(block) else (0, 0)
    unknown = smallest if smallest < 0 else largest
    require("data", f"{prefix}.bin with symbol {unknown:,} and a dict.txt of {n_symbols:,} symbols",
            smallest >= 0 and largest < n_symbols, "the dict.txt with which it was preprocessed")
