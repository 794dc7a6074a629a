"""Every kind of file that the plug-in reads, mutated at random: each is read, or refused in one line. No code in it is
run, nothing hangs, memory stays within 1 GB, and nothing ends in a traceback.

    python tests/fuzz_files.py --mutations 10000 --seed 1 [--only NAME …] [--at NUMBER]

prints for each kind how many mutations were read and how many refused, and the seconds of the CPU and the memory that
the worst took. A mutation is a function of the seed, the kind and its number: a finding is repeated, with its
traceback, by --only NAME --at NUMBER.

Mutations are read in forks of this process, a few hundred in each. A fork may allocate 1 GB (RLIMIT_AS) more than it
began with, and starts no process: Python reports that, as well as every name that a pickle is looked up by.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")  # a fork has no threads

import argparse
import collections
import contextlib
import json
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from builders.file_formats import FORMATS, Format, make_originals
from tqdm import tqdm

import entropy_mask_plugin
from entropy_mask_plugin.system.errors import UsageError, message_of

MEMORY = 1 << 30  # bytes
SECONDS = 10  # of the CPU, for a mutation
PATIENCE = 300  # seconds without any mutation done, after which a fork is killed; the machine may be busy
BATCH = 250  # mutations in a fork
READ, REFUSED, FOUND = "read", "refused", "finding"
FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "subprocess.Popen",
             "pty.spawn", "socket.connect", "ctypes.dlopen")


class Outcome(NamedTuple):
    """Of one mutation. kind: read, refused, finding; text: the message or the finding; bytes: peak of its memory."""

    number: int
    kind: str
    text: str = ""
    seconds: float = 0.0
    bytes: int = 0


class Hangs(BaseException):
    """Raised by the alarm."""


class RunsCode(BaseException):
    """Raised by the audit hook."""


def fuzz(name: str, numbers: List[int], seed: int, folder: Path, advance=lambda n: None) -> List[Outcome]:
    """Mutate and read a kind of file, in forks. folder: of the originals."""
    outcomes, left = [], collections.deque(numbers)
    while left:
        batch = [left.popleft() for _ in range(min(BATCH, len(left)))]
        done = in_fork(name, batch, seed, folder)
        if len(done) < len(batch):  # the fork has died of the next one
            done.append(Outcome(batch[len(done)], FOUND, "the process died or hung"))
            left.extendleft(reversed(batch[len(done):]))
        outcomes += done
        advance(len(done))
    return outcomes


def in_fork(name: str, numbers: List[int], seed: int, folder: Path) -> List[Outcome]:
    """The outcomes up to the mutation of which the fork dies."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch, "outcomes")
        results.touch()
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                read_mutations(name, numbers, seed, shutil.copytree(folder, Path(scratch, "files")), results)
            os._exit(0)
        wait(pid, results)
        return [Outcome(*json.loads(line)) for line in results.read_text().splitlines()]


def wait(pid: int, results: Path) -> None:
    """Until the fork ends; one that has not finished a mutation for a while is killed."""
    size, since = 0, time.monotonic()
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if results.stat().st_size > size:
            size, since = results.stat().st_size, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def read_mutations(name: str, numbers: List[int], seed: int, folder: Path, results: Path) -> None:
    """In the fork: read a mutation after the other, and write an outcome of each."""
    kind = FORMATS[name]
    original = (folder / kind.file).read_bytes()
    read_original(kind, folder, results)
    log = open(folder / "log", "w+b")  # noqa: SIM115 (until the process ends)
    os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGPROF, on_alarm)
    sys.addaudithook(audit)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + MEMORY, resource.RLIM_INFINITY))
    with open(results, "w") as file:
        for number in numbers:
            content = kind.mutate(random.Random(f"{seed} {name} {number}"), original)
            outcome = read(kind, folder, number, content)
            if Path(folder, "log").stat().st_size:
                outcome = with_log(outcome, log)
            print(json.dumps(outcome), file=file, flush=True)


def read_original(kind: Format, folder: Path, results: Path) -> None:
    """What is made once is not the mutation's."""
    try:
        kind.read(folder)
    except BaseException as error:
        results.write_text(json.dumps(Outcome(-1, FOUND, f"the original: {described(error)}")) + "\n")
        raise


