"""A user's mistake ends in one line: which flag or file, what was found, what was expected."""

import sys

try:
    from hydra.errors import CompactHydraException
except ImportError:  # the doctor has to run where nothing is installed

    class CompactHydraException(Exception):
        pass


class UsageError(CompactHydraException, ValueError):
    """Something the user can put right. Shown as one line, without a traceback, exit status 1.

    fairseq-hydra-train prints the errors of hydra's own kind without a traceback, and no others.
    """


def require(flag, found, fine, expected):
    """Raise the UsageError of a flag whose value is not fine."""
    if not fine:
        raise UsageError(f"{flag}: {found} found, expected {expected}")


def show_usage_errors_as_one_line():
    """Make a `UsageError` that nobody catches print its message alone; an interrupt is
    named; every other exception is shown as before.

    fairseq's command lines have no place of their own for this: an error in a task's constructor would end in twenty
    lines of traceback with the sentence that matters at the bottom.
    """
    show_other = sys.excepthook

    def show(kind, error, traceback):
        if issubclass(kind, UsageError):
            print(f"error: {error}", file=sys.stderr)
        elif kind is KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        else:
            show_other(kind, error, traceback)

    sys.excepthook = show
