"""The checkpoint that fairseq is going to load, looked at in time.

Where --restore-file does not exist, fairseq starts from scratch without a word; where it cannot be read, a page of
traceback follows; and it loads another vocabulary of equal size.
"""

import logging
import os

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.vocabulary import check_vocabulary
from ..config import flag_of, names_with, recorded_corruption
from ..system.errors import UsageError

logger = logging.getLogger(__name__)


def read_restore_file(task):
    """(flag, path, {name: shape}) of the checkpoint, or None where training starts from scratch.

    Raises:
        UsageError: see `read_checkpoint` and `check_vocabulary`.
    """
    cfg = task.cfg
    last = os.path.join(cfg.save_dir, "checkpoint_last.pt")
    if cfg.restore_file != "checkpoint_last.pt":
        flag, path = "--restore-file", cfg.restore_file
    elif os.path.exists(last):
        flag, path = "--save-dir", last
    else:
        flag, path = "--finetune-from-model", cfg.finetune_from_model
    if not path:
        return None
    state = read_checkpoint(path, flag)
    check_vocabulary(state, path, flag, task)
    if flag == "--save-dir":
        warn_of_other_flags(state, path, task.cfg)
    return flag, path, {name: tuple(tensor.shape) for name, tensor in state["model"].items()}


def warn_of_other_flags(state, path, cfg):
    """A run that is continued under another masking policy is neither the one nor the other."""
    before = policy((state.get("cfg") or {}).get("task") or {})
    now = {name: getattr(cfg, name) for name in (*names_with("policy"), "arch") if hasattr(cfg, name)}
    for name, value in policy(now).items():
        if name in before and before[name] != value:
            logger.warning(f"--save-dir: {path} was trained with {flag_of(name)} {before[name]} and resumes with "
                           f"{value}; for a new run give a new --save-dir")


def policy(task):
    """{flag: value} of a task's settings, and of what it left to its arch."""
    chosen = {name: task[name] for name in names_with("policy") if name in task}
    return {**chosen, **recorded_corruption(task)._asdict()}


def check_shapes(restored, model):
    """Refuse a checkpoint of another model than the flags describe."""
    flag, path, theirs = restored
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: shape for name, shape in theirs.items() if not name.startswith("classification_heads.")}
    for name in (*ours, *theirs):
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"{flag}: {path} is of another model: {name} is {theirs.get(name, 'missing')}, expected "
                f"{ours.get(name, 'none')}; give the --arch and the flags of the model that it was trained with"
            )
