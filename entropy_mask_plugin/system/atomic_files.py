"""Files and folders that appear under their final name only when they are complete."""

import contextlib
import errno
import glob
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any, Dict

from .errors import UsageError

DISK_TROUBLE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS)


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Yield a temporary name for a file or folder; it is renamed to `path` if the block succeeds, and removed if not.

    The name contains the process id: a child of a killed run may still be writing, and must not touch a later run's
    files.

    Raises:
        UsageError: the disk is full or read-only, or permission is denied.
    """
    tmp = f"{path}.{os.getpid()}.partial"
    try:
        with disk_trouble_in_one_line(path):
            yield tmp
            os.replace(tmp, path)
    finally:
        remove(tmp)  # nothing after the rename


@contextlib.contextmanager
def disk_trouble_in_one_line(path: str) -> Iterator[None]:
    """Turn an OSError of a full or unwritable disk into a UsageError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        raise UsageError(f"{error.filename or path}: cannot be written ({os.strerror(error.errno)})") from error


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
