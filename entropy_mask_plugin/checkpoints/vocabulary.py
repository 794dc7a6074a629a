"""Whose ids are these? A checkpoint is worthless without the symbols that its ids stand for, so our task records them
in every one, and compares them before it uses one."""

import argparse
import logging
import os
import pathlib
from itertools import zip_longest

from fairseq import utils
from fairseq.data import Dictionary

from ..system.errors import UsageError

RECORD = "vocabulary"  # in a checkpoint's extra_state

logger = logging.getLogger(__name__)


def check_vocabulary(state, path, flag, task):
    """Refuse a checkpoint whose ids mean other symbols than the data's.

    Args:
        state: the checkpoint; path, flag: where it is and which flag names it.
    Raises:
        UsageError: with both sizes and, where the symbols are known, the first that differs.
    """
    theirs = symbols_of_checkpoint(state, path)
    if theirs is None:
        check_size(state, path, flag, len(task.source_dictionary))
    else:
        check_symbols(theirs, path, flag, task)


def check_symbols(theirs, path, flag, task):
    ours = task.source_dictionary.symbols
    if theirs != ours:
        raise UsageError(f"{flag}: {path} has another vocabulary than the data: {first_difference(theirs, ours)}")


def check_size(state, path, flag, expected):
    logger.warning(f"{flag}: {path} does not say its vocabulary: only its size can be compared with the data's")
    for name, tensor in state["model"].items():
        if name.endswith("embed_tokens.weight") and len(tensor) != expected:
            raise UsageError(
                f"{flag}: {path} has another vocabulary than the data: {len(tensor)} symbols, expected {expected}"
            )


def first_difference(theirs, ours):
    """One clause with both sizes and the first id at which two lists of symbols differ."""
    at, their, our = next((i, a, b) for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
    sizes = f", expected {len(ours)};" if len(theirs) != len(ours) else " as expected, but"
    return f"{len(theirs)} symbols{sizes} at id {at} it has {their!r}, expected {our!r}"


def symbols_of_checkpoint(state, path):
    """The symbols that a checkpoint was trained with: its own record, or the dict.txt beside it or in the data-bin it
    was trained on. None where there is none of these."""
    recorded = (state.get("extra_state") or {}).get(RECORD)
    if recorded:
        return recorded
    data = data_bin(state, path)
    of_data = [data, os.path.join(data, "input0")] if data else []  # the second is sentence_prediction's
    for folder in (os.path.dirname(path), *of_data):
        file = os.path.join(folder, "dict.txt")
        if os.path.exists(file):
            theirs = Dictionary.load(file)
            theirs.add_symbol("<mask>")
            return theirs.symbols
    return None


def data_bin(state, path):
    """The first folder of the data that a checkpoint was trained on; "" where it does not say it.

    Written relative to the folder where training ran, it is also looked for from the folders above the checkpoint.
    """
    task = (state.get("cfg") or {}).get("task") or state.get("args") or {}
    data = vars(task).get("data") if isinstance(task, argparse.Namespace) else task.get("data")
    if not isinstance(data, str):
        return ""
    folder = utils.split_paths(data)[0]
    above = [folder, *(str(parent / folder) for parent in pathlib.Path(path).absolute().parents)]
    return next(filter(os.path.isdir, above), folder)


def read_dictionary_of_shards(folders):
    """The dictionary of the first data-bin; the others must have the same."""
    first = read_dictionary(folders[0])
    for folder in folders[1:]:
        other = read_dictionary(folder)
        if other.symbols != first.symbols:
            difference = first_difference(other.symbols, first.symbols)
            raise UsageError(f"data: {folder} has another dict.txt than the first shard: {difference}")
    return first


def read_dictionary(folder):
    file = os.path.join(folder, "dict.txt")
    if not os.path.exists(file):
        raise UsageError(f"data: {file} does not exist, expected a folder written by fairseq-preprocess")
    dictionary = Dictionary.load(file)
    if len(dictionary) == dictionary.nspecial:
        raise UsageError(f"data: {file} is empty, expected one symbol and its count a line")
    return dictionary
