"""Child processes: each with its log, none outlives its parent."""

import contextlib
import ctypes
import os
import re
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, List, Optional, Tuple

from .atomic_files import DISK_TROUBLE, describe_disk_trouble
from .errors import UsageError
from .machine import peak_memory_bytes

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the plug-in's folder, as --user-dir takes it

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
LOOK_EVERY = 1.0  # seconds
RUNNING = set()  # processes started by `running` that have not ended


def end_with_parent() -> None:
    """Called in a child process: otherwise, after kill -9 of the parent, it would keep writing into the next run's
    files."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class ProcessFailed(Exception):
    """Its message names the log and its last line."""


def threads_of_each(jobs: int) -> int:
    """Threads for each of `jobs` concurrent processes: an equal part of the cores, or of OMP_NUM_THREADS if that is
    less. With more threads than cores, a matrix product takes ten times as long."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, int(os.environ.get("OMP_NUM_THREADS") or cores)) // jobs)


def all_of(
    items: Iterable[Any], function: Callable[[Any], Any], jobs: int
) -> Iterator[Tuple[Any, Optional[BaseException]]]:
    """Call a function that runs child processes with each item, `jobs` at a time.

    Yields:
        (item, the exception that it failed with, or None), in the order of completion. A failure does not affect the
        other items.

    An interrupt kills the running processes, whether or not it reached them.
    """
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(function, item): item for item in items}
        try:
            for done in as_completed(running):
                yield running[done], done.exception()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                kill_group(process)
            raise


def describe_error(error: BaseException) -> str:
    """A message for users: without the type of an error that explains itself."""
    return str(error) if isinstance(error, (ProcessFailed, UsageError)) else f"{type(error).__name__}: {error}"


def gpus() -> List[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here, as it takes seconds that not every caller needs

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def python_path() -> str:
    """The PYTHONPATH with which processes find this package, also where it is not installed."""
    root, given = os.path.dirname(PACKAGE), list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    # site-packages would come before the standard library, and hide modules of it behind backports.
    if root in given or root in (*site.getsitepackages(), site.getusersitepackages()):
        return os.pathsep.join(given)
    return os.pathsep.join([root, *given])


@contextlib.contextmanager
def running(command: Sequence[str], output: Any, **options: Any) -> Iterator[subprocess.Popen]:
    """Start a process in its own process group, which is killed if the block raises.

    Args:
        command: program and arguments.
        output: file for stdout and stderr.
        **options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                               preexec_fn=end_with_parent, **options)
    RUNNING.add(process)
    try:
        yield process
    except BaseException:
        kill_group(process)
        process.wait()
        raise
    finally:
        RUNNING.discard(process)


def kill_group(process: subprocess.Popen) -> None:
    """Kill a process started by `running`, and its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_logged(command: Sequence[str], log: str, threads: int, device: Optional[str] = None,
               look: Optional[Callable[[], None]] = None) -> int:
    """Run a process to its end, with its output appended to `log`.

    Args:
        command: program and arguments.
        log: path of the log.
        threads: number that torch may use.
        device: number of its GPU; None = all.
        look: called without arguments every second while the process runs.
    Returns:
        its peak memory in bytes, sampled every second; 0 = it ended before the first sample.
    Raises:
        ProcessFailed: its exit status is not 0.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore",
                   "PYTHONPATH": python_path()}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    with open(log, "a", encoding="utf-8") as file, running(command, file, env=environment) as process:
        peak = watch(process, look)
    if process.returncode:
        raise ProcessFailed(f"{log}: {last_line(log)} (exit status {process.returncode})")
    return peak


def last_line(log: str) -> str:
    """The last line of a log that is not empty; where the disk takes no more lines, that."""
    try:
        with open(log, "a", encoding="utf-8") as file:
            file.write("\n")
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        return describe_disk_trouble(error)
    with open(log, encoding="utf-8", errors="replace") as file:
        return [line.strip() for line in ["nothing", *file] if line.strip()][-1]


def watch(process: subprocess.Popen, look: Optional[Callable[[], None]]) -> int:
    """Wait for a process; return its peak memory in bytes. look: called without arguments every LOOK_EVERY seconds."""
    peak = 0
    while True:
        peak = max(peak, peak_memory_bytes(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY)
            return peak
        if look is not None:
            look()


def run_preprocess(arguments: Sequence[str], destination: str, look: Callable[[], None] = lambda: None) -> None:
    """Run fairseq-preprocess with its output folder as working directory: in the user's, it might import the user's
    files instead of modules of the same name.

    Args:
        arguments: of fairseq-preprocess, with absolute paths.
        destination: its output folder, which exists.
        look: called without arguments five times a second while it runs, and at its end.
    Raises:
        OSError: the disk is full or read-only, permission is denied, or a file vanished.
        UsageError: it failed otherwise; its last lines were printed.
    """
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "fairseq_cli.preprocess", *arguments]
        with running(command, log, cwd=destination) as process:
            while process.poll() is None:
                look()
                time.sleep(0.2)
            look()
        if process.returncode:
            log.seek(0)
            raise failure_of_preprocess(process.returncode, log.read())


def failure_of_preprocess(status: int, log: str) -> Exception:
    """The exception for a failed fairseq-preprocess; prints the end of its log unless a file or the disk was to blame.
    """
    for code in DISK_TROUBLE:
        if os.strerror(code) in log:
            return OSError(code, os.strerror(code))
    named = re.findall(r"^\w+: \[Errno (\d+)\] .*: '(.+)'$", log, re.MULTILINE)
    if named:
        code, file = named[-1]
        return OSError(int(code), os.strerror(int(code)), file)
    print(*log.splitlines()[-20:], sep="\n", file=sys.stderr)
    return UsageError(f"fairseq-preprocess ended with status {status}, expected 0: its last lines are above")
