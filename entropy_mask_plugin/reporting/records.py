"""Records of runs (JSON) as this version writes them, and as versions before it did."""

import re
from types import MappingProxyType
from typing import Any, Mapping, Tuple

from ..system.atomic_files import read_json
from ..system.errors import UsageError, require

OLD_KEYS = {  # phrases of older versions -> keys
    # of a fine-tuning: settings.json, result.json, score.json, made_for.json
    "content of the checkpoint": "checkpoint_digest", "freeze encoder": "freeze_encoder", "more flags": "extra_args",
    "training examples": "n_train_examples", "examples": "n_examples", "shortened": "n_truncated",
    "malformed rows left out": "n_malformed", "made for": "made_for", "dev": "dev_score_pct", "loss": "loss_bits",
    # of a study: study.json, finished.json, record.json
    "row": "condition", "fine-tuning": "fine_tuning", "seconds of the last call": "last_call_seconds",
    "peak memory": "peak_memory_bytes", "peak GPU memory": "peak_gpu_memory_bytes",
    "unigram entropy": "unigram_entropy_bits", "own loss": "train_loss_bits", "entropy": "entropy_nats",
    "entropy of the masks": "masked_entropy_nats", "never begun": "events_not_reached", "what": "event",
}
OLD_CORPUS = re.compile(r"corpus (\d+) (\S+)")  # of the digests in study.json: "corpus 1 train.*"


NUMBER, TEXT, OBJECT, LIST = (int, float), (str,), (dict,), (list,)  # types of the values of a record
NONE = (type(None),)


def read_record(path: str, required: Mapping[str, Tuple[type, ...]] = MappingProxyType({})) -> Any:
    """A JSON file with the keys of this version.

    Args:
        path: of the file.
        required: keys that it must have, and the types of their values.
    Raises:
        UsageError: damaged, or of a kind or version that lacks a key, or has another value there.
    """
    record = with_new_keys(read_json(path))
    missing = [key for key in required if key not in record]
    if missing:
        raise UsageError(f"{path}: a record with {', '.join(record) or 'no keys'} found, expected "
                         f"{', '.join(missing)} in it, as this version writes them")
    for key, types in required.items():
        require(path, f"{key} {record[key]!r:.60}", type(record[key]) in types, "the value that this version writes")
    return record


def with_new_keys(value: Any) -> Any:
    """The same, the keys of older versions renamed at every level."""
    if isinstance(value, dict):
        return {new_key(key): with_new_keys(each) for key, each in value.items()}
    return [with_new_keys(each) for each in value] if isinstance(value, list) else value


def new_key(key: str) -> str:
    return OLD_KEYS.get(key) or OLD_CORPUS.sub(r"corpus\1/\2", key)
