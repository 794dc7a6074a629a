"""Pass 2: documents to pieces. One line per paragraph, an empty line between documents, as `complete_doc` wants."""

import contextlib
import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from ..errors import UsageError
from .progress import documents_with_bar
from .splits import split_of

BATCH_CHARACTERS = 4 << 20


class EncodedFile:
    """The text of one split (or of one shard of it), and what was counted while it was written."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, "w", encoding="utf-8", newline="\n")
        self.counts = Counter(documents=0, lines=0, bytes=0, words=0, tokens=0, unk=0)

    def add(self, paragraphs, tokenizer):
        """paragraphs: (line, its piece ids), at least one."""
        if self.counts["documents"]:
            self.file.write("\n")
        self.counts["documents"] += 1
        for line, ids in paragraphs:
            self.file.write(" ".join([tokenizer.names[i] for i in ids]) + "\n")
            self.counts["lines"] += 1
            self.counts["bytes"] += len(line.encode())
            self.counts["words"] += line.count(" ") + 1
            self.counts["tokens"] += len(ids)
            self.counts["unk"] += ids.count(tokenizer.unk)


def encode_corpus(source, tokenizer, limit, shards, workers, folder):
    """Fill `folder`. Returns ({name: counts}, {piece id: occurrences in the training documents}).

    A name is "train", "valid" or "test"; with more than one shard "shard0/train", "shard0/valid", "shard1/train", …:
    the layout of the data-bin. Training documents are dealt to the shards in turn.
    """
    pieces, files, turns = Counter(), {}, itertools.cycle(range(shards))
    with contextlib.ExitStack() as opened:
        for document, paragraphs in encoded_documents(source, tokenizer, workers):
            split = split_of(document, limit)
            name = file_name(split, next(turns) if split == "train" else 0, shards)
            if name not in files:
                files[name] = EncodedFile(os.path.join(folder, name + ".txt"))
                opened.enter_context(files[name].file)
            files[name].add(paragraphs, tokenizer)
            if split == "train":
                pieces.update(itertools.chain.from_iterable(ids for _, ids in paragraphs))
    refuse_missing(files, shards)
    return {name: dict(file.counts) for name, file in files.items()}, pieces


def file_name(split, shard, shards):
    return split if shards == 1 else f"shard{shard}/{split}"


def refuse_missing(files, shards):
    if file_name("train", shards - 1, shards) not in files:
        documents = sum(file.counts["documents"] for name, file in files.items() if name.endswith("train"))
        raise UsageError(f"--shards {shards}: fewer documents to train on than shards, expected at most {documents}")
    if file_name("valid", 0, shards) not in files:
        raise UsageError("no text is left for validation: all of it encodes to nothing, expected printable text")


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


def data_bin_tokens(counts):
    """How many ids fairseq-preprocess writes: the pieces, and </s> for every line, the empty ones too."""
    return counts["tokens"] + counts["lines"] + counts["documents"] - 1
