"""A soak: a very small training of very many updates, whose memory, file descriptors and threads must not grow.

    python tests/soak.py --data BIN --teacher PT --out DIR [--updates 200000]

A cache of the teacher's entropies chooses the masks of the first half, the model itself those of the second; every
epoch is validated. Writes soak.csv and soak.png, and fails where something grows (see `GROWTH`).
"""

import argparse
import csv
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from builders.training import OURS, PLUGIN
from fairseq.data.data_utils import load_indexed_dataset
from matplotlib.ticker import EngFormatter

from entropy_mask_plugin.reporting.figures import pyplot, save
from entropy_mask_plugin.system.atomic_files import atomic_path

MODEL = ["--arch", "bertlet", "--encoder-layers", "1", "--encoder-embed-dim", "8", "--encoder-ffn-embed-dim", "8",
         "--encoder-attention-heads", "1", "--max-positions", "16"]
TRAINING = ["--optimizer", "adam", "--lr", "0.001", "--lr-scheduler", "fixed", "--batch-size", "4",
            "--batch-size-valid", "64", "--cpu", "--num-workers", "0", "--no-epoch-checkpoints",
            "--log-format", "simple", "--log-interval", "100"]
# What a measure may add between the second fifth of the time and the last: medians, in its own unit.
# (The allocator has been seen to take 10 MB at once, in one of 200,000 updates.)
GROWTH = {"memory_bytes": 16 * 2**20, "file_descriptors": 0, "threads": 0}
LABELS = {"memory_bytes": "memory (bytes)", "file_descriptors": "file descriptors", "threads": "threads"}


def updates_of_an_epoch(data: str) -> int:
    lines = load_indexed_dataset(f"{data}/train", None)  # the sizes are part of its memory map
    return math.ceil(math.ceil(lines.sizes.sum() / 15) / 4)  # blocks of 15 tokens and <s>, four in a batch


def command(args: argparse.Namespace) -> List[str]:
    out, epochs = Path(args.out), math.ceil(args.updates / updates_of_an_epoch(args.data))
    return [sys.executable, "-m", "fairseq_cli.train", args.data, "--user-dir", PLUGIN, *TRAINING, *OURS, *MODEL,
            "--mask-strategy", "high", "--teacher", args.teacher, "--entropy-cache", str(out / "cache"),
            "--self-mask-from-epoch", str(1 + epochs // 2), "--max-update", str(args.updates),
            "--save-dir", str(out / "run"), "--save-interval", str(max(1, epochs // 20))]


def measure(pid: int) -> Dict[str, float]:
    """Of a process, by /proc."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"memory_bytes": 1024 * int(status["VmRSS"].split()[0]),
            "file_descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(status["Threads"])}


def watch(process: subprocess.Popen, every: float) -> List[Dict[str, float]]:
    """Measures of a process until it ends, each with its time in seconds."""
    rows, begin = [], time.monotonic()
    while process.poll() is None:
        try:
            rows.append({"seconds": time.monotonic() - begin, **measure(process.pid)})
        except (OSError, KeyError):  # it has just ended
            break
        time.sleep(every)
    return rows


def growth(rows: List[Dict[str, float]], name: str) -> float:
    """Of the median, from the second fifth of the time to the last: the first is start-up and the cache."""
    fifth = len(rows) // 5
    return median(rows[-fifth:], name) - median(rows[fifth : 2 * fifth], name)


def median(rows: List[Dict[str, float]], name: str) -> float:
    return sorted(row[name] for row in rows)[len(rows) // 2]


def draw(rows: List[Dict[str, float]], title: str, file: Path) -> None:
    figure, panels = pyplot.subplots(len(GROWTH), sharex=True, figsize=(8, 6), layout="constrained")
    for panel, name in zip(panels, GROWTH):
        panel.plot([row["seconds"] / 60 for row in rows], [row[name] for row in rows], linewidth=1)
        panel.set(ylabel=LABELS[name], ylim=(0, None))
    panels[0].yaxis.set_major_formatter(EngFormatter())
    panels[0].set(title=title)
    panels[-1].set(xlabel="minutes")
    save(figure, str(file))


def write(rows: List[Dict[str, float]], file: Path) -> None:
    with atomic_path(str(file)) as tmp, open(tmp, "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["seconds", *GROWTH])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data-bin")
    parser.add_argument("--teacher", required=True, help="checkpoint")
    parser.add_argument("--out", required=True, help="new folder for the run, its cache, soak.csv and soak.png")
    parser.add_argument("--updates", type=int, default=200_000)
    parser.add_argument("--every", type=float, default=1, help="seconds between two measurements")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True)
    with open(out / "log", "w") as log:
        process = subprocess.Popen(command(args), stdout=log, stderr=subprocess.STDOUT)
        rows = watch(process, args.every)
    if process.wait():
        raise SystemExit(f"the training failed: {(out / 'log').read_text()[-2000:]}")
    write(rows, out / "soak.csv")
    draw(rows, f"{args.updates:,} updates", out / "soak.png")
    grown = {name: growth(rows, name) for name in GROWTH}
    for name in GROWTH:
        print(f"{name}: {median(rows, name):,.0f}, grown by {grown[name]:,.0f}")
    if any(grown[name] > GROWTH[name] for name in GROWTH):
        raise SystemExit("something grows: see soak.png")


if __name__ == "__main__":
    main()
