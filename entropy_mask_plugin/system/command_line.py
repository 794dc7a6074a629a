"""argparse's complaints in one line, as other mistakes: the flag, what was found, what was expected."""

import contextlib
import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, List

KINDS = {"int": "a whole number", "float": "a number", "<lambda>": "a number, or several separated by commas"}
# ^ a lambda is fairseq's type for lists
NO_ROOM = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # of the standard output
MOST_SHOWN = 20  # names in a message


@contextlib.contextmanager
def writing_to_standard_output() -> Iterator[None]:
    """End quietly, with status 1, where the reader of the standard output has gone (`… | head`), and in one line where
    its disk is full."""
    escape_missing_letters()
    try:
        try:
            yield
        finally:  # --help ends in SystemExit
            if sys.stdout is not None:  # closed, as by >&-
                sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in NO_ROOM:  # errors of files name them
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at the end
        if error.errno != errno.EPIPE:
            print(f"error: standard output: {error.strerror}, expected room for what is printed", file=sys.stderr)
        sys.exit(1)


def escape_missing_letters() -> None:
    """Write a letter that the encoding of the standard output lacks, as of a path, as an escape: Python does so for
    standard error alone."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def report_mistakes_in_one_line(parser: Any) -> None:
    """Let an `argparse.ArgumentParser` end with one line and status 2. Its own message comes after the usage, which for
    fairseq-train has 300 lines."""
    parser.error = lambda message: parser.exit(
        2, f"error: {one_line(message)}{nearest_flags(message, list(parser._option_string_actions))}\n")


def refuse_empty_values(parser: Any, values: Any) -> None:
    """Refuse an empty text that was given for a flag: it stands for a shell variable that is not set.

    Args:
        parser: an `argparse.ArgumentParser`.
        values: the Namespace that it has returned.
    """
    for action in parser._actions:  # there is no public list
        value = getattr(values, action.dest, None)
        if value != action.default and "" in (value if isinstance(value, list) else [value]):
            name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
            parser.error(f"{name}: an empty text found, expected a value")


def one_line(message: str) -> str:
    """argparse's message in our words: `argument --limit: invalid int value: 'x'` becomes `--limit: x found, expected a
    whole number`."""
    flag, _, reason = " ".join(message.split()).removeprefix("argument ").partition(": ")
    kind = re.fullmatch(r"invalid (\S+) value: (.*)", reason)
    if kind and kind[1] in KINDS:
        return f"{flag}: {unquoted(kind[2])} found, expected {KINDS[kind[1]]}"
    choice = re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", reason)
    if choice:
        return f"{flag}: {unquoted(choice[1])} found, expected {one_of(unquoted(choice[1]), choice[2])}"
    return f"{flag}: {reason}" if reason else flag


def nearest_flags(message: str, flags: List[str]) -> str:
    """For flags that the parser does not have, those that may be meant."""
    if not message.startswith("unrecognized arguments: "):
        return ""
    unknown = [word.partition("=")[0] for word in message.split()[2:] if word.startswith("--")]
    near = [match for flag in unknown for match in difflib.get_close_matches(flag, flags, n=1, cutoff=0.8)]
    return f" (did you mean {', '.join(near)}?)" if near else ""


def unquoted(text: str) -> str:
    """Without the quotes of repr."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def one_of(given: str, choices: str) -> str:
    """What was expected. choices: argparse's list; of a long one, fairseq's archs, the nearest names are shown."""
    names = [unquoted(name) for name in choices.split(", ")]
    if len(names) <= MOST_SHOWN:
        return "one of " + ", ".join(names)
    near = ", ".join(difflib.get_close_matches(given, names)) or ", ".join(names[:MOST_SHOWN])
    return f"one of {len(names)} names, such as {near}"
