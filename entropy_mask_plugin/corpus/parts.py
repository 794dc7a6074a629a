"""A data-bin made part by part, for a disk that would not hold the whole text in pieces."""

import os
import shutil

import numpy as np

from ..system.atomic_files import remove, write_bytes
from .binarize import binarize, bytes_per_id
from .encoding import encoded_documents
from .index import read_sizes, write_index

PART_BYTES = 512 << 20  # of encoded text


def binarize_in_parts(text, source, folder, destination, workers):
    """Write .bin and .idx files to `destination`. `folder` holds one part at a time: about PART_BYTES of text."""
    part, dictionary, sizes = os.path.join(folder, "bin"), os.path.join(folder, "dict.txt"), {}
    os.makedirs(folder)
    write_bytes(dictionary, text.tokenizer.dictionary({}).encode())  # the order is known, the counts are not yet
    for tokens in parts(text, source, workers):
        binarize(text.folder, dictionary, tokens, part, workers, hidden=True)
        for name in tokens:
            append(os.path.join(part, name + ".bin"), os.path.join(destination, name + ".bin"))
            sizes.setdefault(name, []).append(read_sizes(os.path.join(part, name + ".idx")))
        remove(part)
        remove(text.folder)
    text.refuse_missing()
    width = bytes_per_id(dictionary)
    for name, of_parts in sizes.items():
        write_index(os.path.join(destination, name + ".idx"), np.concatenate(of_parts), width)


def parts(text, source, workers):
    """Fill `text`; each time it holds a part, and at the end, yield {name: how many ids that is in the data-bin}."""
    before = {}
    for document, paragraphs in encoded_documents(source, text.tokenizer, workers):
        text.add(document, paragraphs)
        if text.size() >= PART_BYTES:
            yield new_tokens(text, before)
            before = text.data_bin_tokens()
    if text.files:
        yield new_tokens(text, before)


def new_tokens(text, before):
    names = list(text.files)
    text.close()
    now = text.data_bin_tokens()
    return {name: now[name] - before.get(name, 0) for name in names}


def append(part, whole):
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(part, "rb") as source, open(whole, "ab") as destination:
        shutil.copyfileobj(source, destination)
