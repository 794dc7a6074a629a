"""A checkpoint as its run had it before the next update: the task with its flags, the model, the model's average, and
whose scores choose the masks."""

import copy
import dataclasses
from typing import Any, NamedTuple, Optional

import torch

from ..checkpoints.reading import NO_HEAD, read_checkpoint
from ..checkpoints.structure import UNFIT, check_weights
from ..checkpoints.vocabulary import check_vocabulary
from ..config import EntropyMaskedLMConfig, policy_of, with_options
from ..fairseq_fixes.checkpoint_files import LEARNED
from ..flag_checks import check_policy
from ..masking.when import When
from ..pretrained.teacher import load_masked_lm, load_teacher, refuse_headless
from ..scoring import learners
from ..scoring.scorer import Scorer
from ..scoring.sources import SOURCES, models_read
from ..system.errors import UsageError, require
from ..system.finite import refuse_not_finite
from ..task import EntropyMaskedLMTask
from .checkpoints import FLAG, Checkpoint

# Of the training alone: scores are computed here, masks are not recorded, and nothing is compiled.
NEUTRAL = {"entropy_cache": None, "self_entropy_every": 1, "record_masks": None, "compile": False, "cpu": False}


class RestoredPolicy(NamedTuple):
    """A policy at a checkpoint.

    task: with the flags of the run, on other data; model: in eval mode; when: the time of the next update.
    source: whose scores choose the masks, a name in SOURCES; None = the masks are random.
    shown: whose scores are shown: those of the source, or of the one that the run will turn to; None = the run has no
        scores, so that the entropy of the model's own predictions is shown.
    reference: the model whose predictions are shown: the one that `shown` reads; scorer: of its scores.
    """

    task: EntropyMaskedLMTask
    model: Any
    average: Any
    when: When
    source: Optional[str]
    shown: Optional[str]
    reference: Any
    scorer: Scorer


def restore(checkpoint: Checkpoint, when: When, data: str, teacher: Optional[str] = None) -> RestoredPolicy:
    """Read a checkpoint.

    Args:
        checkpoint: see `read_checkpoints`.
        when: the time of its next update.
        data: data-bin with a validation split.
        teacher: where the teacher is now; None = where it was in the training.
    Raises:
        UsageError: the data have another vocabulary, the average or the teacher is missing, or a part of the policy is
            not registered.
    """
    task = task_of(checkpoint, data, teacher)
    state = read_checkpoint(checkpoint.path, FLAG)
    refuse_headless(NO_HEAD not in (state.get("extra_state") or {}), checkpoint.path, FLAG, "scores")
    check_vocabulary(state, checkpoint.path, FLAG, task)
    refuse_not_finite({name: state.get(name) for name in ("model", "extra_state")}, checkpoint.path, FLAG)
    device = task.scoring_device()
    model: Any = load_masked_lm(checkpoint.path, FLAG, task).float().to(device).requires_grad_(False).eval()
    task.learner = learners.new_learner(task.cfg, policy_of(task.cfg), model, len(task.dictionary))
    if task.learner is not None:
        task.load_learned_state(state["extra_state"].get(LEARNED, {}))
        task.learner.to(device)
    sources = task.sources_by_epoch
    source = sources.at(when.epoch)
    shown = source or (sources.at(sources.switch) if sources.switch else None)
    reads = models_read(shown)
    average = average_of(state, model, checkpoint.path) if "ema" in reads else None
    if "teacher" in reads:
        task.teacher = load_teacher(task.cfg.teacher, task)
    reference = task.teacher_on(device) if "teacher" in reads else average if "ema" in reads else model
    scorer = Scorer("entropy") if shown is None else task.scorer
    return RestoredPolicy(task, model, average, when, source, shown, reference, scorer)


def task_of(checkpoint: Checkpoint, data: str, teacher: Optional[str]) -> EntropyMaskedLMTask:
    """The task with the flags of the run."""
    config = with_options(EntropyMaskedLMConfig)
    values = {field.name: checkpoint.settings.get(field.name, setting(field.default, checkpoint))
              for field in dataclasses.fields(config)}
    cfg = config(**{**values, **NEUTRAL, "data": data, "teacher": teacher or checkpoint.settings.get("teacher")})
    task = EntropyMaskedLMTask.setup_task(cfg, from_checkpoint=True)
    check_policy(task.cfg, task.dictionary.symbols)
    task.load_dataset("valid")
    return task


def setting(default: Any, checkpoint: Checkpoint) -> Any:
    """The value of a field that older checkpoints lack: its default, or that of the setting which the default names."""
    if not (isinstance(default, str) and default.startswith("${")):
        return default
    section, _, name = default.strip("${}").removeprefix("oc.select:").partition(",")[0].partition(".")
    return (checkpoint.sections.get(section) or {}).get(name)


def average_of(state: Any, model: torch.nn.Module, path: str) -> torch.nn.Module:
    """The model with the weights that fairseq averaged."""
    weights = state["extra_state"].get("ema")
    require(FLAG, f"{path} without the average of its weights", weights is not None,
            "a checkpoint written with --store-ema")
    check_weights(weights, f"{path}, whose average is damaged:", FLAG)
    average = copy.deepcopy(model)
    try:
        average.load_state_dict(weights)
    except UNFIT as error:
        raise UsageError(f"{FLAG}: {path} with an average that does not fit found, expected its model's") from error
    return average.float().eval()


def source_of(policy: RestoredPolicy) -> Any:
    """Scores a batch as in the training; None where the run has no scores."""
    return None if policy.shown is None else SOURCES[policy.shown].fn(policy.task)
