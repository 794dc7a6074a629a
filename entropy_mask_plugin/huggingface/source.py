"""The files of a Hugging Face model, read without running anything that is in them."""

import fnmatch
import json
import os

import torch
from safetensors import SafetensorError, safe_open

from ..checkpoints.reading import load_safely
from ..system.errors import UsageError

WANTED = ("config.json", "model*.safetensors*", "pytorch_model*.bin*", "vocab.txt", "*token*.json", "tokenizer.model")


def folder_of(name, flag):
    """The folder itself, or the one in the hub's cache, downloaded where it is not there.

    Raises:
        UsageError: neither a folder nor a name that the hub knows, or no network.
    """
    if os.path.isdir(name):
        return name
    if os.path.exists(name) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"{flag}: {name} is no folder, expected a Hugging Face folder or a name on the hub")
    import huggingface_hub  # takes a second, and a folder does not need it

    try:
        files = huggingface_hub.list_repo_files(name)
        # The old format only where the safe one is missing: both together would be fetched twice.
        safe = any(fnmatch.fnmatch(file, "model*.safetensors") for file in files)
        return huggingface_hub.snapshot_download(
            name, allow_patterns=WANTED, ignore_patterns=["pytorch_model*"] if safe else None
        )
    except Exception as error:  # the network, the hub and its client each have their own kinds
        try:
            return huggingface_hub.snapshot_download(name, allow_patterns=WANTED, local_files_only=True)
        except Exception:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{flag}: {name} is no folder and cannot be fetched from the hub ({type(error).__name__}: {reason})"
            ) from error


def read_json(folder, name, flag):
    """A dict.

    Raises:
        UsageError: missing, or no JSON.
    """
    path = os.path.join(folder, name)
    if name == "config.json" and os.path.exists(os.path.join(folder, "model.pt")) and not os.path.exists(path):
        raise UsageError(f"{flag}: {folder} is no Hugging Face folder but an imported one, expected its model.pt or "
                         "the original")
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise UsageError(f"{flag}: {path}: {error.strerror}, expected the {name} of a Hugging Face model") from error
    except ValueError as error:
        raise UsageError(f"{flag}: {path} is no JSON ({error}), expected the {name} of a Hugging Face model") from error
    if not isinstance(content, dict):
        raise UsageError(f"{flag}: {path} holds a {type(content).__name__}, expected an object")
    return content


def read_tensors(folder, flag):
    """{name: tensor} of model.safetensors or pytorch_model.bin, in one file or several.

    Raises:
        UsageError: none there, truncated, or a pickle that wants to run code.
    """
    for whole, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_pickle)):
        if os.path.exists(os.path.join(folder, whole)):
            return read(os.path.join(folder, whole), flag)
        if os.path.exists(os.path.join(folder, whole + ".index.json")):
            parts = set(read_json(folder, whole + ".index.json", flag).get("weight_map", {}).values())
            return {name: tensor for part in sorted(parts)
                    for name, tensor in read(os.path.join(folder, os.path.basename(part)), flag).items()}
    raise UsageError(f"{flag}: {folder} has no weights, expected model.safetensors or pytorch_model.bin")


def read_safetensors(path, flag):
    if not os.path.exists(path):
        raise UsageError(f"{flag}: {path} is missing, expected it beside the index that names it")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{flag}: {path} is truncated or no safetensors file ({error})") from None


def read_pickle(path, flag):
    tensors = load_safely(path, flag)
    if not (isinstance(tensors, dict) and all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())):
        raise UsageError(f"{flag}: {path} is no dict of tensors, expected the weights of a model")
    return tensors
