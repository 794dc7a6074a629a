"""What the masks of a recording belong to: the same sample id is the same block where the facts are the same.

facts.json of a recording:

    version            of the format
    run                the --save-dir in which it was recorded
    number of shards   epochs take turns
    shards             {number of the shard, from 0: its facts}, of those that were read
"""

import os
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

from fairseq import utils

from ..scoring.cache import fingerprint
from ..system.atomic_files import read_json, write_json
from ..system.errors import UsageError, require

VERSION = 1
FLAGS = {  # fact: where it comes from; in an order in which each fact explains those below
    "number of shards": "data",
    "dictionary": "dict.txt",
    "tokens per sample": "--tokens-per-sample",
    "sample break mode": "--sample-break-mode",
    "shorten method": "--shorten-method",
    "seed of the crops": "--seed, for --shorten-method random_crop",
    "data": "data",
    "sizes of the blocks": "data",
}
DIGESTS = {  # facts whose value tells a reader nothing, and what to say instead
    "dictionary": "another dictionary (dict.txt)", "data": "other data", "sizes of the blocks": "other blocks",
}


class Facts(NamedTuple):
    """What the masks of one shard belong to. shard: its number, from 0; shards: how many there are; values: {fact:
    JSON value}."""

    shard: int
    shards: int
    values: Mapping[str, Any]


def facts_of_masks(cfg: Any, dictionary: Any, split: str, epoch: int, sizes: Sequence[int]) -> Facts:
    """The facts of the shard that is read in an epoch; arguments as for `fingerprint.facts_of_data`."""
    facts = fingerprint.facts_of_data(cfg, dictionary, split, epoch, sizes)
    values = {name: facts[name] for name in FLAGS if name in facts}
    if cfg.shorten_method == "random_crop":
        values["seed of the crops"] = cfg.seed
    shards = len(utils.split_paths(cfg.data))
    return Facts((epoch - 1) % shards, shards, values)


def path_of(folder: str) -> str:
    """The facts of a recording."""
    return os.path.join(folder, "facts.json")


def read_facts(folder: str, flag: str) -> Dict[str, Any]:
    """The content of a recording's facts.json.

    Args:
        folder: the recording.
        flag: which names it.
    Raises:
        UsageError: it is no recording, or one of another version.
    """
    if not os.path.exists(path_of(folder)):
        raise UsageError(f"{flag}: no facts.json in {folder}, expected a folder written with --record-masks")
    content = read_json(path_of(folder))
    version = content.get("version")
    require(flag, f"{folder}, a recording of version {version!r:.60},", version == VERSION, f"version {VERSION}")
    shards = content.get("shards")
    fine = (isinstance(content.get("run"), str) and isinstance(content.get("number of shards"), int)
            and isinstance(shards, dict) and all(isinstance(facts, dict) for facts in shards.values()))
    require(flag, f"{path_of(folder)}, which is damaged,", fine, "it as --record-masks wrote it")
    return content


def write_facts(folder: str, run: str, facts: Facts) -> None:
    """Add the facts of a shard to a recording."""
    shards = read_facts(folder, "--record-masks")["shards"] if os.path.exists(path_of(folder)) else {}
    content = {"version": VERSION, "run": run, "number of shards": facts.shards,
               "shards": {**shards, str(facts.shard): dict(facts.values)}}
    write_json(path_of(folder), content)


def check_facts(content: Mapping[str, Any], facts: Facts, folder: str, flag: str) -> None:
    """Refuse a recording of other data or blocks. content: of its facts.json.

    Raises:
        UsageError: names the first difference.
    """
    shard = content["shards"].get(str(facts.shard), facts.values)  # one that was not read has no masks either
    recorded = {**shard, "number of shards": content["number of shards"]}
    own = {**facts.values, "number of shards": facts.shards}
    name = first_difference(recorded, own)
    if name in DIGESTS:
        raise UsageError(f"{flag}: {folder} was recorded with {DIGESTS[name]}, expected the same as in this run")
    if name is not None:
        raise UsageError(f"{flag}: {folder} was recorded with {name} {recorded.get(name)}, expected {own.get(name)} "
                         f"({FLAGS[name]}), as in this run")


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> Optional[str]:
    """The first fact that differs; None = all are the same."""
    return next((name for name in FLAGS if one.get(name) != other.get(name)), None)
