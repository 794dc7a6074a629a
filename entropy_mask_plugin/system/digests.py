"""Digests that identify content."""

import hashlib

from .errors import naming

BYTES = 16


def digest(content: bytes) -> str:
    """BLAKE2b of 16 bytes, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=BYTES).hexdigest()


def digest_of_file(path: str) -> str:
    """As `digest`, of a file of any size."""
    with naming(path), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=BYTES)).hexdigest()
