"""A data-bin built part by part, for a disk without room for the whole encoded text."""

import os
import shutil
from collections.abc import Iterator
from typing import Dict

import numpy as np

from ..system.atomic_files import remove, write_bytes
from .binarize import binarize, bytes_per_id
from .encoding import EncodedText, encoded_documents
from .index import read_sizes, write_index
from .sources import DocumentSource

PART_BYTES = 512 << 20  # of encoded text


def binarize_in_parts(text: EncodedText, source: DocumentSource, folder: str, destination: str, workers: int) -> None:
    """Write .bin and .idx files.

    Args:
        text: empty, with its folder inside `folder`.
        source: of the documents.
        folder: to be created; contains one part at a time, about PART_BYTES of text.
        destination: for the data-bin.
        workers: number of processes, 1 or more.
    """
    part, dictionary, sizes = os.path.join(folder, "bin"), os.path.join(folder, "dict.txt"), {}
    os.makedirs(folder)
    write_bytes(dictionary, text.tokenizer.dictionary({}).encode())  # right order, no counts yet
    for tokens in parts(text, source, workers):
        binarize(text.folder, dictionary, tokens, part, workers, hidden=True)
        for name in tokens:
            append(os.path.join(part, name + ".bin"), os.path.join(destination, name + ".bin"))
            sizes.setdefault(name, []).append(read_sizes(os.path.join(part, name + ".idx")))
        remove(part)
        remove(text.folder)
    text.refuse_missing()
    width = bytes_per_id(dictionary)
    for name, sizes_of_parts in sizes.items():
        write_index(os.path.join(destination, name + ".idx"), np.concatenate(sizes_of_parts), width)


def parts(text: EncodedText, source: DocumentSource, workers: int) -> Iterator[Dict[str, int]]:
    """Encode the source to `text`; after each part, yield {name: number of its ids in the data-bin}."""
    before = {}
    for document, paragraphs in encoded_documents(source, text.tokenizer, workers):
        text.add(document, paragraphs)
        if text.size() >= PART_BYTES:
            yield new_tokens(text, before)
            before = text.data_bin_tokens()
    if text.files:
        yield new_tokens(text, before)


def new_tokens(text: EncodedText, before: Dict[str, int]) -> Dict[str, int]:
    """Close the part; its numbers of ids by name, as the increase since `before`."""
    names = list(text.files)
    text.close()
    now = text.data_bin_tokens()
    return {name: now[name] - before.get(name, 0) for name in names}


def append(part: str, whole: str) -> None:
    """Append a file to another, which is created if it is missing."""
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(part, "rb") as source, open(whole, "ab") as destination:
        shutil.copyfileobj(source, destination)
