"""Which documents are for validation? Those whose digest is small, whatever the order, the run or the machine.

    validation  <=>  digest(text) < limit,   limit = fraction * 2**64

so identical documents are always on the same side.
"""

import hashlib

from ..system.errors import UsageError


def digest_of(lines):
    """An integer, uniform in [0, 2**64)."""
    return int.from_bytes(hashlib.blake2b("\n".join(lines).encode(), digest_size=8).digest(), "big")


def validation_limit(fraction, smallest, largest, origin="the text"):
    """fraction * 2**64, moved where a small corpus needs it: the smallest digest validates, the largest trains."""
    if smallest == largest:
        raise UsageError(
            f"{origin}: one distinct document found, expected at least two (one to train on, one to validate): "
            "documents are separated by blank lines"
        )
    return min(max(int(fraction * 2**64), smallest + 1), largest)


def split_of(document, limit):
    """"train", "valid" or "test"; official splits stay as they are."""
    return document.split or ("valid" if digest_of(document.lines) < limit else "train")
