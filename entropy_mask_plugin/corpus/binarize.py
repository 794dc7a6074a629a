"""Pieces to a data-bin, by fairseq-preprocess in a process of its own."""

import glob
import os

from ..system.processes import run_preprocess
from .index import read_sizes, write_index
from .progress import bar

LARGEST_SHORT_DICTIONARY = 65500  # entries; fairseq stores ids of smaller dictionaries in 2 bytes, others in 4


def binarize(encoded, dictionary, tokens, destination, workers, hidden=False):
    """Write the data-bin folders for the texts in `encoded`, all with the same dictionary (a path).

    tokens: {"train" or "shard0/train" …: ids to expect in its .bin file}; hidden: show no progress.
    """
    width = bytes_per_id(dictionary)
    with bar("Writing the data-bin", sum(tokens.values()) * width, hidden=hidden) as shown:
        for folder in sorted({os.path.dirname(name) for name in tokens}):
            names = [name for name in tokens if os.path.dirname(name) == folder]
            binarize_folder(encoded, names, dictionary, os.path.join(destination, folder), workers, shown)
    for name, expected in tokens.items():
        path = os.path.join(destination, name)
        found = os.path.getsize(path + ".bin") // width
        assert found == expected, f"fairseq-preprocess wrote {found} tokens to {name}.bin, not {expected}"
        write_index(path + ".idx", read_sizes(path + ".idx"), width)  # the same, but right beyond 2 GiB


def bytes_per_id(dictionary):
    with open(dictionary, encoding="utf-8") as file:
        entries = sum(1 for _ in file) + 4  # <mask> is not there yet
    return 2 if entries < LARGEST_SHORT_DICTIONARY else 4


def binarize_folder(encoded, names, dictionary, destination, workers, shown):
    os.makedirs(destination)
    arguments = ["--task", "masked_lm", "--only-source"]
    arguments += ["--srcdict", os.path.abspath(dictionary), "--destdir", os.path.abspath(destination)]
    # fairseq's own process waits for its workers and then does its part alone: many small parts keep all cores busy.
    arguments += ["--workers", str(1 if workers == 1 else 2 * workers + 1)]
    for name in names:
        arguments += [f"--{os.path.basename(name)}pref", os.path.abspath(os.path.join(encoded, name + ".txt"))]
    before = shown.n
    run_preprocess(arguments, destination, lambda: show_growth(shown, before, destination))
    os.remove(os.path.join(destination, "preprocess.log"))


def show_growth(shown, before, destination):
    written = 0
    for path in glob.glob(os.path.join(glob.escape(destination), "*.bin")):
        written += os.path.getsize(path) if os.path.exists(path) else 0  # workers' files come and go
    shown.update(min(before + written, shown.total) - shown.n)
