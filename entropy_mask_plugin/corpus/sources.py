"""Where documents come from: text files (docstrings and public datasets have their own files).

A source has `description` ({flag and value: what identifies it}), `length` and `unit` (for a progress bar) and
`documents()`, which starts anew at each call: a corpus is read twice and never held in memory.
"""

import functools
import os
from typing import List, NamedTuple, Optional

from ..system.errors import UsageError
from ..system.text import one_line

LARGEST_DOCUMENT = 64 << 20  # bytes; a document is held in memory, so a file without blank lines must not be one


class Document(NamedTuple):
    split: Optional[str]  # "train", "valid" or "test" where the source has official splits
    lines: List[str]  # paragraphs, see `one_line`; never empty
    position: int  # how much of the source has been read, in units of `length`


class TextFiles:
    """Plain UTF-8 text, blank lines between documents; the end of a file ends a document too."""

    unit = "B"

    def __init__(self, paths):
        self.paths = [os.path.abspath(path) for path in paths]
        for path in self.paths:
            if not (os.path.isfile(path) and os.access(path, os.R_OK)):
                found = "cannot be read" if os.path.isfile(path) else "is no file"
                raise UsageError(f"--text {path}: {found}, expected a file of UTF-8 text")
        self.sizes = [os.path.getsize(path) for path in self.paths]
        self.length = sum(self.sizes)
        self.description = {f"--text {path}": f"{size} bytes" for path, size in zip(self.paths, self.sizes)}

    def documents(self):
        before = 0
        for path, size in zip(self.paths, self.sizes):
            for lines, position in documents_of_file(path):
                yield Document(None, lines, before + position)
            before += size


def documents_of_file(path):
    """Yield (lines, byte position behind them)."""
    lines, begin, position = [], 0, 0
    with open(path, "rb") as file:
        for raw in iter(functools.partial(file.readline, LARGEST_DOCUMENT), b""):
            position += len(raw)
            if position - begin >= LARGEST_DOCUMENT:
                raise UsageError(
                    f"--text {path}: the document that begins at byte {begin} has more than {LARGEST_DOCUMENT >> 20} "
                    "MiB, expected blank lines between documents"
                )
            line = one_line(decoded(raw, path, position - len(raw)))
            if line:
                lines.append(line)
                continue
            if lines:
                yield lines, position
            lines, begin = [], position
    if lines:
        yield lines, position


def decoded(raw, path, offset):
    try:
        return raw.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--text {path}: byte {offset + error.start} is not UTF-8, expected UTF-8 text") from None
