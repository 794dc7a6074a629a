"""Whose prediction scores the tokens?

    @SOURCES.add("name", reads="teacher")
    class Name(Source):
        def __call__(self, sample, model, when): ...

reads: whose forward pass on the clean tokens it costs in each update, for the count of FLOPs: "teacher", "self" (the
model being trained), or None.
"""

from typing import Any, Mapping

import torch

from ...masking.registry import Registry
from ...masking.scores import Scores
from ...masking.when import When

SOURCES = Registry("--mask-source", reads=None)


class Source:
    """
    task: the `EntropyMaskedLMTask`: its cfg, dictionary, datasets, scorer, and the teacher by `teacher_on(device)`.
    """

    def __init__(self, task: Any):
        self.task = task

    def __call__(self, sample: Mapping[str, Any], model: torch.nn.Module, when: When) -> Scores:
        """
        Args:
            sample: clean; sample["net_input"]["src_tokens"] is B x T int64.
            model: the one being trained, in training mode, before the update.
        """
        raise NotImplementedError
