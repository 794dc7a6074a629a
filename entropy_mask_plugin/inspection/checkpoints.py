"""The checkpoints of a run, in the order of their updates, and how much of the run each has behind it."""

import glob
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.structure import section_of
from ..config import flag_of, recorded_corruption, recorded_defaults, recorded_guided_fraction
from ..masking.rates import Ramp
from ..masking.when import When
from ..pretrained.restore import policy
from ..scoring.schedule import total_updates
from ..system.errors import UsageError, require

TASK = "entropy_masked_lm"
ENDS = ("max_update", "max_epoch")
COPIES = ("checkpoint_last.pt", "checkpoint_best.pt")
FLAG = "RUN"


class Checkpoint(NamedTuple):
    """epoch: of the next update, counted from 1; begun: updates of this epoch that are over; update: number of all
    updates that are over; settings: of its task; sections: all settings."""

    path: str
    epoch: int
    begun: int
    update: int
    settings: Dict[str, Any]
    sections: Dict[str, Any]


def read_checkpoints(paths: Sequence[str], most: int = 8, flag: str = FLAG) -> List[Checkpoint]:
    """The checkpoints of one policy, by update.

    Args:
        paths: folders of a run, or files.
        most: that many are kept, evenly spaced by number, the first and the last among them.
        flag: which names the paths, for messages.
    Raises:
        UsageError: no checkpoint in a folder, one that is no checkpoint of this task, or checkpoints of two policies.
    """
    every = [read(file, flag) for path in paths for file in files_of(path, flag)]
    check_one_policy(every, flag)
    by_update = {checkpoint.update: checkpoint for checkpoint in reversed(every)}  # the first of several at an update
    return thinned([by_update[update] for update in sorted(by_update)], most)


def files_of(path: str, flag: str) -> List[str]:
    """The file itself, or the checkpoints of a folder, those last that may be copies."""
    if not os.path.isdir(path):
        return [path]
    files = sorted(glob.glob(os.path.join(glob.escape(path), "checkpoint*.pt")))
    require(flag, f"{path} without checkpoint*.pt", files, "a --save-dir of fairseq-train, or checkpoint files")
    names = [os.path.basename(file) for file in files]
    return [*(file for file, name in zip(files, names) if name not in COPIES),
            *(os.path.join(path, name) for name in COPIES if name in names)]


def read(path: str, flag: str) -> Checkpoint:
    state = read_checkpoint(path, flag)
    sections = {section: section_of(state, section) for section in state.get("cfg") or {}}
    name = section_of(state, "task").get("_name")
    require(flag, f"{path} of --task {name}", name == TASK, f"a checkpoint of --task {TASK}")
    iterator: Any = (state.get("extra_state") or {}).get("train_iterator")
    is_of_training = iterator and iterator.get("epoch") and "iterations_in_epoch" in iterator
    require(flag, f"{path} without an epoch", is_of_training and state.get("optimizer_history"),
            "a checkpoint written by a training")
    settings = {**recorded_defaults(), **sections["task"]}
    require(flag, f"{path} with --replay-masks", not settings.get("replay_masks"),
            "the run whose masks it replayed, which chose them")
    frequency = update_frequency(sections, iterator["epoch"])
    require(flag, f"{path} with --update-freq {frequency}", frequency >= 1, "1 or more")
    update = state["optimizer_history"][-1].get("num_updates", 0)
    return Checkpoint(path, iterator["epoch"], iterator["iterations_in_epoch"] // frequency, update, settings, sections)


def update_frequency(sections: Dict[str, Any], epoch: int) -> int:
    """Batches of an update in an epoch; fairseq keeps the last of --update-freq for all later epochs."""
    frequencies = (sections.get("optimization") or {}).get("update_freq") or [1]
    return frequencies[min(epoch, len(frequencies)) - 1]


def check_one_policy(checkpoints: Sequence[Checkpoint], flag: str) -> None:
    """Raise a UsageError for checkpoints of two policies. A run that was resumed with a later end has one, unless it
    depends on how much of the run is over."""
    first = policy(checkpoints[0].settings)
    compared = first.keys() - (() if changes_over_the_run(checkpoints[0].settings) else ENDS)
    for checkpoint in checkpoints[1:]:
        other = policy(checkpoint.settings)
        differing = next((name for name in first if name in compared and first[name] != other.get(name)), None)
        if differing is not None:
            raise UsageError(f"{flag}: {checkpoint.path} was trained with {flag_of(differing)} {other.get(differing)}, "
                             f"expected {first[differing]} as {checkpoints[0].path}: one policy (--beside shows two)")


def thinned(items: Sequence[Any], most: int) -> List[Any]:
    """At most so many items, evenly spaced; the first and the last are kept, of one the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)] if most > 1 else [items[-1]]


def changes_over_the_run(settings: Dict[str, Any]) -> bool:
    """Whether the policy depends on how much of the run is over. settings: of the task."""
    rates = recorded_corruption(settings).mask_prob, recorded_guided_fraction(settings)
    return any(isinstance(rate, Ramp) for rate in rates)


def times_of(checkpoints: Sequence[Checkpoint]) -> List[Tuple[When, Optional[float]]]:
    """(the time of the next update of each, how much of the run is over; None = unknown, and 0 in the time).

    Args:
        checkpoints: of one run.
    Raises:
        UsageError: it is unknown, and the policy depends on it.
    """
    per_epoch = max(map(updates_per_epoch, checkpoints))
    limits = checkpoints[-1].sections.get("optimization") or {}
    total = total_updates(limits.get("max_update") or 0, limits.get("max_epoch") or 0, per_epoch)
    require(FLAG, f"{checkpoints[-1].path}, of epoch 1 of a run that ends by --max-epoch,",
            total or not changes_over_the_run(checkpoints[0].settings),
            "a later checkpoint of it too: the policy depends on how much of the run is over")
    fractions = [min(1.0, checkpoint.update / total) if total else None for checkpoint in checkpoints]
    return [(When(checkpoint.epoch, checkpoint.update, fraction or 0.0), fraction)
            for checkpoint, fraction in zip(checkpoints, fractions)]


def updates_per_epoch(checkpoint: Checkpoint) -> float:
    """The mean over the epochs that are over; 0 in the first one, where it is unknown."""
    if checkpoint.epoch == 1:
        return 0
    return (checkpoint.update - checkpoint.begun) / (checkpoint.epoch - 1)
