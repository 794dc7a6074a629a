"""A user's mistake ends in one line: the flag or file, what was found, what was expected."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from .text import one_line

try:
    from hydra.errors import CompactHydraException  # pyright: ignore[reportAssignmentType]
except ImportError:  # the doctor has to run where nothing is installed

    class CompactHydraException(Exception):
        """Stands in for hydra's."""


LONGEST = 1000  # letters of a message


class UsageError(CompactHydraException, ValueError):
    """Something that the user can fix. Shown as one line, without a traceback, exit status 1.

    fairseq-hydra-train prints only subclasses of hydra's own exception without a traceback.
    """


def require(flag: str, value: Any, fine: Any, expected: str) -> None:
    """Check the value of a flag.

    Args:
        flag: its name, such as "--mask-prob".
        value: the value that was given.
        fine: whether it is allowed; any truth value.
        expected: describes the allowed values.
    Raises:
        UsageError: it is not fine.
    """
    if not fine:
        raise UsageError(f"{flag}: {value} found, expected {expected}")


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
    """Give an OSError that names no file this one: a failed read names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = file
        raise


def show_usage_errors_as_one_line() -> None:
    """Print only the message of an uncaught `UsageError`, the file and the reason of an OSError that has both (it
    vanished, the disk is broken, …), and "interrupted" for an interrupt; other exceptions are shown as before.

    fairseq's command lines offer no hook for this: an error in a task's constructor would end in twenty lines of
    traceback.
    """
    show_other = sys.excepthook

    def show(kind, error, traceback):
        if issubclass(kind, UsageError) or is_of_a_rank(error):
            print(f"error: {message_of(error)}", file=sys.stderr)
        elif issubclass(kind, OSError) and error.filename and error.strerror:
            file = error.filename2 or error.filename  # of a renamed file, its new name: the old one is temporary
            print(f"error: {file}: {error.strerror}", file=sys.stderr)
        elif kind is KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        else:
            show_other(kind, error, traceback)

    sys.excepthook = show


def is_of_a_rank(error: BaseException) -> bool:
    """Whether a UsageError has ended a rank that fairseq started: torch raises an exception of its own."""
    return type(error).__name__ == "ProcessRaisedException" and f"{UsageError.__module__}.UsageError: " in str(error)


def message_of(error: BaseException) -> str:
    """The message of a UsageError; of one that was raised in a data worker or a rank, where torch adds the traceback,
    the last line. In one line, and not too long."""
    message = str(error)
    if message.startswith("Caught UsageError in ") or is_of_a_rank(error):
        message = message.rstrip().rpartition("UsageError: ")[2]
    line = one_line(message)  # what a file holds may be part of it
    return line if len(line) <= LONGEST else line[:LONGEST] + " …"
