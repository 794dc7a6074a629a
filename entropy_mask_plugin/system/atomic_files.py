"""Files and folders that appear under their final name only when they are complete."""

import contextlib
import errno
import glob
import json
import os
import platform
import shutil
from collections.abc import Iterator
from typing import Any, Dict

from .errors import UsageError, naming

MACHINE = platform.node()
ROOM, WRITABLE = "free some space and rerun the same command", "expected a disk that can be written"
DISK_TROUBLE = {  # number of an OSError: what helps
    errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: "expected a higher limit on the size of files",
    errno.EACCES: WRITABLE, errno.EPERM: WRITABLE, errno.EROFS: WRITABLE,
    errno.EIO: "check the disk and rerun the same command", errno.ESTALE: "check the disk and rerun the same command",
}


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Yield a temporary name for a file or folder; it is renamed to `path` if the block succeeds, and removed if not.

    The name contains the machine and the process id: a child of a killed run may still be writing, and must not touch a
    later run's files. What processes of this machine left that have ended is removed.

    Raises:
        UsageError: the disk is full, read-only or broken, or permission is denied.
    """
    tmp = temporary_name(path)
    remove_leftovers_of(path)
    try:
        with disk_trouble_in_one_line(path):
            yield tmp
            sync(tmp)
            os.replace(tmp, path)
    finally:
        remove(tmp)  # nothing after the rename


def sync(path: str) -> None:
    """Wait until a file, or each file in a folder, is on the disk. Network disks and quotas may accept what is written
    and report only here that there is no room; and after a power failure, a new name could stand for an empty file."""
    inside = glob.glob(os.path.join(glob.escape(path), "**"), recursive=True) if os.path.isdir(path) else [path]
    for file in filter(os.path.isfile, inside):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def disk_trouble_in_one_line(path: str) -> Iterator[None]:
    """Turn an OSError of a full or unwritable disk into a UsageError; others pass, those of another file too."""
    try:
        yield
    except OSError as error:
        file = str(error.filename2 or error.filename or path)  # of a copy, the second is what is written
        if str(error.filename).startswith(temporary_name(path)):
            error.filename = path  # for a message: the temporary name is gone by then
        if error.errno not in DISK_TROUBLE or not file.startswith(path):
            raise
        final = path if file.startswith(temporary_name(path)) else file
        raise UsageError(f"{final}: {describe_disk_trouble(error)}") from error


def describe_disk_trouble(error: OSError) -> str:
    """What happened and what helps, for an error whose number is in DISK_TROUBLE."""
    assert error.errno is not None
    return f"cannot be written ({os.strerror(error.errno)}), {DISK_TROUBLE[error.errno]}"


def temporary_name(path: str) -> str:
    """What `path` is called while this process writes it."""
    return f"{path}.{MACHINE}.{os.getpid()}.partial"


def remove_leftovers_of(path: str) -> None:
    """Remove what processes of this machine that have ended were writing for `path`."""
    for leftover in glob.glob(f"{glob.escape(path)}.{glob.escape(MACHINE)}.*.partial"):
        if not os.path.exists(f"/proc/{leftover.split('.')[-2]}"):
            remove(leftover)


def make_folder(path: str, flag: str) -> None:
    """Create a folder, and those above it, unless it exists. flag: the command-line flag that names it, for messages.

    Raises:
        UsageError: it cannot be created: something else is there, the disk is full or read-only, ….
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag}: {path} ({error.strerror}), expected a folder or a name for a new one") from error


def remove(path: str) -> None:
    """Remove a file, a link or a folder with its content; a missing path is no error."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    for path in glob.glob(os.path.join(glob.escape(folder), "*.partial")):
        remove(path)


def write_bytes(path: str, content: bytes) -> None:
    """Not atomic: for names that are temporary themselves."""
    with open(path, "wb") as file:
        file.write(content)


def write_text(path: str, text: str) -> None:
    """Atomic, in UTF-8."""
    with atomic_path(path) as tmp:
        write_bytes(tmp, text.encode())


def write_json(path: str, content: Any) -> None:
    """Atomic, indented."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text.encode(errors="backslashreplace").decode())  # names of files may hold what UTF-8 lacks


def read_bytes(path: str) -> bytes:
    """The content of a file. An OSError names it."""
    with naming(path), open(path, "rb") as file:
        return file.read()


def read_json(path: str) -> Dict[str, Any]:
    """The content of a JSON file that this package has written, an object.

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}), expected JSON as it was written") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged ({error}), expected JSON as it was written") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged (a {type(content).__name__}), expected JSON as it was written")
    return content
