"""A frozen teacher."""

from typing import Any, Mapping

import torch

from ...masking.scores import Scores
from ...masking.when import When
from .registry import SOURCES, Source


@SOURCES.add("teacher", reads="teacher")
class Teacher(Source):
    """The model of --teacher, or its scores from --entropy-cache."""

    def __call__(self, sample: Mapping[str, Any], model: torch.nn.Module, when: When) -> Scores:
        """Scores of the teacher, exact where they come from the cache; the model is not used."""
        if "entropy_bits" in sample:  # from the cache
            return Scores(sample["entropy_bits"].view(torch.float32))
        device = sample["net_input"]["src_tokens"].device
        return self.task.scorer(self.task.teacher_on(device), sample)
