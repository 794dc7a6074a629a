"""Reading a checkpoint from an untrusted source, without running code in it."""

import io
import os
import pickle
from typing import Any, Optional, Tuple

import torch

from ..system.errors import UsageError, require
from .structure import check_structure

SAFE = "a complete file of torch.save with nothing but tensors and plain values"
NO_HEAD = "masked-LM head"  # key in extra_state of an imported encoder without a head: why it cannot be a teacher


def file_or_huggingface_folder(path: str, flag: str) -> str:
    """The path itself, or for a folder written by `entropy-mask import-hf-bert`, the model.pt in it.

    Raises:
        UsageError: a folder that is neither.
    """
    if not os.path.isdir(path) or os.path.exists(os.path.join(path, "config.json")):
        return path
    require(flag, f"{path} without config.json", os.path.exists(os.path.join(path, "model.pt")),
            "a checkpoint file or a Hugging Face folder")
    return os.path.join(path, "model.pt")


def checkpoint_to_resume_from(cfg: Any) -> Optional[Tuple[str, str]]:
    """The checkpoint that fairseq-train begins with, as (the flag that names it, its path); None = it begins from
    scratch. cfg: settings with save_dir, restore_file and finetune_from_model."""
    last = os.path.join(cfg.save_dir, "checkpoint_last.pt")
    if cfg.restore_file != "checkpoint_last.pt":
        return "--restore-file", cfg.restore_file
    if os.path.exists(last):
        return "--save-dir", last
    return ("--finetune-from-model", cfg.finetune_from_model) if cfg.finetune_from_model else None


def read_checkpoint(path: str, flag: str) -> dict:
    """A fairseq checkpoint as a dict, memory-mapped: only the tensors that are used are read from disk.

    Args:
        path: a file written by fairseq-train.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: missing, a folder, truncated, not a fairseq checkpoint (see `check_structure`), or a pickle that
            would run code.
    """
    if not os.path.isfile(path):
        there = "is a folder" if os.path.isdir(path) else "is no regular file"  # a pipe or a device has no end
        problem = there if os.path.exists(path) else "does not exist"
        raise UsageError(f"{flag}: {path} {problem}, expected a checkpoint file written by fairseq-train")
    state = load_safely(path, flag)
    check_structure(state, path, flag)
    return state


def load_safely(path: str, flag: str) -> Any:
    """torch.load for files of tensors and plain values only.

    Args:
        path: of an existing file.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: truncated, another format, or a pickle that would run code.
    """
    try:
        if _is_zip(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with open(path, "rb") as file:  # all of it: from a file, a pickle is given as much memory as it asks for
            content = io.BytesIO(file.read())
        return torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "holds more than tensors and plain values" if "global" in str(error).lower() else "cannot be read"
        raise UsageError(f"{flag}: {path} {reason} ({_first_line(error)}), expected {SAFE}: refused, nothing in it was "
                         "run") from None
    except Exception as error:  # a file of another format can trip the unpickler anywhere
        raise UsageError(f"{flag}: {path} is truncated or not a checkpoint ({_first_line(error)}), expected {SAFE}"
                         ) from None


def _is_zip(path: str) -> bool:
    """Only torch's zip format can be memory-mapped; checkpoints older than torch 1.6 are plain pickles."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0][:200] if lines else type(error).__name__
