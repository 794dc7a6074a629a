"""A storm: trainings and commands are killed with SIGKILL at random moments until they are done; then their files must
be those of a run that nothing disturbed, the weights bit for bit.

    python tests/kill_storm.py --inputs DIR --kills 100 --seed 1 [--only NAME …]

A moment is drawn by time (start-up, reading data, updates), by what is being written (parts of a cache, checkpoints),
or by what the log has just said (an epoch begins, ends, is validated). After each kill, every file under a final name
must be complete. Where a run is done before all its kills are used up, another one begins.

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
from pathlib import Path
from typing import Dict, List, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork must not miss threads that exist in its parent
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from builders.attempts import (
    COMMANDS,
    TRAIN,
    differences,
    fork,
    get_ready,
    is_replaced,
    perform,
    results,
    unfinished_files,
    words_of,
)

RANDOM, HIGH = ["--mask-strategy", "random"], ["--mask-strategy", "high", "--self-mask-from-epoch", "2"]
EMA = [*HIGH, "--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9"]
TIMEOUT = 300  # seconds of an attempt that nothing kills
LINES = ("begin training epoch", "begin validation", "Saved checkpoint", "loading train data", "end of epoch")


class Scenario(NamedTuple):
    """words: of a command, see `builders.attempts`. share: of the kills that are asked for."""

    words: List[str]
    ranks: int = 1
    share: float = 1.0


def training(*flags: str, ranks: int = 1) -> Scenario:
    return Scenario([*TRAIN, "--max-epoch", "2", *flags], ranks)


TRAININGS = {  # flags
    "random": [*RANDOM, "--num-workers", "1"],
    "init + KD, cache": [*HIGH, "--teacher", "IN/teacher.pt", "--kd-weight", "0.5", "--entropy-cache", "{}/cache"],
    "ema, guided ramp": [*EMA, "--guided-fraction", "0:0.5"],
    "accuracy": [*HIGH, "--mask-score", "accuracy", "--accuracy-window", "4"],
    "3ML": ["--arch", "bertlet_3ml", "--mask-decoder-layers", "1", *RANDOM],
    "recorded masks": [*RANDOM, "--record-masks", "{}/masks"],
}
TWO_RANKS = ["--batch-size", "32", "--distributed-backend", "gloo", "--ddp-backend", "c10d"]
SCENARIOS = {
    **{name: training(*flags) for name, flags in TRAININGS.items()},
    **{f"{name}, two ranks": training(*flags, *TWO_RANKS, ranks=2) for name, flags in TRAININGS.items()},
    "prepare-corpus": Scenario(COMMANDS["prepare-corpus"]),
    "build-entropy-cache": Scenario(COMMANDS["build-entropy-cache"]),
    "import-hf-bert": Scenario(COMMANDS["import-hf-bert"]),
    "export-hf-bert": Scenario(COMMANDS["export-hf-bert"]),
    "glue": Scenario(COMMANDS["glue"], share=0.2),
    "studies": Scenario(COMMANDS["studies"], share=0.1),
}
REPLACE_NOTHING = ("import-hf-bert", "export-hf-bert")  # they refuse an existing --out


class Run:
    """A command in a folder, attempt after attempt."""

    def __init__(self, scenario: Scenario, folder: Path, inputs: Path):
        self.words, self.ranks = words_of(scenario.words, inputs, folder), scenario.ranks
        self.folder, self.log = folder, folder.with_suffix(".log")
        folder.mkdir(parents=True)

    def start(self) -> List[int]:
        """Begin an attempt. Returns the process ids of its ranks."""
        if self.ranks == 1:
            return [fork(lambda: perform(self.words), self.log)]
        common = dict(WORLD_SIZE=str(self.ranks), MASTER_ADDR="localhost", MASTER_PORT=str(free_port()),
                      TORCHELASTIC_RUN_ID="storm")
        return [fork(lambda: perform(self.words), self.log, RANK=str(rank), LOCAL_RANK=str(rank), **common)
                for rank in range(self.ranks)]

    def writes(self) -> int:
        """How many files and folders are being written under a temporary name."""
        return len(unfinished_files(self.folder))

    def lines(self) -> int:
        """How many lines of the log mark a moment."""
        return len(re.findall("|".join(LINES), self.log.read_text(errors="replace"))) if self.log.exists() else 0


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
            raise RuntimeError(f"the run failed: {statuses or 'it hangs'}")
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
    trains = run.words[0] == "fairseq-train"  # other commands log into files of their own
    kind, begin = draw.choice(["time", "write", "line"] if trains else ["time", "write"]), time.monotonic()
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


def check_files(run: Run, calm: Dict[str, str]) -> None:
    """Every file under a final name is complete: those that stay are those of the undisturbed run, others can be read.
    """
    found = results(run.folder)  # reads every checkpoint
    wrong = [name for name in calm if not is_replaced(name) and found.get(name, calm[name]) != calm[name]]
    assert not wrong, f"half-written, see {run.folder}: {wrong}"


def storm(name: str, inputs: Path, kills: int, seed: int, folder: Path) -> int:
    """Kill runs of a scenario. Returns how many were brought to their end.

    Raises:
        AssertionError: a run ends with other files or weights, or leaves temporary files.
        RuntimeError: one fails.
    """
    draw, scenario = random.Random(f"{seed} {name}"), SCENARIOS[name]
    run, begin = Run(scenario, folder / "calm", inputs), time.monotonic()
    assert wait(run.start(), lambda: False)
    seconds, finished, left, calm = time.monotonic() - begin, 0, kills, results(run.folder)
    assert calm
    while left or not finished:
        run = Run(scenario, folder / f"storm{finished}", inputs)
        while not wait(run.start(), moment(run, draw, seconds) if left else lambda: False):
            left -= 1
            check_files(run, calm)
            if run.words[0] in REPLACE_NOTHING and not differences(calm, results(run.folder)):
                break  # it was killed after its work
        finished += 1
        assert differences(calm, results(run.folder)) == [], f"{name}: see {run.folder}"
        assert unfinished_files(run.folder) == [], name
        shutil.rmtree(run.folder)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=Path, required=True, help="folder of builders.attempts.make_inputs")
    parser.add_argument("--kills", type=int, default=100, help="of each scenario; fewer of glue and studies")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME",
                        help=f"scenarios: {', '.join(SCENARIOS)}")
    args = parser.parse_args()
    get_ready()
    for name in args.only:
        folder = Path(tempfile.mkdtemp(prefix="storm"))
        kills = max(1, round(args.kills * SCENARIOS[name].share))
        finished = storm(name, args.inputs, kills, args.seed, folder)
        shutil.rmtree(folder)
        print(f"{name}: {kills} kills, {finished} runs with the files of an undisturbed one", flush=True)


if __name__ == "__main__":
    main()
