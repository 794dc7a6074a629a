"""Other processes: each with its log, none that outlives the one that started it."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed

from .errors import UsageError

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
LOOK_EVERY = 1.0  # seconds
RUNNING = set()  # processes that `run_logged` waits for


def end_with_parent():
    """In a new process: after kill -9 of this program, it would go on and write into the next run's files."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class ProcessFailed(Exception):
    """Its message names the log and its last line."""


def threads_of_each(jobs):
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
                process.kill()
            raise


def in_words(error):
    """What a person is told of a failure."""
    return str(error) if isinstance(error, (ProcessFailed, UsageError)) else f"{type(error).__name__}: {error}"


def gpus():
    """The numbers of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch  # seconds, which not every program with processes need wait for

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def run_logged(command, log, threads, device=None, look=None):
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
                   "PYTHONPATH": os.pathsep.join([package_folder(), os.environ.get("PYTHONPATH", "")])}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment,
                                   preexec_fn=end_with_parent)
    RUNNING.add(process)
    try:
        peak = watch(process, look)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        RUNNING.discard(process)
    if process.returncode:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        raise ProcessFailed(f"{log}: {lines[-1] if lines else 'nothing'} (exit status {process.returncode})")
    return peak


def watch(process, look):
    peak = 0
    while True:
        peak = max(peak, memory_of(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY)
            return peak
        if look is not None:
            look()


def memory_of(pid):
    """The most memory that a process has held so far, in bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
        return int(found[1]) * 1024 if found else 0
    return 0


def package_folder():
    """The folder that the plug-in is imported from."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
