"""The files of a Hugging Face model, read without running code in them."""

import fnmatch
import json
import os
from typing import Any, Dict, List

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoints.reading import load_safely
from ..system.errors import UsageError, require

DOWNLOADED = ["config.json", "model*.safetensors*", "pytorch_model*.bin*", "vocab.txt", "*token*.json",
              "tokenizer.model"]


def folder_of(name: str, flag: str) -> str:
    """The folder itself, or the one in the hub's cache, downloaded if it is not there.

    Args:
        name: a folder, or a name on the hub.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: neither a folder nor a name on the hub, or no network.
    """
    if os.path.isdir(name):
        return name
    if os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"{flag}: {name} is not a folder, expected a Hugging Face folder or a name on the hub")
    import huggingface_hub  # here, as it takes a second, and is not needed for a folder

    try:
        files = huggingface_hub.list_repo_files(name)
        # Pickles only where there is no safetensors file: else all weights would be downloaded twice.
        safe = any(fnmatch.fnmatch(file, "model*.safetensors") for file in files)
        return huggingface_hub.snapshot_download(
            name, allow_patterns=DOWNLOADED, ignore_patterns=["pytorch_model*"] if safe else None
        )
    except Exception as error:  # the network, the hub and its client raise many types
        try:
            return huggingface_hub.snapshot_download(name, allow_patterns=DOWNLOADED, local_files_only=True)
        except Exception:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{flag}: {name} is not a folder and cannot be downloaded from the hub "
                f"({type(error).__name__}: {reason})"
            ) from error


def read_model_json(folder: str, name: str, flag: str) -> Dict[str, Any]:
    """The JSON object in a file of a Hugging Face folder.

    Raises:
        UsageError: missing, or not a JSON object.
    """
    path = os.path.join(folder, name)
    if name == "config.json" and os.path.exists(os.path.join(folder, "model.pt")) and not os.path.exists(path):
        raise UsageError(f"{flag}: {folder} is an imported folder, not a Hugging Face one, expected its model.pt or "
                         "the original")
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise UsageError(f"{flag}: {path}: {error.strerror}, expected the {name} of a Hugging Face model") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{flag}: {path} is not JSON ({error}), expected a Hugging Face model's {name}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{flag}: {path} holds a {type(content).__name__}, expected an object")
    return content


def read_tensors(folder: str, flag: str) -> Dict[str, Tensor]:
    """{name: tensor} of model.safetensors or pytorch_model.bin, in one file or several.

    Raises:
        UsageError: missing, truncated, or a pickle that would run code.
    """
    for name, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_pickle)):
        if os.path.exists(os.path.join(folder, name)):
            return read(os.path.join(folder, name), flag)
        if os.path.exists(os.path.join(folder, name + ".index.json")):
            return {key: tensor for part in parts_of_index(folder, name + ".index.json", flag)
                    for key, tensor in read(os.path.join(folder, part), flag).items()}
    raise UsageError(f"{flag}: {folder} has no weights, expected model.safetensors or pytorch_model.bin")


def parts_of_index(folder: str, name: str, flag: str) -> List[str]:
    """The files that an index names, in order; raises a UsageError where it is damaged."""
    places: Any = read_model_json(folder, name, flag).get("weight_map")
    fine = isinstance(places, dict) and places and all(
        isinstance(part, str) and os.path.basename(part) == part and "\0" not in part for part in places.values())
    require(flag, f"{os.path.join(folder, name)} without a usable weight_map", fine, "{tensor: file of the folder}")
    return sorted(set(places.values()))


def read_safetensors(path: str, flag: str) -> Dict[str, Tensor]:
    """{name: tensor} of one .safetensors file; raises a UsageError if it is missing or damaged."""
    if not os.path.exists(path):
        raise UsageError(f"{flag}: {path} is missing, expected it in the folder of the index that names it")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{flag}: {path} is truncated or not a safetensors file ({error})") from None


def read_pickle(path: str, flag: str) -> Dict[str, Tensor]:
    """{name: tensor} of one .bin file; raises a UsageError if it is anything but tensors."""
    tensors = load_safely(path, flag)
    if not (isinstance(tensors, dict) and all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())):
        raise UsageError(f"{flag}: {path} is not a dict of tensors, expected the weights of a model")
    return tensors
