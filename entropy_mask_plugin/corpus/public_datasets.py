"""The paper's data sets through the package `datasets`: downloaded, streamed, or from a folder on this machine."""

import glob
import os
import re
import sys
from typing import Callable, List, NamedTuple, Optional

from ..system.errors import UsageError
from ..system.extras import require_extras
from ..system.text import one_line
from .sources import Document

LEVEL_ONE_HEADING = re.compile(r"= (?!=).*[^=] =")  # WikiText: "= Title =", while sections have "= = Section = ="
WIKITEXT = re.compile(r"wikitext-\d+(-raw)?-v1")  # its configurations, folders in a copy of the hub's repository
BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json", ".txt": "text", ".raw": "text",
            ".tokens": "text"}  # of `datasets`, by how a file's name ends


class PublicDataset(NamedTuple):
    """How to fetch a dataset, and where its documents begin."""

    arguments: dict  # of datasets.load_dataset
    splits: dict  # official name -> ours; None = no official splits
    begins_document: Callable[[str, List[str]], bool]  # (this line, lines of the document so far)
    detokenize: Optional[Callable[[str], str]] = None  # to how the text was before its authors cut it into words


def detokenize_wikitext(line):
    """"the 15 @-@ year @-@ old ( born 1 @,@ 990 ) 's" -> "the 15-year-old (born 1,990)'s", "= = Plot = =" -> "Plot"."""
    line = re.sub(r"^(= )+(.*?)( =)+$", r"\2", line)
    line = re.sub(r" @([-,.])@ ", r"\1", line)
    line = re.sub(r'" ([^"]*?) "', r'"\1"', line)
    line = re.sub(r" (n't|'(?:t|s|re|ve|ll|m|d))\b", r"\1", line)
    line = re.sub(r" ([.,;:!?)\]}])", r"\1", line)
    return re.sub(r"([(\[{$£]) ", r"\1", line)


def wikitext(name):
    return PublicDataset(
        {"path": "Salesforce/wikitext", "name": name},
        {"train": "train", "validation": "valid", "test": "test"},
        lambda line, _: LEVEL_ONE_HEADING.fullmatch(line) is not None,
        detokenize_wikitext,
    )


PUBLIC_DATASETS = {
    "wikitext-2": wikitext("wikitext-2-raw-v1"),
    "wikitext-103": wikitext("wikitext-103-raw-v1"),
    # The parquet branch, since datasets >= 4 runs no loading scripts. Its sentences carry no mark of the books:
    # 512 consecutive ones make a document.
    "bookcorpus": PublicDataset(
        {"path": "bookcorpus/bookcorpus", "revision": "refs/convert/parquet"},
        {"train": None},
        lambda _, lines: len(lines) == 512,
    ),
}


class PublicDatasetSource:
    """One of `PUBLIC_DATASETS`.

    Args:
        name: its key.
        folder: where it is on this machine; None = the hub, or its cache.
        stream: read it over the network each time instead of storing it.
        detokenize: undo the cutting into words, where the dataset has `detokenize`.
    Raises:
        UsageError: it cannot be fetched, or the folder lacks a split.
    """

    unit = "row"

    def __init__(self, name, folder=None, stream=False, detokenize=False):
        self.dataset = PUBLIC_DATASETS[name]
        self.detokenize = self.dataset.detokenize if detokenize else None
        identity = os.path.abspath(folder) if folder else " ".join(self.dataset.arguments.values())
        self.description = {f"--dataset {name}": identity + (", detokenized" if detokenize else "")}
        self.rows = local(name, self.dataset, folder, stream) if folder else fetched(name, self.dataset, stream)
        self.warned = False
        lengths = [number_of_rows(rows) for rows in self.rows.values()]
        self.length = None if None in lengths else sum(lengths)

    def documents(self):
        before, cut = 0, 0
        for official, split in self.dataset.splits.items():
            position = 0
            for lines, position in documents_of_rows(texts(self.rows[official]), self.dataset.begins_document):
                cut += sum("<unk>" in line for line in lines)
                if self.detokenize:
                    lines = [self.detokenize(line) for line in lines]
                yield Document(split, lines, before + position)
            before += position
        self.warn_of_unknown_words(cut)

    def warn_of_unknown_words(self, lines):
        """WikiText exists with its rare words replaced by "<unk>", which a tokenizer of pieces cuts like a word."""
        if lines and not self.warned:
            print(f"warning: {' '.join(self.description)}: {lines:,} lines with <unk> for rare words; the raw version "
                  "of the data set has the words", file=sys.stderr)
        self.warned = True


