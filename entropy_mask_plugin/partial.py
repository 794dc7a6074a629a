"""Files and folders that appear under their final name only when they are complete."""

import contextlib
import errno
import glob
import json
import os
import shutil

from .errors import UsageError

DISK_TROUBLE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS)


@contextlib.contextmanager
def completed(path):
    """Yield a name beside `path` to be filled. It becomes `path` when the block ends well, else it is removed.

    The name holds the process id, so that a child of a killed run, still writing, cannot touch a later run's files.
    """
    beside = f"{path}.{os.getpid()}.partial"
    try:
        with disk_trouble_in_one_line(path):
            yield beside
            os.replace(beside, path)
    finally:
        remove(beside)  # nothing after the rename


@contextlib.contextmanager
def disk_trouble_in_one_line(path):
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        raise UsageError(f"{error.filename or path}: cannot be written ({os.strerror(error.errno)})") from error


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def remove_leftovers(folder):
    for path in glob.glob(os.path.join(glob.escape(folder), "*.partial")):
        remove(path)


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def write_json(path, content):
    with completed(path) as beside:
        write(beside, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
