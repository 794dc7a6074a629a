"""Which documents are for validation? Those with a small digest, whatever the order, the run or the machine.

    validation  <=>  digest(text) < limit,   limit = fraction * 2**64

so identical documents are always on the same side.
"""

import hashlib
from collections.abc import Sequence

from ..system.errors import UsageError
from .sources import Document


def digest_of(lines: Sequence[str]) -> int:
    """A hash of a document, uniform in [0, 2**64)."""
    return int.from_bytes(hashlib.blake2b("\n".join(lines).encode(), digest_size=8).digest(), "big")


def validation_limit(fraction: float, smallest: int, largest: int, origin: str = "the text") -> int:
    """fraction * 2**64, clamped for small corpora: the document with the smallest digest is for validation, the one
    with the largest for training.

    Args:
        fraction: of the documents that are for validation, in (0, 1).
        smallest: digest.
        largest: digest.
        origin: begins a message.
    Raises:
        UsageError: all documents are the same.
    """
    if smallest == largest:
        raise UsageError(
            f"{origin}: one distinct document found, expected at least two (one to train on, one to validate): "
            "documents are separated by blank lines"
        )
    return min(max(int(fraction * 2**64), smallest + 1), largest)


def split_of(document: Document, limit: int) -> str:
    """"train", "valid" or "test"; official splits take precedence."""
    return document.split or ("valid" if digest_of(document.lines) < limit else "train")
