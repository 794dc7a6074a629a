"""Pass 2: documents to pieces. One line per paragraph, an empty line between documents, as `complete_doc` wants."""

import contextlib
import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from ..system.errors import UsageError
from .progress import documents_with_bar
from .splits import split_of

BATCH_CHARACTERS = 4 << 20


class EncodedText:
    """The text of each split (and of each shard of it) in pieces, and what was counted while it was written.

    A name is "train", "valid" or "test"; with more than one shard "shard0/train", "shard0/valid", "shard1/train", …:
    the layout of the data-bin. Training documents are dealt to the shards in turn.
    """

    def __init__(self, folder, tokenizer, limit, shards):
        self.folder, self.tokenizer, self.limit, self.shards = folder, tokenizer, limit, shards
        self.turns = itertools.cycle(range(shards))
        self.files = {}  # name -> file, of what was written since the last `close`
        self.counts = {}  # name -> documents, lines, bytes, words, tokens, unk
        self.pieces = Counter()  # piece id -> occurrences in the training documents

    def add(self, document, paragraphs):
        """paragraphs: (line, its piece ids), at least one."""
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
            self.pieces.update(itertools.chain.from_iterable(ids for _, ids in paragraphs))

    def file(self, name):
        if name not in self.files:
            path = os.path.join(self.folder, name + ".txt")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self.files[name] = open(path, "w", encoding="utf-8", newline="\n")
        return self.files[name]

    def size(self):
        """Bytes in the open files."""
        return sum(file.tell() for file in self.files.values())

    def close(self):
        for file in self.files.values():
            file.close()
        self.files = {}

    def data_bin_tokens(self):
        """{name: how many ids fairseq-preprocess makes of it}: the pieces, and </s> for each line, empty ones too."""
        return {name: counts["tokens"] + counts["lines"] + counts["documents"] - 1
                for name, counts in self.counts.items()}

    def refuse_missing(self):
        if file_name("train", self.shards - 1, self.shards) not in self.counts:
            documents = sum(counts["documents"] for name, counts in self.counts.items() if name.endswith("train"))
            raise UsageError(
                f"--shards {self.shards}: fewer documents to train on than shards, expected at most {documents}"
            )
        if file_name("valid", 0, self.shards) not in self.counts:
            raise UsageError("no text is left for validation: all of it encodes to nothing, expected printable text")


def encode_corpus(text, source, workers):
    """Write all documents of the source to `text`."""
    with contextlib.closing(text):
        for document, paragraphs in encoded_documents(source, text.tokenizer, workers):
            text.add(document, paragraphs)
    text.refuse_missing()


def file_name(split, shard, shards):
    return split if shards == 1 else f"shard{shard}/{split}"


def encoded_documents(source, tokenizer, workers):
    """Yield (document, [(line, its piece ids)]) in the source's order, whatever the number of workers."""
    for batch, encoded in encoded_batches(documents_with_bar(source, "Encoding the text"), tokenizer, workers):
        encoded = iter(encoded)
        for document in batch:
            paragraphs = zip(document.lines, itertools.islice(encoded, len(document.lines)))
            # A line may encode to nothing (control characters alone). Empty, it would look like the end of a document.
            paragraphs = [(line, ids) for line, ids in paragraphs if ids]
            if paragraphs:
                yield document, paragraphs


def encoded_batches(documents, tokenizer, workers):
    """Yield (documents, piece ids of all their lines). One batch is encoded while the one before it is written."""
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


def batches(documents):
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document.lines))
        if characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