def fetched(name, dataset, stream):
    require_extras("corpus")
    try:
        import datasets

        rows = datasets.load_dataset(**dataset.arguments, streaming=stream)
        return {split: rows[split] for split in dataset.splits}
    except Exception as error:  # the network, the hub, its client each have their own kinds
        reason = one_line(f"cannot be fetched ({type(error).__name__}: {error}"[:300]) + ")"
        raise UsageError(f"--dataset {name}: {reason}, expected a network, a filled cache or --dataset-dir") from error


def local(name, dataset, folder, stream):
    """Splits of a folder: what `save_to_disk` wrote, or files whose names say the split."""
    require_extras("corpus")
    import datasets

    if not os.path.isdir(folder):
        raise UsageError(f"--dataset-dir: {folder} is no folder, expected one that holds {name}")
    try:
        if os.path.exists(os.path.join(folder, "dataset_dict.json")):
            rows = datasets.load_from_disk(folder)
            return {split: rows[split] for split in dataset.splits}
        if len(dataset.splits) == 1 and os.path.exists(os.path.join(folder, "state.json")):  # saved without its name
            return {split: datasets.load_from_disk(folder) for split in dataset.splits}
        files = {split: files_of_split(folder, split, dataset.arguments.get("name"), name, len(dataset.splits) == 1)
                 for split in dataset.splits}
        builder = BUILDERS[ending(files["train"][0])]
        return {split: datasets.load_dataset(builder, data_files=paths, split="train", streaming=stream)
                for split, paths in files.items()}
    except UsageError:
        raise
    except Exception as error:  # damaged files, other columns, a split that is not there
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UsageError(f"--dataset-dir: {folder} cannot be read as {name} ({reason})") from error


def files_of_split(folder, split, config, name, is_only_split):
    """The files below `folder` that hold a split of a dataset: `train-00000-of-00002.parquet`, `wiki.valid.raw`, …"""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*"), recursive=True))
    below = [path for path in paths if ending(path) in BUILDERS and os.path.isfile(path)]
    named = {part for path in below for part in path.split(os.sep) if WIKITEXT.fullmatch(part)}
    if config and named and config not in named:
        raise UsageError(f"--dataset-dir: {folder} holds {', '.join(sorted(named))}, expected {config}")
    below = [path for path in below if config and f"{os.sep}{config}{os.sep}" in path] or below
    words = {"validation": r"valid(ation)?|dev"}.get(split, split)
    found = [path for path in below if re.search(rf"(^|[\W_])({words})([\W_]|$)", os.path.relpath(path, folder))]
    if not found and is_only_split:
        found = below
    kinds = {ending(path) for path in found}
    if len(kinds) != 1:
        what = "no file" if not found else f"files of several kinds ({', '.join(sorted(kinds))})"
        raise UsageError(f"--dataset-dir: {what} of the split '{split}' found in {folder}, expected {name} as parquet, "
                         f"arrow, json or text, with {split} in the names")
    return found


def ending(path):
    return os.path.splitext(path)[1]


def number_of_rows(rows):
    """None where a stream does not know it."""
    if hasattr(rows, "__len__"):
        return len(rows)
    split = (rows.info.splits or {}).get(rows.split)
    return split.num_examples if split else None


def texts(rows):
    """Raises `UsageError` for a damaged file, a lost network, or rows without text."""
    try:
        for batch in rows.iter(batch_size=1000):  # row by row is 20 times slower
            yield from batch["text"]
    except Exception as error:  # each kind of file and of network has its own
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UsageError(f"--dataset: its rows cannot be read ({reason}), expected a column 'text'") from error


def documents_of_rows(rows, begins_document):
    """Yield (lines, number of rows read)."""
    lines, number = [], 0
    for number, row in enumerate(rows, 1):
        line = one_line(row)
        if lines and line and begins_document(line, lines):
            yield lines, number
            lines = []
        if line:
            lines.append(line)
    if lines:
        yield lines, number
