"""Reading a checkpoint that somebody else may have written, without running what is in it; and comparing vocabularies:
the ids in a checkpoint are worthless without the symbols they stand for, so our task records them in every one."""

import logging
import os
import pickle
from itertools import zip_longest

import torch
from fairseq import utils
from fairseq.data import Dictionary

from .errors import UsageError

logger = logging.getLogger(__name__)


def read_checkpoint(path, flag):
    """A fairseq checkpoint as a dict, memory-mapped: only what is looked at is read.

    Args:
        path: a file written by fairseq-train.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: missing, a folder, truncated, not a fairseq checkpoint, or a pickle that wants to run code.
    """
    if os.path.isdir(path):
        raise UsageError(f"{flag}: {path} is a folder, expected a checkpoint file written by fairseq-train")
    if not os.path.exists(path):
        raise UsageError(f"{flag}: {path} does not exist, expected a checkpoint file written by fairseq-train")
    state = _load(path, flag)
    if not (isinstance(state, dict) and "model" in state and (state.get("cfg") or state.get("args"))):
        raise UsageError(f"{flag}: {path} is no fairseq checkpoint, expected a dict with 'model' and 'cfg'")
    return state


def vocabulary_record(task):
    """What a task adds to its checkpoints; fairseq files it in `extra_state` under the name of the task's class."""
    return {type(task).__name__: {"symbols": list(task.source_dictionary.symbols)}}


def check_vocabulary(state, path, flag, task):
    """Refuse a checkpoint whose ids mean other symbols than the data's.

    Raises:
        UsageError: with both sizes and the first symbol that differs.
    """
    theirs, ours = symbols_of_checkpoint(state, path, task), task.source_dictionary.symbols
    if theirs is None:
        logger.warning(f"{flag}: {path} does not say its vocabulary: only its size can be compared with the data's")
    elif theirs != ours:
        raise UsageError(f"{flag}: {path} has another vocabulary than the data: {first_difference(theirs, ours)}")


def first_difference(theirs, ours):
    """One clause with both sizes and the first id at which two lists of symbols differ."""
    at, their, our = next((i, a, b) for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
    return f"{len(theirs)} symbols, expected {len(ours)}; at id {at} it has {their!r}, expected {our!r}"


def symbols_of_checkpoint(state, path, task):
    """The symbols that a checkpoint was trained with: its own record, or the dict.txt beside it
    or in the data-bin it was trained on. None where there is none of these."""
    record = (state.get("extra_state") or {}).get(type(task).__name__)
    if record:
        return record["symbols"]
    for folder in (os.path.dirname(path), data_bin(state)):
        file = os.path.join(folder, "dict.txt")
        if os.path.exists(file):
            return with_mask(Dictionary.load(file)).symbols
    return None


def data_bin(state):
    """The first folder of the data that a checkpoint was trained on."""
    data = state["cfg"]["task"].get("data") if state.get("cfg") else getattr(state["args"], "data", None)
    return utils.split_paths(data)[0] if data else ""


def with_mask(dictionary):
    dictionary.add_symbol("<mask>")
    return dictionary


def _load(path, flag):
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        reason = "holds more than tensors and plain values" if "global" in str(error).lower() else "cannot be read"
        raise UsageError(f"{flag}: {path} {reason}; refused, nothing in it was run ({_first_line(error)})") from None
    except Exception as error:  # a file that is something else can trip the unpickler anywhere
        raise UsageError(f"{flag}: {path} is truncated or no checkpoint ({_first_line(error)})") from None


def _is_zip(path):
    """Only torch's zip format can be memory-mapped; checkpoints older than torch 1.6 are plain pickles."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
