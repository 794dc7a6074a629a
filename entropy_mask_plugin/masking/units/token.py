"""Subword tokens, as the paper masks them."""

from torch import Tensor

from ..noise import Draw
from ..vocabulary import Vocabulary
from .registry import UNITS


@UNITS.add("token")
def token(tokens: Tensor, candidates: Tensor, vocabulary: Vocabulary, draw: Draw) -> None:
    """Each token alone."""
