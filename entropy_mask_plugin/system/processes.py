"""Other processes: each with its log, none that outlives the one that started it."""

import contextlib
import ctypes
import os
import signal
import site
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Callable, Iterator, List, Optional, Sequence

from .atomic_files import DISK_TROUBLE
from .errors import UsageError
from .machine import peak_memory_bytes

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the plug-in's folder, as --user-dir takes it

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
LOOK_EVERY = 1.0  # seconds
RUNNING = set()  # processes that somebody here waits for


def end_with_parent() -> None:
    """In a new process: after kill -9 of this program, it would go on and write into the next run's files."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class ProcessFailed(Exception):
    """Its message names the log and its last line."""


def threads_of_each(jobs: int) -> int:
    """How many threads each of several processes at once may have: of the cores, or of OMP_NUM_THREADS where that is
    fewer. More threads than cores wait for each other at every product of matrices, ten times as long as it takes."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, int(os.environ.get("OMP_NUM_THREADS") or cores)) // jobs)


def all_of(items, function, jobs):
    """Call a function that runs processes with each item, several at once.

    Yields:
        (item, the exception that it ended with, or None), as they end. One item's trouble is not the others'.

    An interrupt ends the processes under way; it need not have reached them.
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
    """For people."""
    return str(error) if isinstance(error, (ProcessFailed, UsageError)) else f"{type(error).__name__}: {error}"


def gpus() -> List[str]:
    """The numbers of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch  # seconds, which not every program with processes need wait for

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
    """Start a process in a group of its own; where the block ends with an exception, the group is killed.

    Args:
        output: where stdout and stderr go.
        options: of `subprocess.Popen`.
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
    """The process, and its workers too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_logged(command: Sequence[str], log: str, threads: int, device: Optional[str] = None,
               look: Optional[Callable[[], None]] = None) -> int:
    """Run a process to its end, its output at the end of `log`.

    Args:
        threads: that torch may use.
        device: number of its GPU; None = whatever there is.
        look: called with nothing every second while the process runs.
    Returns:
        the most memory that it held, in bytes, as seen by looking every second; 0 where it never was.
    Raises:
        ProcessFailed: it did not end well.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore",
                   "PYTHONPATH": python_path()}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    with open(log, "a", encoding="utf-8") as file, running(command, file, env=environment) as process:
        peak = watch(process, look)
    if process.returncode:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        raise ProcessFailed(f"{log}: {lines[-1] if lines else 'nothing'} (exit status {process.returncode})")
    return peak


def watch(process, look):
    peak = 0
    while True:
        peak = max(peak, peak_memory_bytes(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY)
            return peak
        if look is not None:
            look()


def run_preprocess(arguments: Sequence[str], destination: str, look: Callable[[], None] = lambda: None) -> None:
    """fairseq-preprocess, in the folder that it writes: no file of the user's there can be taken for a Python module.

    Args:
        look: called with nothing five times a second while it runs, and at its end.
    Raises:
        OSError: the disk is full, read-only or forbidden.
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


def failure_of_preprocess(status, log):
    for trouble in DISK_TROUBLE:
        if os.strerror(trouble) in log:
            return OSError(trouble, os.strerror(trouble))
    print(*log.splitlines()[-20:], sep="\n", file=sys.stderr)
    return UsageError(f"fairseq-preprocess ended with status {status}, expected 0: its last lines are above")
