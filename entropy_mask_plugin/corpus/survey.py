"""Pass 1: a digest of the source, the limit of the validation split, a sample of lines for the tokenizer."""

import hashlib
import random
from collections.abc import Sequence
from typing import List, NamedTuple

from ..system.errors import UsageError
from .progress import documents_with_bar
from .sources import DocumentSource
from .splits import digest_of, validation_limit

SAMPLE_BYTES = 32 << 20  # SentencePiece needs some 20 times as much memory, and more text hardly helps


class Survey(NamedTuple):
    """What pass 1 found."""

    digest: str  # of all documents in their order
    limit: int  # of `splits`
    sample: List[str]  # training lines for the tokenizer, SAMPLE_BYTES at most


class LineSample:
    """The largest random fraction of the offered lines that fits: each line draws a number, those below the fraction
    are kept.

    Args:
        largest: size in bytes.
        seed: of the random numbers.
    """

    def __init__(self, largest: int, seed: int):
        self.largest, self.size = largest, 0
        self.random, self.fraction = random.Random(seed), 1.0
        self.kept = []  # (number drawn, digest of the document, line)

    def offer(self, digest: int, lines: Sequence[str]) -> None:
        """Add the lines of a document, or some of them."""
        for line in lines:
            drawn = self.random.random()
            if drawn < self.fraction:
                self.kept.append((drawn, digest, line))
                self.size += len(line.encode())
        while self.size > self.largest:
            self.shrink()

    def shrink(self) -> None:
        """Lower the fraction by a tenth, and drop the lines above it."""
        self.fraction *= 0.9
        self.kept = [entry for entry in self.kept if entry[0] < self.fraction]
        self.size = sum(len(line.encode()) for _, _, line in self.kept)


def survey(source: DocumentSource, valid_fraction: float, seed: int, sample_bytes: int = SAMPLE_BYTES) -> Survey:
    """Read the source once.

    Args:
        source: of the documents.
        valid_fraction: of the documents that are for validation, in (0, 1); unused with official splits.
        seed: of the sample.
        sample_bytes: largest size of the sample.
    Raises:
        UsageError: no text, or fewer than two documents to split.
    """
    content, sample = hashlib.blake2b(digest_size=16), LineSample(sample_bytes, seed)
    unsplit, smallest, largest, documents = False, 2**64, -1, 0
    for document in documents_with_bar(source, "Reading the text"):
        digest, documents = digest_of(document.lines), documents + 1
        content.update(f"{document.split} {digest:016x}\n".encode())
        unsplit |= document.split is None
        smallest, largest = min(smallest, digest), max(largest, digest)
        if document.split in (None, "train"):
            sample.offer(digest, document.lines)
    if not documents:
        raise UsageError(f"{' '.join(source.description)}: no text found, expected documents between blank lines")
    limit = validation_limit(valid_fraction, smallest, largest, " ".join(source.description)) if unsplit else 0
    return Survey(content.hexdigest(), limit, [line for _, digest, line in sample.kept if digest >= limit])
