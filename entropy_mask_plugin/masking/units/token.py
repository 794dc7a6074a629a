"""Subword tokens, as the paper masks them."""

from typing import Any

from torch import Tensor

from ..noise import Draw
from .registry import UNITS


@UNITS.add("token")
def token(tokens: Tensor, candidates: Tensor, vocabulary: Any, draw: Draw) -> None:
    """Each token alone."""
