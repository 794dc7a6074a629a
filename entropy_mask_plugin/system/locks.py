"""Locks between processes. A lock is released when its process ends, even by kill -9.

On network disks they may hold between the processes of one machine only: NFS does not pass on a flock of a folder.
Where a file system cannot lock, every lock succeeds, and work may be done twice.
"""

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from typing import Any, MutableMapping, Set

from .atomic_files import make_folder
from .errors import UsageError

_handles: Set[int] = set()  # open files that hold a lock
_held: MutableMapping[str, "HeldLock"] = weakref.WeakValueDictionary()  # folder -> its lock


@contextlib.contextmanager
def exclusive_lock(folder: str, flag: str = "--out") -> Iterator[None]:
    """Create the folder and hold its lock; a folder that was created here and stayed empty is removed.

    Args:
        folder: to be locked.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: another run holds the lock; the folder cannot be created.
    """
    is_new = not os.path.exists(folder)
    make_folder(folder, flag)
    with _opened(folder, os.O_RDONLY) as handle:
        try:
            if not _lock(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise UsageError(f"{flag}: {folder}: another run is writing there: wait for it to end, or stop it")
            yield
        finally:
            if is_new and os.path.isdir(folder) and not os.listdir(folder):
                os.rmdir(folder)


class HeldLock:
    """An `exclusive_lock` that is held while this object exists, at most until the process ends."""

    def __init__(self, folder: str, flag: str):
        stack = contextlib.ExitStack()
        stack.enter_context(exclusive_lock(folder, flag))
        weakref.finalize(self, stack.close)


def lock_while_alive(folder: str, flag: str) -> HeldLock:
    """Lock a folder, once within a process; arguments and errors as for `exclusive_lock`."""
    path = os.path.realpath(folder)
    held = _held.get(path)
    if held is None:
        held = _held[path] = HeldLock(folder, flag)
    return held


@contextlib.contextmanager
def wait_for_lock(folder: str) -> Iterator[None]:
    """Hold the folder's lock; wait while another process holds it."""
    with _opened(folder, os.O_RDONLY) as handle:
        _lock(fcntl.flock, handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def try_lock(path: str, number: int) -> Iterator[bool]:
    """Yield whether byte `number` of the lock file could be locked. The file is created if it is missing."""
    with _opened(path, os.O_RDWR | os.O_CREAT) as handle:
        yield _lock(fcntl.lockf, handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    handle = os.open(path, flags)
    _handles.add(handle)
    try:
        yield handle
    finally:
        if handle in _handles:  # not in a forked child, where it is closed, and its number may be another file's
            _handles.remove(handle)
            os.close(handle)


def _close_handles() -> None:
    """A forked data worker that outlives a killed run for some seconds would still hold its locks."""
    while _handles:
        os.close(_handles.pop())


os.register_at_fork(after_in_child=_close_handles)


def _lock(lock: Any, *arguments: Any) -> bool:
    """Whether the lock was taken."""
    try:
        lock(*arguments)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a network file system that cannot lock
    return True
