"""Which symbols do a checkpoint's token ids stand for? Our task records them in every checkpoint, and compares them
with its own before it uses one."""

import argparse
import logging
import os
import pathlib
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, List, Optional

from fairseq import utils
from fairseq.data import Dictionary

from ..system.errors import UsageError, require
from ..system.text import one_line

RECORD = "vocabulary"  # key in a checkpoint's extra_state

logger = logging.getLogger(__name__)


def check_vocabulary(state: dict, path: str, flag: str, task: Any) -> None:
    """Refuse a checkpoint whose ids stand for other symbols than the data's.

    Args:
        state: the checkpoint.
        path: its file.
        flag: the command-line flag that names it, for messages.
        task: whose `source_dictionary` it must have.
    Raises:
        UsageError: gives both sizes and, where the checkpoint's symbols are available, the first that differs.
    """
    theirs = symbols_of_checkpoint(state, path)
    if theirs is None:
        check_size(state, path, flag, len(task.source_dictionary))
    else:
        check_symbols(theirs, path, flag, task)


def check_symbols(theirs: List[str], path: str, flag: str, task: Any) -> None:
    """Raise a UsageError unless `theirs` are the symbols of the task's dictionary, in its order."""
    ours = task.source_dictionary.symbols
    if theirs != ours:
        raise UsageError(f"{flag}: {path} has another vocabulary than the data: {first_difference(theirs, ours)}")


def check_size(state: dict, path: str, flag: str, expected: int) -> None:
    """Raise a UsageError unless the checkpoint's token embedding has the expected number of rows."""
    logger.warning(f"{flag}: {path} does not record its vocabulary: only its size can be compared with the data's")
    for name, tensor in state["model"].items():
        if name.endswith("embed_tokens.weight") and tensor.shape[:1] != (expected,):
            raise UsageError(f"{flag}: {path} has another vocabulary than the data: {sum(tensor.shape[:1])} symbols, "
                             f"expected {expected}")


def first_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """One clause with both sizes and the first id at which two lists of symbols differ."""
    at, their, our = next((i, a, b) for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
    sizes = f", expected {len(ours)};" if len(theirs) != len(ours) else " as expected, but"
    return f"{len(theirs)} symbols{sizes} at id {at} it has {their!r}, expected {our!r}"


def symbols_of_checkpoint(state: dict, path: str) -> Optional[List[str]]:
    """The symbols that a checkpoint was trained with: its own record, or else the dict.txt in its folder or in the
    data-bin that it was trained on; None = none of these exists."""
    recorded = (state.get("extra_state") or {}).get(RECORD)
    if recorded:
        return recorded
    data = data_bin(state, path)
    data_folders = [data, os.path.join(data, "input0")] if data else []  # the second is sentence_prediction's
    for folder in (os.path.dirname(path), *data_folders):
        file = os.path.join(folder, "dict.txt")
        if os.path.exists(file):
            theirs = read_dictionary(folder)
            theirs.add_symbol("<mask>")
            return theirs.symbols
    return None


def data_bin(state: dict, path: str) -> str:
    """The first data folder that a checkpoint was trained on; "" where it records none.

    A path relative to the working directory of the training is also tried relative to the checkpoint's parent folders.
    """
    task = (state.get("cfg") or {}).get("task") or state.get("args") or {}
    data = vars(task).get("data") if isinstance(task, argparse.Namespace) else task.get("data")
    if not isinstance(data, str):
        return ""
    folder = utils.split_paths(data)[0]
    above = [folder, *(str(parent / folder) for parent in pathlib.Path(path).absolute().parents)]
    return next(filter(os.path.isdir, above), folder)


def read_dictionary_of_shards(folders: Sequence[str]) -> Dictionary:
    """The dictionary that all data-bin folders share.

    Raises:
        UsageError: missing, empty, or not the same in all of them.
    """
    first = read_dictionary(folders[0])
    for folder in folders[1:]:
        other = read_dictionary(folder)
        if other.symbols != first.symbols:
            difference = first_difference(other.symbols, first.symbols)
            raise UsageError(f"data: {folder} has another dict.txt than the first shard: {difference}")
    return first


def read_dictionary(folder: str) -> Dictionary:
    """The dict.txt of a data-bin, with fairseq's special symbols.

    Raises:
        UsageError: missing, empty, or of another format.
    """
    file = os.path.join(folder, "dict.txt")
    if not os.path.exists(file):
        raise UsageError(f"data: {file} does not exist, expected a folder written by fairseq-preprocess")
    try:
        dictionary = Dictionary.load(file)
    except Exception as error:  # fairseq raises ValueError, RuntimeError and plain Exceptions
        raise UsageError(f"data: {file} cannot be read ({one_line(str(error))[:200]}), expected one symbol and its "
                         "count a line") from error
    if len(dictionary) == dictionary.nspecial:
        raise UsageError(f"data: {file} is empty, expected one symbol and its count a line")
    first = dictionary.symbols[dictionary.nspecial]  # an editor's mark would belong to it
    require("data", f"{file} with a byte order mark", not first.startswith("\ufeff"), "UTF-8 without one")
    require("data", f"{file} with a count of {min(dictionary.count)}", min(dictionary.count) >= 0, "0 or more")
    return dictionary
