"""Two small labelled tasks made from docstrings by rule, for machines without GLUE: balanced, the same on each call.

    library   which of five libraries does a passage come from?
    order     are the words of a passage in their order, or shuffled?
"""

import os
import random
import re

from ..corpus.docstrings import Docstrings, installed_roots
from ..system.atomic_files import atomic_path, write_bytes
from ..system.errors import UsageError
from .tasks import TASKS

LIBRARIES, ORDERS = TASKS["library"].labels, TASKS["order"].labels
PASSAGE_WORDS = range(8, 25)  # of a passage: fits the quick start's blocks of 32 tokens, nearly always


def write_docstring_tasks(folder: str, train: int = 500, dev: int = 100, seed: int = 1) -> None:
    """Both tasks in GLUE's layout. A passage is in one split only.

    Args:
        folder: made when everything in it is.
        train: passages of each library in the training split.
        dev: passages of each library in the dev split.
        seed: of the choice of passages and their order.
    Raises:
        UsageError: a library is not installed, or has fewer passages.
    """
    passages = passages_by_library(train + dev, random.Random(seed))
    with atomic_path(folder) as tmp:
        for split, part in (("train", slice(0, train)), ("dev", slice(train, train + dev))):
            chosen = [(passage, library) for library in LIBRARIES for passage in passages[library][part]]
            random.Random(seed).shuffle(chosen)
            write_table(os.path.join(tmp, "library"), split, chosen)
            write_table(os.path.join(tmp, "order"), split, in_order_or_not(chosen, random.Random(seed)))


def passages_by_library(count, draw):
    roots = installed_roots()
    if len(roots) != len(LIBRARIES):
        raise UsageError(f"docstring tasks: {len(roots)} libraries are installed, expected {', '.join(LIBRARIES)}")
    passages_of = {}
    for library, root in zip(LIBRARIES, roots):
        lines = (line for document in Docstrings([root]).documents() for line in document.lines)
        # A passage that names its library would be no riddle.
        passages = sorted({line for line in lines if is_passage(line) and not re.search(library, line, re.I)})
        if len(passages) < count:
            raise UsageError(f"docstring tasks: {library} has {len(passages)} passages, expected {count}")
        passages_of[library] = draw.sample(passages, count)
    return passages_of


def is_passage(line):
    words = line.split()
    return len(words) in PASSAGE_WORDS and len(set(words[1:-1])) > 1


def in_order_or_not(chosen, draw):
    """Every second passage shuffled: (text, label). The first and the last word stay: a capital or a full stop in the
    wrong place would give the answer away."""
    for number, (passage, _) in enumerate(chosen):
        first, *words, last = passage.split()
        if number % 2:
            words = shuffled(words, draw)
        yield " ".join([first, *words, last]), ORDERS[number % 2]


def shuffled(words, draw):
    """In another order than they were in."""
    order = list(words)
    while order == words:
        draw.shuffle(order)
    return order


def write_table(folder, split, rows):
    os.makedirs(folder, exist_ok=True)
    text = "sentence\tlabel\n" + "".join(f"{sentence}\t{label}\n" for sentence, label in rows)
    write_bytes(os.path.join(folder, f"{split}.tsv"), text.encode())
