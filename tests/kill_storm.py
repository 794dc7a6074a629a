"""A storm: trainings are killed with SIGKILL at random moments until they are done; then their weights must be, bit for
bit, those of a training that nothing disturbed.

    python tests/kill_storm.py --data BIN --teacher PT --kills 100 --seed 1 [--only NAME …]

A moment is drawn by time (start-up, reading data, updates), by what is being written (parts of a cache, checkpoints),
or by what the log has just said (an epoch begins, ends, is validated). After each kill, every file under a final name
must be complete. Where a training is done before all its kills are used up, another one begins.

Each attempt is a fork of this process, which has imported everything and computed nothing, so that it starts at once.
"""

import argparse
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import List, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork must not miss threads that exist in its parent
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from builders.training import OURS, TINY, TRAINING, same_weights
from fairseq_cli import train as fairseq_train

import entropy_mask_plugin
from entropy_mask_plugin.checkpoints.reading import read_checkpoint

SAVES = ["--save-interval-updates", "3", "--keep-interval-updates", "2", "--validate-interval-updates", "5",
         "--max-epoch", "2"]
INIT = ["--mask-strategy", "high", "--self-mask-from-epoch", "2"]
TIMEOUT = 120  # seconds of an attempt that nothing kills
LINES = ("begin training epoch", "begin validation", "Saved checkpoint", "loading train data", "end of epoch")


class Scenario(NamedTuple):
    """A training. flags: {} stands for its own folder, TEACHER for the teacher."""

    flags: List[str]
    ranks: int = 1


SCENARIOS = {
    "random": Scenario(["--mask-strategy", "random", "--num-workers", "1"]),
    "init + KD, cache": Scenario([*INIT, "--teacher", "TEACHER", "--kd-weight", "0.5", "--entropy-cache", "{}/cache"]),
    "ema, guided ramp": Scenario([*INIT, "--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9",
                                  "--guided-fraction", "0:0.5"]),
    "accuracy": Scenario([*INIT, "--mask-score", "accuracy", "--accuracy-window", "4"]),
    "3ML": Scenario(["--arch", "bertlet_3ml", "--mask-decoder-layers", "1", "--mask-strategy", "random"]),
    "recorded masks": Scenario(["--mask-strategy", "random", "--record-masks", "{}/masks"]),
    "two ranks, ema": Scenario([*INIT, "--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9", "--batch-size",
                                "32", "--distributed-backend", "gloo", "--ddp-backend", "c10d"], ranks=2),
}


class Run:
    """A training in a folder, attempt after attempt."""

    def __init__(self, scenario: Scenario, folder: Path, data: str, teacher: str):
        self.scenario, self.folder = scenario, folder
        self.log, self.checkpoint = folder / "log", folder / "run" / "checkpoint_last.pt"
        flags = [flag.replace("TEACHER", teacher).format(folder) for flag in scenario.flags]
        self.arguments = [data, *TRAINING, *OURS, *TINY, "--save-dir", str(folder / "run"), *SAVES, *flags]
        folder.mkdir(parents=True)

    def start(self) -> List[int]:
        """Begin an attempt. Returns the process ids of its ranks."""
        port = free_port()
        return [self.fork(rank, port) for rank in range(self.scenario.ranks)]

    def fork(self, rank: int, port: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1), os.dup2(log, 2)
            if self.scenario.ranks > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(self.scenario.ranks),
                                  MASTER_ADDR="localhost", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="storm")
            sys.argv = ["fairseq-train", *self.arguments]
            fairseq_train.cli_main()
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)

    def writes(self) -> int:
        """How many files are being written under a temporary name."""
        return sum(1 for pattern in ("*.partial", "*.tmp") for _ in self.folder.rglob(pattern))

    def lines(self) -> int:
        """How many lines of the log mark a moment."""
        return len(re.findall("|".join(LINES), self.log.read_text())) if self.log.exists() else 0


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def wait(pids: List[int], until) -> bool:
    """Wait until the ranks have ended or `until()` is true. Returns whether they ended; raises where one has failed."""
    statuses, begin = {}, time.monotonic()
    while len(statuses) < len(pids):
        for pid in pids:
            if pid not in statuses:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    statuses[pid] = os.waitstatus_to_exitcode(status)
        if any(statuses.values()) or time.monotonic() - begin > TIMEOUT:
            kill([pid for pid in pids if pid not in statuses])
            raise RuntimeError(f"the training failed: {statuses or 'it hangs'}")
        if len(statuses) < len(pids) and until():
            kill([pid for pid in pids if pid not in statuses])
            return False
        time.sleep(0.0005)
    return True


def kill(pids: List[int]) -> None:
    """SIGKILL, to all at once; their data workers are left to notice."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


def moment(run: Run, draw: random.Random, seconds: float):
    """A function that says whether the moment of the next kill has come. seconds: of an undisturbed training."""
    kind, begin = draw.choice(["time", "write", "line"]), time.monotonic()
    delay = draw.uniform(0, 0.6 * seconds)
    if kind == "time":
        return lambda: time.monotonic() - begin > delay
    count = run.writes if kind == "write" else run.lines
    passed, first, number = [0], count(), draw.randint(1, 6)

    def has_come():
        now = count()
        if now > first:
            passed[0] += kind == "line" or now != first
        return (now - first >= number if kind == "line" else passed[0] >= number) or \
            time.monotonic() - begin > 2 * seconds

    return has_come


def check_files(run: Run) -> None:
    """Every checkpoint under a final name can be read."""
    for path in (run.folder / "run").glob("*.pt"):
        read_checkpoint(str(path), "--restore-file")


def storm(name: str, data: str, teacher: str, kills: int, seed: int, folder: Path) -> int:
    """Kill trainings of a scenario. Returns how many were brought to their end.

    Raises:
        AssertionError: a training ends with other weights.
        RuntimeError: one fails.
    """
    draw, scenario = random.Random(f"{seed} {name}"), SCENARIOS[name]
    calm, begin = Run(scenario, folder / "calm", data, teacher), time.monotonic()
    assert wait(calm.start(), lambda: False)
    seconds, finished, left = time.monotonic() - begin, 0, kills
    while left or not finished:
        run = Run(scenario, folder / f"storm{finished}", data, teacher)
        while not wait(run.start(), moment(run, draw, seconds) if left else lambda: False):
            left -= 1
            check_files(run)
        finished += 1
        assert same_weights(str(calm.checkpoint), str(run.checkpoint)), f"{name}: other weights, see {run.folder}"
        shutil.rmtree(run.folder)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data-bin")
    parser.add_argument("--teacher", required=True, help="checkpoint")
    parser.add_argument("--kills", type=int, default=100, help="of each scenario")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME",
                        help=f"scenarios: {', '.join(SCENARIOS)}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    entropy_mask_plugin.register()
    for name in args.only:
        folder = Path(tempfile.mkdtemp(prefix="storm"))
        finished = storm(name, args.data, args.teacher, args.kills, args.seed, folder)
        shutil.rmtree(folder)
        print(f"{name}: {args.kills} kills, {finished} trainings with the weights of an undisturbed one", flush=True)


if __name__ == "__main__":
    main()
