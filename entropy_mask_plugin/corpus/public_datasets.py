"""The paper's datasets through the package `datasets`: downloaded, streamed, or from a local folder."""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..system.errors import UsageError
from ..system.extras import require_extras
from ..system.text import one_line
from .sources import Document

LEVEL_ONE_HEADING = re.compile(r"= (?!=).*[^=] =")  # WikiText: "= Title ="; sections are "= = Section = ="
WIKITEXT = re.compile(r"wikitext-\d+(-raw)?-v1")  # its configurations: folders in a copy of the hub's repository
BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json", ".txt": "text", ".raw": "text",
            ".tokens": "text"}  # builder of `datasets` by file name extension


class PublicDataset(NamedTuple):
    """How to load a dataset, and where its documents begin."""

    arguments: dict  # of datasets.load_dataset
    splits: dict  # official name -> ours; None = no official splits
    begins_document: Callable[[str, List[str]], bool]  # (this line, lines of the document so far)
    detokenize: Optional[Callable[[str], str]] = None  # undoes the authors' word tokenization


def detokenize_wikitext(line: str) -> str:
    """"the 15 @-@ year @-@ old ( born 1 @,@ 990 ) 's" -> "the 15-year-old (born 1,990)'s", "= = Plot = =" -> "Plot"."""
    line = re.sub(r"^(= )+(.*?)( =)+$", r"\2", line)
    line = re.sub(r" @([-,.])@ ", r"\1", line)
    line = re.sub(r'" ([^"]*?) "', r'"\1"', line)
    line = re.sub(r" (n't|'(?:t|s|re|ve|ll|m|d))\b", r"\1", line)
    line = re.sub(r" ([.,;:!?)\]}])", r"\1", line)
    return re.sub(r"([(\[{$£]) ", r"\1", line)


def wikitext(name: str) -> PublicDataset:
    """A configuration of WikiText."""
    return PublicDataset(
        {"path": "Salesforce/wikitext", "name": name},
        {"train": "train", "validation": "valid", "test": "test"},
        lambda line, _: LEVEL_ONE_HEADING.fullmatch(line) is not None,
        detokenize_wikitext,
    )


