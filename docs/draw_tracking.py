#!/usr/bin/env python3
"""Train two small models and draw docs/tracking.png, what TensorBoard shows of them:

    python docs/draw_tracking.py corpora/mine/bin [--work FOLDER]

Needs the extra [tracking] and the program chromium. The data-bin may be any; the picture in the docs is of WordPiece
text with 1,000 symbols. The trainings take a minute or two on a CPU; a folder that has them is used as it is.
"""

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
TAGS = "loss|guided|mask_rate|entropy_masked|kd_loss|bits_below_unigram"
RUNS = "train_inner|valid"  # train has the same numbers, once in an epoch
WINDOW = "1440,765"  # pixels
TRAINING = shlex.split("""
    --task entropy_masked_lm --criterion entropy_masked_lm --arch bertlet --encoder-layers 2 --encoder-embed-dim 128
    --encoder-ffn-embed-dim 512 --encoder-attention-heads 4 --max-positions 32 --tokens-per-sample 32
    --encoder-normalize-before --init-std 0.08 --dropout 0 --attention-dropout 0 --leave-unmasked-prob 0.1
    --random-token-prob 0.1 --optimizer adam --clip-norm 1.0 --lr 3e-3 --lr-scheduler polynomial_decay
    --warmup-updates 50 --total-num-update 600 --max-update 600 --batch-size 32 --cpu --num-workers 0
    --log-interval 10 --save-interval-updates 100 --keep-interval-updates 1 --no-epoch-checkpoints""")


def train(data: Path, work: Path, name: str, *flags: object) -> Path:
    """Train a model, unless it has been. Returns its last checkpoint."""
    checkpoint = work / name / "checkpoint_last.pt"
    command = [sys.executable, "-m", "fairseq_cli.train", data, "--user-dir", ROOT / "entropy_mask_plugin", *TRAINING,
               *flags, "--save-dir", work / name, "--tensorboard-logdir", work / "tensorboard" / name]
    print(f"training {name}", flush=True)
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    return checkpoint


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(url: str, seconds: float = 120) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def draw(logdir: Path, file: Path) -> None:
    """Show TensorBoard's page of the curves in a browser without a window."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    board = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir.name, "--port", str(port)]
    server = subprocess.Popen(board, cwd=logdir.parent, stderr=subprocess.DEVNULL)  # the page shows --logdir as given
    try:
        wait_for(f"{address}/data/runs")
        page = (f"{address}/?darkMode=false&runFilter={quote(RUNS)}#scalars&_smoothingWeight=0&regexInput={quote(RUNS)}"
                f"&tagFilter={quote(f'^({TAGS})$')}")
        with tempfile.TemporaryDirectory() as profile:
            subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                            f"--user-data-dir={profile}", f"--window-size={WINDOW}", "--virtual-time-budget=30000",
                            f"--screenshot={file}", page], check=True, stderr=subprocess.DEVNULL)
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data-bin")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "tracking", help="where the two runs are kept")
    args = parser.parse_args()
    if shutil.which("chromium") is None:
        parser.error("chromium: not found, expected on the PATH (Debian: apt-get install chromium)")
    teacher = train(args.data, args.work, "random", "--mask-strategy", "random")
    train(args.data, args.work, "guided", "--mask-strategy", "high", "--teacher", teacher, "--guided-fraction", "0:0.5",
          "--mask-prob", "0.3:0.15", "--kd-weight", "0.5")
    draw(args.work / "tensorboard", Path(__file__).with_name("tracking.png"))


if __name__ == "__main__":
    main()
