"""Minimal pairs in JSON lines, as BLiMP has them (Warstadt et al. 2020): in each line an object with

    sentence_good, sentence_bad      the acceptable and the unacceptable sentence
    UID                              its paradigm; without it, the name of the file
    field, linguistics_term          groups of paradigms, where they are known
"""

import glob
import json
import os
import stat
from collections import Counter
from typing import Any, List, NamedTuple, Optional

from ..system.errors import UsageError, require

FLAG = "--pairs"
SENTENCES = ("sentence_good", "sentence_bad")


class Pair(NamedTuple):
    """origin: file and line, for messages."""

    good: str
    bad: str
    paradigm: str
    field: Optional[str]
    term: Optional[str]
    origin: str


def read_pairs(path: str, limit: Optional[int] = None, flag: str = FLAG) -> List[Pair]:
    """The pairs of a file, or of all *.jsonl files of a folder in the order of their names.

    Args:
        path: of the file or folder.
        limit: the first pairs of each paradigm only; None = all.
        flag: which names the path, for messages.
    Raises:
        UsageError: no such file, none in the folder, or a line that is no pair (names file and line).
    """
    require("--limit", limit, limit is None or limit >= 1, "1 or more")
    pairs, counts = [], Counter()
    for file in files_of(path, flag):
        for pair in read_file(file, flag):
            counts[pair.paradigm] += 1
            if limit is None or counts[pair.paradigm] <= limit:
                pairs.append(pair)
    if not pairs:
        raise UsageError(f"{flag}: {path} holds no pairs, expected a JSON object in each line")
    return pairs


def files_of(path: str, flag: str) -> List[str]:
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise UsageError(f"{flag}: {path} does not exist, expected a file of JSON lines, or a folder of such files")
        return [path]
    files = sorted(glob.glob(os.path.join(glob.escape(path), "*.jsonl")))
    require(flag, f"{path} without *.jsonl", files, "a folder with files of JSON lines")
    return files


def refuse_device(path: str, flag: str) -> None:
    """A pipe, as <(zcat FILE), is fine; /dev/zero is one line without an end."""
    is_device = os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode)
    require(flag, f"{path}, a device,", not is_device, "a file")


def read_file(file: str, flag: str) -> List[Pair]:
    refuse_device(file, flag)
    try:
        with open(file, encoding="utf-8-sig") as lines:
            return [pair_of(line, file, number, flag) for number, line in enumerate(lines, 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}: {file} is not UTF-8 ({error.reason}), expected UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"{flag}: {file}: {error.strerror}, expected a file of JSON lines") from error


def pair_of(line: str, file: str, number: int, flag: str) -> Pair:
    origin = f"{file}, line {number}"
    try:
        content = json.loads(line)
        if "\\u" in line:
            json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{flag}: {origin}: not JSON ({error}), expected an object") from error
    if not isinstance(content, dict):
        raise UsageError(f"{flag}: {origin}: a {type(content).__name__} found, expected an object with "
                         f"{' and '.join(SENTENCES)}")
    good, bad = (text_of(content, name, origin, flag) for name in SENTENCES)
    name = os.path.splitext(os.path.basename(file))[0]
    of_group = [optional_text(content, key) for key in ("UID", "field", "linguistics_term")]
    return Pair(good, bad, of_group[0] or name, of_group[1], of_group[2], origin)


def text_of(content: Any, name: str, origin: str, flag: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value.strip():
        found = "no" if name not in content else "an empty" if isinstance(value, str) else f"{value!r} as"
        raise UsageError(f"{flag}: {origin}: {found} {name} found, expected a sentence")
    return value


def optional_text(content: Any, name: str) -> Optional[str]:
    value = content.get(name)
    return None if value is None or value == "" else str(value)
