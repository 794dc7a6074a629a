"""Whose prediction scores the tokens?

    @SOURCES.add("name", reads="teacher")
    class Name(Source):
        def __call__(self, sample, model, when): ...

reads: the models whose forward passes on the clean tokens it costs in each update: "teacher", "self" (the model being
trained), "ema" (fairseq's average of it), a tuple of several, or None. For the FLOP count, and --teacher is asked for.

Settings of a source are Options of its decorator; it finds their values in task.cfg. It is created for the first batch
that it scores: what it computes once, it may keep on `task.scoring_device()`.
"""

from typing import Any, Mapping, Optional, Tuple

import torch
from torch import Tensor

from ...masking.registry import Registry
from ...masking.scores import Scores
from ...masking.when import When
from ...system.errors import require

SOURCES = Registry("--mask-source", reads=None)


def models_read(source: Optional[str]) -> Tuple[str, ...]:
    """The models that a source reads, see above; none for a source that is not registered here."""
    reads = SOURCES[source].traits["reads"] if source is not None and source in SOURCES else None
    return (reads,) if isinstance(reads, str) else tuple(reads or ())


def refuse_nan(scores: Tensor, maskable: Tensor, source: str) -> None:
    """Check what a source has scored, B x T fp32, at the maskable positions, B x T bool: masks made of nan would look
    like any others.

    Raises:
        UsageError: a score is nan.
    """
    model = " and ".join(f"--{model}" if model == "teacher" else model for model in models_read(source))
    require("--mask-source", f"{source} with scores that are nan", not scores[maskable].isnan().any(),
            f"numbers{model and f': the weights of {model} may be too large'}")


class Source:
    """Scores the tokens of a batch.

    Args:
        task: the `EntropyMaskedLMTask`, for its cfg, dictionary, datasets, scorer, learner, `teacher_on(device)` and
            `scoring_device()`, where batches are.
    """

    def __init__(self, task: Any):
        self.task = task

    def __call__(self, sample: Mapping[str, Any], model: torch.nn.Module, when: When) -> Scores:
        """Score a batch.

        Args:
            sample: clean, as `training.blocks` collates it, some or all sentences of a batch;
                sample["net_input"]["src_tokens"] is B x T int64.
            model: the one being trained, in training mode, before the update, or its average for a source that reads
                "ema"; left in training mode.
            when: the epoch and update of this batch.
        """
        raise NotImplementedError
