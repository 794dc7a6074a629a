"""Where documents come from: text files and Hugging Face datasets (docstrings have their own file).

A source has `description` ({flag and value: what identifies it}), `length` and `unit` (for a progress bar) and
`documents()`, which starts anew at each call: a corpus is read twice and never held in memory.
"""

import functools
import os
import re
from typing import Callable, List, NamedTuple, Optional

from ..errors import UsageError

LARGEST_DOCUMENT = 64 << 20  # bytes; a document is held in memory, so a file without blank lines must not be one
LEVEL_ONE_HEADING = re.compile(r"= (?!=).*[^=] =")  # WikiText: "= Title =", while sections have "= = Section = ="


class Document(NamedTuple):
    split: Optional[str]  # "train", "valid" or "test" where the source has official splits
    lines: List[str]  # paragraphs, see `one_line`; never empty
    position: int  # how much of the source has been read, in units of `length`


def one_line(text):
    """Every run of white space becomes one blank: SentencePiece keeps U+0085 in pieces, and fairseq splits there."""
    return " ".join(text.split())


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


class PublicDataset(NamedTuple):
    """How to fetch a dataset, and where its documents begin."""

    arguments: dict  # of datasets.load_dataset
    splits: dict  # official name -> ours; None = no official splits
    begins_document: Callable[[str, List[str]], bool]  # (this line, lines of the document so far)


OFFICIAL = {"train": "train", "validation": "valid", "test": "test"}


def wikitext(name):
    return PublicDataset(
        {"path": "Salesforce/wikitext", "name": name},
        OFFICIAL,
        lambda line, _: LEVEL_ONE_HEADING.fullmatch(line) is not None,
    )


PUBLIC_DATASETS = {
    "wikitext-2": wikitext("wikitext-2-raw-v1"),
    "wikitext-103": wikitext("wikitext-103-raw-v1"),
    # The parquet branch, since datasets >= 4 runs no loading scripts. Its sentences carry no mark of the books:
    # 512 consecutive ones make a document.
    "bookcorpus": PublicDataset(
        {"path": "bookcorpus/bookcorpus", "revision": "refs/convert/parquet"},
        {"train": None},
        lambda _, lines: len(lines) == 512,
    ),
}


class HuggingFaceDataset:
    """One of `PUBLIC_DATASETS`, downloaded (or found in the cache) by the package `datasets`."""

    unit = "row"

    def __init__(self, name):
        self.dataset = PUBLIC_DATASETS[name]
        self.description = {f"--dataset {name}": " ".join(self.dataset.arguments.values())}
        self.rows = fetched(name, self.dataset)
        self.length = sum(len(rows) for rows in self.rows.values())

    def documents(self):
        before = 0
        for official, split in self.dataset.splits.items():
            rows = self.rows[official]
            for lines, position in documents_of_rows(texts(rows), self.dataset.begins_document):
                yield Document(split, lines, before + position)
            before += len(rows)


def fetched(name, dataset):
    try:
        import datasets

        rows = datasets.load_dataset(**dataset.arguments)
        return {split: rows[split] for split in dataset.splits}
    except Exception as error:  # the network, the hub, its client and a missing package each have their own kinds
        reason = one_line(f"cannot be fetched ({type(error).__name__}: {error}"[:300]) + ")"
        raise UsageError(f"--dataset {name}: {reason}, expected a network or a filled cache") from error


def texts(rows):
    for batch in rows.iter(batch_size=1000):  # row by row is 20 times slower
        yield from batch["text"]


def documents_of_rows(rows, begins_document):
    """Yield (lines, number of rows read)."""
    lines, number = [], 0
    for number, row in enumerate(rows, 1):
        line = one_line(row)
        if lines and line and begins_document(line, lines):
            yield lines, number
            lines = []
        if line:
            lines.append(line)
    if lines:
        yield lines, number
