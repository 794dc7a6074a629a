"""GLUE's examples, from its own files or from the hub.

The files are tab-separated without quoting: a quotation mark is a letter like any other, and some lines have one only.
"""

import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..system.errors import UsageError
from ..system.extras import require_extras
from ..system.text import one_line
from .tasks import TASKS, Task

COLUMNS_WITHOUT_HEADER = 4  # CoLA's


class Example(NamedTuple):
    texts: List[str]  # one or two
    label: str  # as the task writes it; a score where it is a regression


def read_task(name: str, glue: str, limit: Optional[int] = None) -> Tuple[Dict[str, List[Example]], Dict[str, int]]:
    """{"train": [Example], "valid": …, "valid1": …} of a task, from the official folder layout.

    Args:
        name: key of TASKS.
        glue: folder that holds CoLA, MRPC, …
        limit: the first rows of each split only.
    Returns:
        the splits, and {split: number of malformed rows left out} (only QQP has such).
    Raises:
        UsageError: a row with another number of columns (file and line), a label that is none of the task's, an empty
            split.
    """
    task, splits, malformed = TASKS[name], {}, {}
    files = {"train": "train.tsv", **{split: file for split, file in zip(valid_names(), task.dev.values())}}
    for split, file in files.items():
        path = os.path.join(glue, task.folder, file)
        examples, malformed[split] = read_file(path, task)
        splits[split] = examples[:limit]
        if not examples:
            raise UsageError(f"--glue: {path} holds no examples, expected rows with labels")
    return splits, malformed


def valid_names() -> Iterator[str]:
    """fairseq's names of validation sets: valid, valid1, …"""
    yield "valid"
    number = 0
    while True:
        number += 1
        yield f"valid{number}"


def read_file(path: str, task: Task) -> Tuple[List[Example], int]:
    """([Example], number of rows left out) of one TSV file."""
    rows = [line.split("\t") for line in read_lines(path)]
    first, columns, expected = 1, task.columns, COLUMNS_WITHOUT_HEADER
    if isinstance(columns[0], str):
        header = rows[0] if rows else []
        first, columns, expected = 2, positions(path, header, columns), len(header)
    examples, n_malformed = [], 0
    for number, row in enumerate(rows[first - 1 :], first):
        if len(row) != expected:
            if not task.skips_malformed:
                raise UsageError(f"--glue: {path}, line {number}: {len(row)} columns found, expected {expected}")
            n_malformed += 1
            continue
        *texts, label = (one_line(row[column]) for column in columns)
        check_label(label, task, path, number)
        examples.append(Example(texts, label))
    return examples, n_malformed


def read_lines(path):
    """Without line ends, and without empty lines at the end of the file."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:  # some have a byte-order mark, some \r
            lines = [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise UsageError(f"--glue: {path} is not UTF-8 ({error.reason}), expected UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"--glue: {path} cannot be read ({error.strerror}), expected a file of the task") from error
    while lines and not lines[-1]:
        lines.pop()
    return lines


def positions(path, header, names):
    missing = [name for name in names if name not in header]
    if missing:
        kind = "without labels" if missing == [names[-1]] else f"without the columns {', '.join(missing)}"
        raise UsageError(f"--glue: {path} is a file {kind}, expected the header {', '.join(names)} among others")
    return [header.index(name) for name in names]


def check_label(label, task, path, number):
    if task.regression:
        try:
            in_range = 0 <= float(label) <= task.highest_score
        except ValueError:
            in_range = False
        if not in_range:
            raise UsageError(f"--glue: {path}, line {number}: score {label!r} found, expected a number from 0 to "
                             f"{task.highest_score:g}")
    elif label not in task.labels:
        raise UsageError(f"--glue: {path}, line {number}: label {label!r} found, expected one of "
                         f"{', '.join(task.labels)}")


def missing_files(names: Sequence[str], glue: str) -> List[str]:
    """Paths of the files that these tasks need and that are not there."""
    paths = [os.path.join(glue, TASKS[name].folder, file)
             for name in names for file in ("train.tsv", *TASKS[name].dev.values())]
    return [path for path in paths if not os.path.isfile(path)]


def read_from_hub(name: str, limit: Optional[int] = None) -> Dict[str, List[Example]]:
    """The same splits from the hub through the package `datasets`.

    Raises:
        UsageError: the package is not installed, no network and nothing in the cache, or examples without labels.
    """
    require_extras("corpus")
    import datasets

    task = TASKS[name]
    if task.hub is None:
        raise UsageError(f"--from-hub: {name} is not on the hub, expected --glue")
    dataset, configuration = task.hub
    try:
        rows = datasets.load_dataset(dataset, configuration)
    except Exception as error:  # the network, the hub and its client each have their own kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"--from-hub: {configuration} cannot be fetched ({reason})") from error
    official = {"train": "train", **dict(zip(valid_names(), hub_dev_names(task)))}
    chosen = {split: rows[theirs].select(range(min(limit or len(rows[theirs]), len(rows[theirs]))))
              for split, theirs in official.items()}
    return {split: [hub_example(row, task) for row in part] for split, part in chosen.items()}


def hub_dev_names(task):
    return [f"validation_{name}" for name in task.dev] if len(task.dev) > 1 else ["validation"]


def hub_example(row, task):
    """Its texts are the columns besides label and idx, in order; its labels are numbers in GLUE's order."""
    texts = [value for key, value in row.items() if key not in ("label", "idx")]
    if row["label"] < 0:
        raise UsageError(f"--from-hub: an example of {task.folder} without label found, expected labels in all")
    label = str(row["label"]) if task.regression else task.labels[row["label"]]
    return Example([one_line(text) for text in texts], label)
