"""Pass 2: documents to subword tokens. One line per paragraph, an empty line between documents, as `complete_doc`
expects."""

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Dict, List, Tuple

from ..system.errors import UsageError
from .progress import documents_with_bar
from .settings import CorpusTokenizer
from .sources import Document, DocumentSource
from .splits import split_of

BATCH_CHARACTERS = 4 << 20

Paragraph = Tuple[str, List[int]]  # a line, its token ids


class EncodedText:
    """The encoded text of each split and shard, and counts of what was written.

    A name is "train", "valid" or "test"; with more than one shard "shard0/train", "shard0/valid", "shard1/train", …:
    the layout of the data-bin. Training documents go to the shards in turn.

    Args:
        folder: for the texts.
        tokenizer: encodes them.
        limit: of validation digests, see `splits`.
        shards: number of training shards.
    """

    def __init__(self, folder: str, tokenizer: CorpusTokenizer, limit: int, shards: int):
        self.folder, self.tokenizer, self.limit, self.shards = folder, tokenizer, limit, shards
        self.turns = itertools.cycle(range(shards))
        self.files: Dict[str, IO[str]] = {}  # by name, open since the last `close`
        self.counts: Dict[str, Counter] = {}  # by name: documents, lines, bytes, words, tokens, unk
        self.token_counts = Counter()  # token id -> occurrences in the training documents

    def add(self, document: Document, paragraphs: List[Paragraph]) -> None:
        """Write a document of one or more paragraphs to its split."""
        split = split_of(document, self.limit)
        name = file_name(split, next(self.turns) if split == "train" else 0, self.shards)
        counts = self.counts.setdefault(name, Counter(documents=0, lines=0, bytes=0, words=0, tokens=0, unk=0))
        file = self.file(name)
        if counts["documents"]:
            file.write("\n")
        counts["documents"] += 1
        for line, ids in paragraphs:
            file.write(" ".join([self.tokenizer.names[i] for i in ids]) + "\n")
            counts["lines"] += 1
            counts["bytes"] += len(line.encode())
            counts["words"] += line.count(" ") + 1
            counts["tokens"] += len(ids)
            counts["unk"] += ids.count(self.tokenizer.unk)
        if split == "train":
            self.token_counts.update(itertools.chain.from_iterable(ids for _, ids in paragraphs))

    def file(self, name: str) -> IO[str]:
        """The open file of a split."""
        if name not in self.files:
            path = os.path.join(self.folder, name + ".txt")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self.files[name] = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 (see `close`)
        return self.files[name]

    def size(self) -> int:
        """Bytes in the open files."""
        return sum(file.tell() for file in self.files.values())

    def close(self) -> None:
        """Close the files; the next `add` starts new ones."""
        for file in self.files.values():
            file.close()
        self.files = {}

    def data_bin_tokens(self) -> Dict[str, int]:
        """{name: number of ids in its .bin file}: its tokens, and one </s> per line, empty lines included."""
        return {name: counts["tokens"] + counts["lines"] + counts["documents"] - 1
                for name, counts in self.counts.items()}

    def refuse_missing(self) -> None:
        """Raise a UsageError if a shard or the validation split is empty."""
        if file_name("train", self.shards - 1, self.shards) not in self.counts:
            documents = sum(counts["documents"] for name, counts in self.counts.items() if name.endswith("train"))
            raise UsageError(
                f"--shards {self.shards}: fewer documents to train on than shards, expected at most {documents}"
            )
        if file_name("valid", 0, self.shards) not in self.counts:
            raise UsageError("no text is left for validation: all of it encodes to nothing, expected printable text")


def encode_corpus(text: EncodedText, source: DocumentSource, workers: int) -> None:
    """Write all documents of the source to `text`."""
    with contextlib.closing(text):
        for document, paragraphs in encoded_documents(source, text.tokenizer, workers):
            text.add(document, paragraphs)
    text.refuse_missing()


def file_name(split: str, shard: int, shards: int) -> str:
    """The name of a split's text, see `EncodedText`."""
    return split if shards == 1 else f"shard{shard}/{split}"


def encoded_documents(
    source: DocumentSource, tokenizer: CorpusTokenizer, workers: int
) -> Iterator[Tuple[Document, List[Paragraph]]]:
    """Yield (document, its paragraphs) in the source's order, whatever the number of workers."""
    for batch, encoded in encoded_batches(documents_with_bar(source, "Encoding the text"), tokenizer, workers):
        encoded = iter(encoded)
        for document in batch:
            paragraphs = zip(document.lines, itertools.islice(encoded, len(document.lines)), strict=True)
            # A line of control characters encodes to nothing, and an empty line would end the document.
            paragraphs = [(line, ids) for line, ids in paragraphs if ids]
            if paragraphs:
                yield document, paragraphs


def encoded_batches(
    documents: Iterable[Document], tokenizer: CorpusTokenizer, workers: int
) -> Iterator[Tuple[List[Document], List[List[int]]]]:
    """Yield (documents, token ids of each of their lines). A batch is encoded while the one before it is written."""
    with ThreadPoolExecutor(1) as encoder:
        before = None
        for batch in batches(documents):
            lines = [line for document in batch for line in document.lines]
            now = batch, encoder.submit(tokenizer.encode, lines, workers)
            if before:
                yield before[0], before[1].result()
            before = now
        if before:
            yield before[0], before[1].result()


def batches(documents: Iterable[Document]) -> Iterator[List[Document]]:
    """Lists of documents with about BATCH_CHARACTERS characters."""
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document.lines))
        if characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
