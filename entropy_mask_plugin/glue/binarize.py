"""Examples to what fairseq's `sentence_prediction` reads:

    input0/  input1/     subword tokens of the first and the second text        train, valid, valid1
    label/               classes in the task's order, or NAME.label files with scores in [0, 1]
"""

import os
from typing import Any, Dict, List, Sequence

from ..system.atomic_files import write_bytes
from ..system.processes import run_preprocess
from .reading import Example
from .tasks import TASKS

SPECIALS_SINGLE, SPECIALS_PAIR = 2, 4  # <s> A </s>, and <s> A </s> </s> B </s>


def binarize_task(name: str, splits: Dict[str, List[Example]], tokenizer: Any, dictionary: str, positions: int,
                  folder: str, workers: int) -> Dict[str, int]:
    """Fill `folder`.

    Args:
        name: key of TASKS.
        splits: {"train" | "valid" | "valid1": [Example]}.
        tokenizer: of the checkpoint, with `encode` and `names`.
        dictionary: content of its dict.txt.
        positions: longest sequence of the model.
        folder: a new one.
        workers: processes that encode.
    Returns:
        {split: number of examples that were truncated}.
    """
    task, n_truncated = TASKS[name], {}
    os.makedirs(os.path.join(folder, "text"))
    write_bytes(os.path.join(folder, "dict.txt"), dictionary.encode())
    for split, examples in splits.items():
        n_truncated[split] = write_texts(examples, tokenizer, positions, os.path.join(folder, "text"), split, workers)
    inputs = ["input0", "input1"] if len(splits["train"][0].texts) == 2 else ["input0"]
    for part in inputs:
        preprocess(folder, part, splits, "dict.txt")
    if task.regression:
        write_scores(folder, task, splits)
    else:
        write_classes(folder, task, splits)
        preprocess(folder, "label", splits, "classes.txt")
    return n_truncated


def write_texts(examples, tokenizer, positions, folder, split, workers):
    """Subword tokens of each text of each example, a line each. Returns how many examples were too long."""
    columns = [tokenizer.encode(list(texts), workers) for texts in zip(*(example.texts for example in examples))]
    room = positions - (SPECIALS_PAIR if len(columns) == 2 else SPECIALS_SINGLE)
    truncated = [truncate(ids, room) for ids in zip(*columns)]
    for number in range(len(columns)):
        lines = (" ".join(tokenizer.names[i] for i in ids[number]) + "\n" for ids in truncated)
        write_bytes(os.path.join(folder, f"input{number}.{split}"), "".join(lines).encode())
    return sum(sum(map(len, ids)) > room for ids in zip(*columns))


def truncate(texts: Sequence[Sequence[int]], room: int) -> List[List[int]]:
    """One or two lists of ids that fit into `room` together: what is cut off is the end of the longer text."""
    texts = [list(ids) for ids in texts]
    while sum(map(len, texts)) > room:
        max(texts, key=len).pop()
    return texts


def write_scores(folder, task, splits):
    os.makedirs(os.path.join(folder, "label"))
    for split, examples in splits.items():
        lines = (f"{float(example.label) / task.highest_score}\n" for example in examples)
        write_bytes(os.path.join(folder, "label", f"{split}.label"), "".join(lines).encode())


def write_classes(folder, task, splits):
    """By their names, which an exported model keeps. fairseq computes F1 and MCC of labels that are numbers alone."""
    names = task.labels if task.fairseq_metric[0] is None else [str(i) for i in range(len(task.labels))]
    write_bytes(os.path.join(folder, "classes.txt"), "".join(f"{name} 1\n" for name in names).encode())
    for split, examples in splits.items():
        lines = (f"{names[task.labels.index(example.label)]}\n" for example in examples)
        write_bytes(os.path.join(folder, "text", f"label.{split}"), "".join(lines).encode())


def preprocess(folder, part, splits, dictionary):
    """fairseq-preprocess for one of input0, input1 and label."""
    destination = os.path.abspath(os.path.join(folder, part))
    os.makedirs(destination)
    texts = {split: os.path.abspath(os.path.join(folder, "text", f"{part}.{split}")) for split in splits}
    arguments = [
        "--only-source", "--srcdict", os.path.abspath(os.path.join(folder, dictionary)), "--destdir", destination,
        "--trainpref", texts["train"],
        "--validpref", ",".join(text for split, text in texts.items() if split != "train")]
    run_preprocess(arguments, destination)
