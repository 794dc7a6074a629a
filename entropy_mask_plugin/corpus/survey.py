"""Pass 1: what does the source hold, where does validation end, which lines does the tokenizer learn from?"""

import hashlib
import random
from typing import List, NamedTuple

from ..system.errors import UsageError
from .progress import documents_with_bar
from .splits import digest_of, validation_limit

SAMPLE_BYTES = 32 << 20  # SentencePiece needs some 20 times its text in memory, and learns little from more


class Survey(NamedTuple):
    digest: str  # of all documents in their order
    limit: int  # of `splits`
    sample: List[str]  # training lines for the tokenizer, SAMPLE_BYTES at most


class LineSample:
    """A random share of the lines offered, the largest that fits: each line draws a number, small ones are kept."""

    def __init__(self, largest, seed):
        self.largest, self.size = largest, 0
        self.random, self.share = random.Random(seed), 1.0
        self.kept = []  # (number drawn, digest of the document, line)

    def offer(self, digest, lines):
        for line in lines:
            drawn = self.random.random()
            if drawn < self.share:
                self.kept.append((drawn, digest, line))
                self.size += len(line.encode())
        while self.size > self.largest:
            self.shrink()

    def shrink(self):
        self.share *= 0.9
        self.kept = [entry for entry in self.kept if entry[0] < self.share]
        self.size = sum(len(line.encode()) for _, _, line in self.kept)


def survey(source, valid_fraction, seed, sample_bytes=SAMPLE_BYTES):
    """Read the source once. Raises `UsageError` where it holds no text or fewer than two documents to split."""
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
