"""Locks between processes. Each ends with its process, even by kill -9.

Some network file systems cannot lock: there the locks are not taken, and the work may be done twice.
"""

import contextlib
import fcntl
import os
from typing import Iterator

from .errors import UsageError


@contextlib.contextmanager
def exclusive_lock(folder: str, flag: str = "--out") -> Iterator[None]:
    """Make the folder and keep other runs out of it; a folder that was made here and stayed empty is removed.

    Raises:
        UsageError: another run has the lock; the folder cannot be made.
    """
    is_new = not os.path.exists(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag} {folder}: {error.strerror}, expected a folder or a name for a new one") from error
    with _opened(folder, os.O_RDONLY) as handle:
        try:
            if not _lock(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise UsageError(f"{flag} {folder}: another run is writing there, expected to be alone")
            yield
        finally:
            if is_new and not os.listdir(folder):
                os.rmdir(folder)


@contextlib.contextmanager
def wait_for_lock(folder: str) -> Iterator[None]:
    """Wait until no other process is in this block for the folder."""
    with _opened(folder, os.O_RDONLY) as handle:
        _lock(fcntl.flock, handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def try_lock(path: str, number: int) -> Iterator[bool]:
    """Whether nobody else holds this number of the lock file, which is made where it is not there."""
    with _opened(path, os.O_RDWR | os.O_CREAT) as handle:
        yield _lock(fcntl.lockf, handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)


@contextlib.contextmanager
def _opened(path, flags):
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(lock, *arguments):
    """Whether nobody else holds it."""
    try:
        lock(*arguments)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a network file system that cannot lock
    return True