PUBLIC_DATASETS = {
    "wikitext-2": wikitext("wikitext-2-raw-v1"),
    "wikitext-103": wikitext("wikitext-103-raw-v1"),
    # The parquet branch, since datasets >= 4 runs no loading scripts. It does not say where a book ends:
    # 512 consecutive sentences make a document.
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
        folder: a local copy; None = the hub, or its cache.
        stream: read it over the network each time instead of storing it.
        detokenize: undo the word tokenization, if the dataset has `detokenize`.
    Raises:
        UsageError: it cannot be downloaded, or the folder lacks a split.
    """

    unit = "row"

    def __init__(self, name: str, folder: Optional[str] = None, stream: bool = False, detokenize: bool = False):
        self.dataset = PUBLIC_DATASETS[name]
        self.detokenize = self.dataset.detokenize if detokenize else None
        identity = os.path.abspath(folder) if folder else " ".join(self.dataset.arguments.values())
        self.description = {f"--dataset {name}": identity + (", detokenized" if detokenize else "")}
        self.rows = local(name, self.dataset, folder, stream) if folder else downloaded(name, self.dataset, stream)
        self.warned = False
        lengths = [number_of_rows(rows) for rows in self.rows.values()]
        self.length = None if None in lengths else sum(number for number in lengths if number is not None)

    def documents(self) -> Iterator[Document]:
        """The documents, from the start at each call."""
        before, unknown = 0, 0
        for official, split in self.dataset.splits.items():
            position = 0
            for lines, position in documents_of_rows(texts(self.rows[official]), self.dataset.begins_document):
                unknown += sum("<unk>" in line for line in lines)
                if self.detokenize:
                    lines = [self.detokenize(line) for line in lines]
                yield Document(split, lines, before + position)
            before += position
        self.warn_of_unknown_words(unknown)

    def warn_of_unknown_words(self, lines: int) -> None:
        """One version of WikiText has "<unk>" for rare words, which a subword tokenizer splits like any word. lines:
        number of lines with "<unk>"."""
        if lines and not self.warned:
            print(f"warning: {' '.join(self.description)}: {lines:,} lines with <unk> for rare words; the raw version "
                  "of the dataset has the words", file=sys.stderr)
        self.warned = True


def downloaded(name: str, dataset: PublicDataset, stream: bool) -> Dict[str, Any]:
    """{official split: rows} from the hub or its cache."""
    require_extras("corpus")
    try:
        import datasets

        rows = datasets.load_dataset(**dataset.arguments, streaming=stream)
        return {split: rows[split] for split in dataset.splits}
    except Exception as error:  # the network, the hub, its client and a missing package raise many types
        reason = one_line(f"cannot be downloaded ({type(error).__name__}: {error}"[:300]) + ")"
        raise UsageError(f"--dataset {name}: {reason}, expected a network, a filled cache or --dataset-dir") from error


def local(name: str, dataset: PublicDataset, folder: str, stream: bool) -> Dict[str, Any]:
    """{official split: rows} of a folder written by `save_to_disk`, or with files whose names contain the split."""
    require_extras("corpus")
    import datasets

    if not os.path.isdir(folder):
        raise UsageError(f"--dataset-dir: {folder} is not a folder, expected one that holds {name}")
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
    except Exception as error:  # damaged files, other columns, a missing split
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UsageError(f"--dataset-dir: {folder} cannot be read as {name} ({reason})") from error


def files_of_split(folder: str, split: str, config: Optional[str], name: str, is_only_split: bool) -> List[str]:
    """The files below `folder` of a dataset's split: `train-00000-of-00002.parquet`, `wiki.valid.raw`, …

    Args:
        folder: is searched recursively.
        split: official name.
        config: of the dataset, if it has several; others are refused.
        name: of the dataset, for messages.
        is_only_split: whether file names may lack the split.
    Raises:
        UsageError: no such file, or files of several formats.
    """
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*"), recursive=True))
    below = [path for path in paths if ending(path) in BUILDERS and os.path.isfile(path)]
    named = {part for path in below for part in path.split(os.sep) if WIKITEXT.fullmatch(part)}
    if config and named and config not in named:
        raise UsageError(f"--dataset-dir: {folder} holds {', '.join(sorted(named))}, expected {config}")
    below = [path for path in below if config and f"{os.sep}{config}{os.sep}" in path] or below
    words = {"validation": r"valid(ation)?|dev"}.get(split, split)
    files = [path for path in below if re.search(rf"(^|[\W_])({words})([\W_]|$)", os.path.relpath(path, folder))]
    if not files and is_only_split:
        files = below
    kinds = {ending(path) for path in files}
    if len(kinds) != 1:
        problem = "no file" if not files else f"files of several kinds ({', '.join(sorted(kinds))})"
        raise UsageError(f"--dataset-dir: {problem} of the split '{split}' found in {folder}, expected {name} as "
                         f"parquet, arrow, json or text, with {split} in the names")
    return files


def ending(path: str) -> str:
    """The extension of a file name, with its dot."""
    return os.path.splitext(path)[1]


def number_of_rows(rows: Any) -> Optional[int]:
    """The rows of a split; None = unknown, as for some streams."""
    if hasattr(rows, "__len__"):
        return len(rows)
    split = (rows.info.splits or {}).get(rows.split)
    return split.num_examples if split else None


def texts(rows: Any) -> Iterator[str]:
    """The column "text"; raises a UsageError for a damaged file, a lost network, or rows without that column."""
    try:
        for batch in rows.iter(batch_size=1000):  # row by row is 20 times slower
            yield from batch["text"]
    except Exception as error:  # file formats and networks raise many types
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UsageError(f"--dataset: its rows cannot be read ({reason}), expected a column 'text'") from error


def documents_of_rows(
    rows: Iterable[str], begins_document: Callable[[str, List[str]], bool]
) -> Iterator[Tuple[List[str], int]]:
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
