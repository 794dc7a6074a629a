"""Subword tokens to a data-bin, with fairseq-preprocess in a child process."""

import glob
import os
from collections.abc import Sequence
from typing import Dict

from tqdm import tqdm

from ..system.processes import run_preprocess
from .index import read_sizes, write_index
from .progress import bar

LARGEST_SHORT_DICTIONARY = 65500  # entries; fairseq stores ids of smaller dictionaries in 2 bytes, others in 4


def binarize(encoded: str, dictionary: str, tokens: Dict[str, int], destination: str, workers: int,
             hidden: bool = False) -> None:
    """Write the data-bin folders of encoded texts.

    Args:
        encoded: folder of the texts, NAME.txt.
        dictionary: path of the dict.txt that all of them share.
        tokens: {NAME, such as "train" or "shard0/train": expected number of ids in its .bin file}.
        destination: folder for the data-bin folders.
        workers: number of processes, 1 or more.
        hidden: show no progress bar.
    Raises:
        OSError: the disk is full or read-only, or permission is denied.
        UsageError: fairseq-preprocess failed otherwise.
    """
    width = bytes_per_id(dictionary)
    with bar("Writing the data-bin", sum(tokens.values()) * width, hidden=hidden) as shown:
        for folder in sorted({os.path.dirname(name) for name in tokens}):
            names = [name for name in tokens if os.path.dirname(name) == folder]
            binarize_folder(encoded, names, dictionary, os.path.join(destination, folder), workers, shown)
    for name, expected in tokens.items():
        path = os.path.join(destination, name)
        written = os.path.getsize(path + ".bin") // width
        assert written == expected, f"fairseq-preprocess wrote {written} tokens to {name}.bin, not {expected}"
        write_index(path + ".idx", read_sizes(path + ".idx"), width)  # fairseq's is wrong beyond 2 GiB


def bytes_per_id(dictionary: str) -> int:
    """The size of an id in a .bin file, by the number of entries of a dict.txt."""
    with open(dictionary, encoding="utf-8") as file:
        entries = sum(1 for _ in file) + 4  # fairseq-preprocess does not count <mask>
    return 2 if entries < LARGEST_SHORT_DICTIONARY else 4


def binarize_folder(encoded: str, names: Sequence[str], dictionary: str, destination: str, workers: int,
                    shown: tqdm) -> None:
    """One data-bin folder. names: of its texts; shown: the progress bar."""
    os.makedirs(destination)
    arguments = ["--task", "masked_lm", "--only-source"]
    arguments += ["--srcdict", os.path.abspath(dictionary), "--destdir", os.path.abspath(destination)]
    # fairseq's main process first waits for its workers, then does its own part: many small parts keep all cores busy.
    arguments += ["--workers", str(1 if workers == 1 else 2 * workers + 1)]
    for name in names:
        arguments += [f"--{os.path.basename(name)}pref", os.path.abspath(os.path.join(encoded, name + ".txt"))]
    before = shown.n
    run_preprocess(arguments, destination, lambda: show_growth(shown, before, destination))
    os.remove(os.path.join(destination, "preprocess.log"))


def show_growth(shown: tqdm, before: int, destination: str) -> None:
    """Advance the bar to `before` (bytes) and the size of the .bin files in the destination."""
    written = 0
    for path in glob.glob(os.path.join(glob.escape(destination), "*.bin")):
        written += os.path.getsize(path) if os.path.exists(path) else 0  # workers' files come and go
    shown.update(min(before + written, shown.total) - shown.n)
