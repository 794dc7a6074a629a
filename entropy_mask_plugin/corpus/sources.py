"""Where documents come from: text files (docstrings and public datasets have their own files).

A source is read twice and never held in memory; `DocumentSource` is its interface.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Dict, List, NamedTuple, Optional, Protocol, Tuple

from ..system.errors import UsageError, naming
from ..system.text import one_line

LARGEST_DOCUMENT = 64 << 20  # bytes; a document is held in memory, so a huge file without blank lines is refused


class Document(NamedTuple):
    """A text whose sentences belong together."""

    split: Optional[str]  # "train", "valid" or "test" where the source has official splits
    lines: List[str]  # paragraphs, see `one_line`; never empty
    position: int  # how much of the source has been read, in units of `DocumentSource.length`


class DocumentSource(Protocol):
    """Where documents come from."""

    unit: str  # of the length

    @property
    def description(self) -> Dict[str, str]:
        """{flag and value: what identifies the content}."""
        ...

    @property
    def length(self) -> Optional[int]:
        """For a progress bar; None = unknown."""
        ...

    def documents(self) -> Iterator[Document]:
        """All documents, from the start at each call."""
        ...


class TextFiles:
    """UTF-8 text files with blank lines between documents; the end of a file ends a document too.

    Raises:
        UsageError: a file cannot be read.
    """

    unit = "B"

    def __init__(self, paths: Sequence[str]):
        self.paths = [os.path.abspath(path) for path in paths]
        for path in self.paths:
            if not (os.path.isfile(path) and os.access(path, os.R_OK)):
                problem = "cannot be read" if os.path.isfile(path) else "is not a file"
                raise UsageError(f"--text {path}: {problem}, expected a file of UTF-8 text")
        self.sizes = [os.path.getsize(path) for path in self.paths]
        self.length = sum(self.sizes)
        sizes = zip(self.paths, self.sizes, strict=True)
        self.description = {f"--text {path}": f"{size} bytes" for path, size in sizes}

    def documents(self) -> Iterator[Document]:
        """The documents, from the start at each call; raises a UsageError for text that is not UTF-8."""
        before = 0
        for path, size in zip(self.paths, self.sizes, strict=True):
            for lines, position in documents_of_file(path):
                yield Document(None, lines, before + position)
            before += size


def documents_of_file(path: str) -> Iterator[Tuple[List[str], int]]:
    """Yield (lines, byte position after them)."""
    lines, begin, position = [], 0, 0
    with naming(path), open(path, "rb") as file:
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


def decoded(raw: bytes, path: str, offset: int) -> str:
    """UTF-8 to text, without a byte order mark; raises a UsageError that gives the position in the file."""
    try:
        return raw.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--text {path}: byte {offset + error.start} is not UTF-8, expected UTF-8 text") from None
