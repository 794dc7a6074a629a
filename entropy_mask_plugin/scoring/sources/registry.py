"""Whose prediction scores the tokens?

    @SOURCES.add("name", reads="teacher")
    class Name(Source):
        def __call__(self, sample, model, when): ...

reads: the model whose forward pass on the clean tokens it costs in each update, for the FLOP count: "teacher", "self"
(the model being trained), "ema" (fairseq's average of it), or None.
"""

from typing import Any, Mapping

import torch

from ...masking.registry import Registry
from ...masking.scores import Scores
from ...masking.when import When

SOURCES = Registry("--mask-source", reads=None)


class Source:
    """Scores the tokens of a batch.

    Args:
        task: the `EntropyMaskedLMTask`, for its cfg, dictionary, datasets, scorer, learner and
            `teacher_on(device)`.
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