def read(kind: Format, folder: Path, number: int, content: bytes) -> Outcome:
    """Read one mutation."""
    (folder / kind.file).write_bytes(content)
    before, begin = reset_peak(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.read(folder)
        result = READ, ""
    except UsageError as error:
        result = judged(error)
    except SystemExit as error:
        result = REFUSED if error.code == 0 else FOUND, f"exit status {error.code}"
    except BaseException as error:
        result = FOUND, described(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    peak = max(0, status("VmHWM") - before)
    return Outcome(number, *result, round(time.process_time() - begin, 3), peak)


def judged(error: UsageError) -> Tuple[str, str]:
    """A refusal is in one line, and does not cover up a lack of memory."""
    message, cause = message_of(error), error
    while cause is not None:
        if isinstance(cause, MemoryError) or "can't allocate" in str(cause) or "bad_alloc" in str(cause):
            return FOUND, f"memory: {described(cause)}"
        cause = cause.__cause__ or cause.__context__
    fits = len(message) < 2000 and len(message.splitlines()) == 1
    return (REFUSED, message) if fits else (FOUND, f"not a line: {message[:300]!r}")


def described(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in where if "entropy_mask_plugin" in frame.filename and "errors.py" not in frame.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    last = f"{Path(where[-1].filename).name}:{where[-1].lineno}" if where else "?"
    return f"{type(error).__name__} in {place} ({last}): {str(error)[:200]!r}"


def with_log(outcome: Outcome, log) -> Outcome:
    """The outcome, or a finding where a traceback was printed."""
    log.seek(0)
    text = log.read().decode(errors="replace")
    log.truncate(0)
    log.seek(0)
    return outcome._replace(kind=FOUND, text=f"printed: {text[-300:]!r}") if "Traceback" in text else outcome


def on_alarm(*_) -> None:
    raise Hangs(f"more than {SECONDS} s")


def audit(event: str, arguments: tuple) -> None:
    if event in FORBIDDEN and arguments != ("libnvidia-ml.so.1",):  # with it, a CUDA build of torch counts the GPUs
        raise RunsCode(f"{event} {arguments}")


def status(name: str) -> int:
    """Bytes, by /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def reset_peak() -> int:
    """Begin to measure the peak of the memory anew; returns what is in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def summary(name: str, outcomes: List[Outcome], seconds: float) -> str:
    counts = collections.Counter(outcome.kind for outcome in outcomes)
    peak = max((outcome.bytes for outcome in outcomes), default=0) / 2**20
    slowest = max((outcome.seconds for outcome in outcomes), default=0)
    return (f"{name}: {len(outcomes):,} mutations, {counts[READ]:,} read, {counts[REFUSED]:,} refused, "
            f"{counts[FOUND]:,} findings; {seconds:.0f} s, at most {slowest:.1f} s of the CPU and {peak:.0f} MB")


def findings(name: str, outcomes: List[Outcome]) -> List[str]:
    """One line for each way in which it fails, with the first number."""
    first = {}
    for outcome in outcomes:
        if outcome.kind == FOUND:
            first.setdefault(outcome.text.split(":")[0] + outcome.text.split(":")[1][:20]
                             if ":" in outcome.text else outcome.text, outcome)
    return [f"    --only '{name}' --at {outcome.number}: {outcome.text}" for outcome in first.values()]


def repeat(name: str, number: int, seed: int, folder: Path) -> None:
    """Read one mutation in this process; its traceback is shown."""
    kind = FORMATS[name]
    content = (folder / kind.file).read_bytes()
    (folder / kind.file).write_bytes(kind.mutate(random.Random(f"{seed} {name} {number}"), content))
    kind.read(folder)
    print("read")


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="NAME",
                        help="kinds: " + "; ".join(FORMATS))
    parser.add_argument("--at", type=int, metavar="NUMBER", help="this mutation alone")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    entropy_mask_plugin.register()
    logging.getLogger().setLevel(logging.INFO)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_originals(folder)
        logging.disable(logging.CRITICAL)
        if args.at is not None:
            repeat(args.only[0], args.at, args.seed, folder)
            return 0
        total = sum(len(range(0, args.mutations, FORMATS[name].every)) for name in args.only)
        with tqdm(total=total, unit=" mutations", mininterval=1) as bar:
            for name in args.only:
                begin = time.monotonic()
                bar.set_description(name)
                numbers = list(range(0, args.mutations, FORMATS[name].every))
                outcomes = fuzz(name, numbers, args.seed, folder, bar.update)
                bar.write("\n".join([summary(name, outcomes, time.monotonic() - begin), *findings(name, outcomes)]),
                          file=sys.stdout)
                sys.stdout.flush()
                failed |= any(outcome.kind == FOUND for outcome in outcomes)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
