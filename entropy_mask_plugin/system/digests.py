"""Names for contents: the same digest, the same content."""

import hashlib

BYTES = 16


def digest(content):
    """Of bytes, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=BYTES).hexdigest()


def digest_of_file(path):
    """The same of what a file holds, however large it is."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=BYTES)).hexdigest()
