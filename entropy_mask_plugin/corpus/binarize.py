"""Pieces to a data-bin, by fairseq-preprocess in a process of its own."""

import glob
import os
import signal
import subprocess
import sys
import tempfile
import time

from ..errors import UsageError
from ..partial import DISK_TROUBLE
from ..processes import end_with_parent
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
            run_preprocess(encoded, names, dictionary, os.path.join(destination, folder), workers, shown)
    for name, expected in tokens.items():
        path = os.path.join(destination, name)
        found = os.path.getsize(path + ".bin") // width
        assert found == expected, f"fairseq-preprocess wrote {found} tokens to {name}.bin, not {expected}"
        write_index(path + ".idx", read_sizes(path + ".idx"), width)  # the same, but right beyond 2 GiB


def bytes_per_id(dictionary):
    with open(dictionary, encoding="utf-8") as file:
        entries = sum(1 for _ in file) + 4  # <mask> is not there yet
    return 2 if entries < LARGEST_SHORT_DICTIONARY else 4


def run_preprocess(encoded, names, dictionary, destination, workers, shown):
    os.makedirs(destination)
    command = [sys.executable, "-m", "fairseq_cli.preprocess", "--task", "masked_lm", "--only-source"]
    command += ["--srcdict", os.path.abspath(dictionary), "--destdir", os.path.abspath(destination)]
    # fairseq's own process waits for its workers and then does its part alone: many small parts keep all cores busy.
    command += ["--workers", str(1 if workers == 1 else 2 * workers + 1)]
    for name in names:
        command += [f"--{os.path.basename(name)}pref", os.path.abspath(os.path.join(encoded, name + ".txt"))]
    before = shown.n
    run(command, destination, lambda: show_growth(shown, before, destination))
    os.remove(os.path.join(destination, "preprocess.log"))


def show_growth(shown, before, destination):
    written = 0
    for path in glob.glob(os.path.join(glob.escape(destination), "*.bin")):
        written += os.path.getsize(path) if os.path.exists(path) else 0  # workers' files come and go
    shown.update(min(before + written, shown.total) - shown.n)


def run(command, destination, while_waiting):
    """Run in the folder `destination`, where no file of the user's can be mistaken for a Python module."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=destination, stdout=log, stderr=log, start_new_session=True,
                                   preexec_fn=end_with_parent)
        try:
            while process.poll() is None:
                while_waiting()
                time.sleep(0.2)
            while_waiting()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()
            raise
        if process.returncode:
            log.seek(0)
            raise failure(process.returncode, log.read())


def failure(status, log):
    for trouble in DISK_TROUBLE:
        if os.strerror(trouble) in log:
            return OSError(trouble, os.strerror(trouble))
    print(*log.splitlines()[-20:], sep="\n", file=sys.stderr)
    return UsageError(f"fairseq-preprocess ended with status {status}, expected 0: its last lines are above")
