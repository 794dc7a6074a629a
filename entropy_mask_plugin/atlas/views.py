"""A policy at each of its checkpoints, and what it chooses there."""

import os
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from ..config import recorded_corruption, source_schedule
from ..inspection.checkpoints import Checkpoint, times_of
from ..inspection.choices import Choices, Prediction, choose, predictions
from ..inspection.names import differing_parts
from ..inspection.restoring import RestoredPolicy, restore
from ..masking.rates import rate_at
from ..masking.scores import SCORES


class View(NamedTuple):
    """A policy at a checkpoint.

    path, update, epoch: of the checkpoint, and the epoch of its next update; progress: the fraction of the run that is
    over, None = unknown.
    source: whose scores choose the masks, None = they are random; score, unit: what is shown of each token; shown:
    whose, see `RestoredPolicy`.
    mask_rate, guided_fraction: as intended by the flags; mask_rate is None with --mask-count.
    choices: on the text; predictions: on each passage.
    """

    path: str
    update: int
    epoch: int
    progress: Optional[float]
    source: Optional[str]
    shown: Optional[str]
    score: str
    unit: str
    mask_rate: Optional[float]
    guided_fraction: float
    choices: Choices
    predictions: List[Prediction]


class Shown(NamedTuple):
    """A policy with its views, by update. description: its flags, for people; is_static: its noise is the same in every
    epoch."""

    name: str
    description: str
    seed: int
    is_static: bool
    views: List[View]


class Extent(NamedTuple):
    """How much is read. ids: blocks of the statistics; passages: those of them that are shown; longest: positions that
    are shown of each; n_draws, stride: draws of the masks, see `choose`."""

    ids: Tuple[int, ...]
    passages: Tuple[int, ...]
    longest: int
    n_draws: int
    stride: int


def show(name: str, checkpoints: Sequence[Checkpoint], data: str, teacher: Optional[str], extent: Extent,
         advance: Callable[[int], Any]) -> Shown:
    """Restore each checkpoint of a policy and let it choose.

    Args:
        name: of the policy.
        checkpoints: see `read_checkpoints`.
        data: data-bin.
        teacher: see `restore`.
        extent: what is read.
        advance: see `choose`.
    Raises:
        UsageError: see `restore` and `times_of`.
    """
    settings = checkpoints[0].settings
    views = [view_of(checkpoint, restore(checkpoint, when, data, teacher), progress, extent, advance)
             for checkpoint, (when, progress) in zip(checkpoints, times_of(checkpoints))]
    return Shown(name, description(settings), settings["seed"], bool(settings["static_masks"]), views)


def view_of(checkpoint: Checkpoint, policy: RestoredPolicy, progress: Optional[float], extent: Extent,
            advance: Callable[[int], Any]) -> View:
    samples, masker = policy.task.dataset("valid").dataset, policy.task.masker
    choices = choose(policy, samples, extent.ids, extent.n_draws, extent.stride, advance)
    guided = 0.0 if policy.source is None else rate_at(masker.guided_fraction, policy.when.progress)
    rate = rate_at(masker.mask_prob, policy.when.progress) if masker.policy.mask_count is None else None
    return View(checkpoint.path, checkpoint.update, policy.when.epoch, progress, policy.source,
                policy.shown, policy.scorer.score, SCORES[policy.scorer.score].traits["unit"], rate, guided, choices,
                predictions(policy, samples, extent.passages, extent.longest))


def description(settings: Any) -> str:
    """The policy in a line, from the settings of its task."""
    parts = [f"strategy {settings['mask_strategy']}"]
    sources = source_schedule(settings)
    if sources.used():
        first, then = (sources.at(1) or "chance"), sources.then
        turn = f"{first} before epoch {sources.switch}, then {then}" if sources.switch and sources.switch > 1 else (
            then if sources.switch else first)
        parts += [f"score {settings['mask_score']}", f"source: {turn}",
                  f"guided fraction {settings['guided_fraction']} by {settings['guided_by']}"]
    rate = f"{settings['mask_count']} tokens" if settings["mask_count"] else recorded_corruption(settings).mask_prob
    return ", ".join([*parts, f"unit {settings['mask_unit']}", f"mask rate {rate}"])


def names_of_policies(one: Sequence[str], other: Sequence[str]) -> List[str]:
    """What differs in the paths of two policies, or the last part of the path of a single one. one, other: each a
    folder, or files of one folder; other may be empty."""
    names = differing_parts([paths[0] if os.path.isdir(paths[0]) else os.path.dirname(paths[0])
                             for paths in (one, other) if paths])
    return names if len(set(names)) == len(names) else ["A", "B"]
