"""nan and infinity are refused where numbers come in."""

from collections.abc import Iterator
from typing import Any, Tuple

from torch import Tensor, strided

from .errors import require


def refuse_not_finite(tensors: Any, path: str, flag: str) -> None:
    """Check all numbers in nested dicts and lists: a single nan becomes nan everywhere, in scores without anyone
    noticing.

    Args:
        tensors: part of a checkpoint, or all of it.
        path: of the checkpoint.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: names the first tensor that has nan or infinity.
    """
    for name, tensor in tensors_in(tensors):
        require(flag, f"{path} with {name} larger than its part of the file", is_in_memory(tensor), "a dense tensor")
        require(flag, f"{path} with nan or inf in {name}", tensor.isfinite().all(), "finite numbers")


def is_in_memory(tensor: Tensor) -> bool:
    """Whether a tensor is dense and each of its values is in memory: a few bytes can be expanded to terabytes."""
    if tensor.layout != strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def tensors_in(part: Any, name: str = "") -> Iterator[Tuple[str, Tensor]]:
    """(the keys that lead to it, joined by dots; tensor) for each one in nested dicts and lists."""
    if isinstance(part, Tensor):
        yield name, part
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, (list, tuple)) else ()
    for key, value in items:
        yield from tensors_in(value, f"{name}.{key}" if name else str(key))
