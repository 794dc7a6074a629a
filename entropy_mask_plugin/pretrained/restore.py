"""Checks the checkpoint that fairseq is going to load, before it does.

fairseq silently starts from scratch where --restore-file does not exist, ends in a long traceback where it cannot be
read, and loads a checkpoint of another vocabulary if the sizes agree.
"""

import logging
from typing import Any, Dict, NamedTuple, Optional, Tuple

from torch import nn

from ..checkpoints.reading import checkpoint_to_resume_from, read_checkpoint
from ..checkpoints.structure import section_of
from ..checkpoints.vocabulary import check_vocabulary
from ..config import (
    flag_of,
    names_with,
    policy_of,
    recorded_corruption,
    recorded_defaults,
    recorded_guided_fraction,
    unused_options,
    uses_ema,
)
from ..system.errors import UsageError
from ..system.finite import refuse_not_finite

logger = logging.getLogger(__name__)


OF_THE_RUN = ("max_update", "max_epoch", "ema_decay")  # settings of fairseq on which some policies depend


class Restored(NamedTuple):
    """A checkpoint that fairseq is going to load."""

    flag: str  # which names it
    path: str
    shapes: Dict[str, Tuple[int, ...]]  # of its tensors


def read_restore_file(task: Any) -> Optional[Restored]:
    """The checkpoint that fairseq is going to load; None = training starts from scratch.

    Args:
        task: an EntropyMaskedLMTask, after its flags were checked.
    Raises:
        UsageError: see `read_checkpoint` and `check_vocabulary`.
    """
    resumed = checkpoint_to_resume_from(task.cfg)
    if resumed is None:
        return None
    flag, path = resumed
    state = read_checkpoint(path, flag)
    check_vocabulary(state, path, flag, task)
    refuse_not_finite(state, path, flag)  # averages, optimizer and what a score has learned, too
    if flag == "--save-dir":
        warn_of_other_flags(state, path, task.cfg)
    return Restored(flag, path, {name: tuple(tensor.shape) for name, tensor in state["model"].items()})


def warn_of_other_flags(state: dict, path: str, cfg: Any) -> None:
    """Warn of each flag of the masking policy that is not the checkpoint's: such a run mixes two policies."""
    names = {name for name in names_with("policy") if name not in unused_options(cfg)}
    names |= {"max_update", "max_epoch"} if policy_of(cfg).changes else set()  # a ramp goes over the whole run
    names |= {"ema_decay"} if uses_ema(vars(cfg)) else set()
    before = policy({**recorded_defaults(), **section_of(state, "task")})
    now = policy({name: getattr(cfg, name) for name in (*names, "arch") if hasattr(cfg, name)})
    for name, value in now.items():
        if name in before and before[name] != value:
            logger.warning(f"--save-dir: {path} was trained with {flag_of(name)} {before[name]} and resumes with "
                           f"{value}; for a new run give a new --save-dir")


def policy(task: Dict[str, Any]) -> Dict[str, Any]:
    """{flag: value} of a task's masking policy, defaults of its arch included."""
    chosen = {name: task[name] for name in (*names_with("policy"), *OF_THE_RUN) if name in task}
    return {**chosen, "guided_fraction": recorded_guided_fraction(task), **recorded_corruption(task)._asdict()}


def check_restored_shapes(restored: Restored, model: nn.Module) -> None:
    """Refuse a checkpoint of another model than the flags describe.

    Raises:
        UsageError: names the first tensor that is missing, unknown or of another shape.
    """
    flag, path, theirs = restored
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: shape for name, shape in theirs.items() if not name.startswith("classification_heads.")}
    for name in (*ours, *theirs):
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"{flag}: {path} is of another model: {name} is {theirs.get(name, 'missing')}, expected "
                f"{ours.get(name, 'none')}; give the --arch and the flags of the model that it was trained with"
            )
