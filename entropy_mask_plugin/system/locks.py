"""Locks between processes. A lock is released when its process ends, even by kill -9.

Some network file systems cannot lock: there every lock succeeds, and work may be done twice.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Any

from .errors import UsageError


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
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag} {folder}: {error.strerror}, expected a folder or a name for a new one") from error
    with _opened(folder, os.O_RDONLY) as handle:
        try:
            if not _lock(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise UsageError(f"{flag} {folder}: another run is writing there, expected no other run")
            yield
        finally:
            if is_new and not os.listdir(folder):
                os.rmdir(folder)


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
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(lock: Any, *arguments: Any) -> bool:
    """Whether the lock was taken."""
    try:
        lock(*arguments)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a network file system that cannot lock
    return True
