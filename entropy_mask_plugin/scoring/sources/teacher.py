"""A frozen teacher."""

import torch

from ...masking.scores import Scores
from .registry import SOURCES, Source


@SOURCES.add("teacher", reads="teacher")
class Teacher(Source):
    """The model of --teacher, or what it said before, from --entropy-cache."""

    def __call__(self, sample, model, when):
        if "entropy_bits" in sample:  # from the cache
            return Scores(sample["entropy_bits"].view(torch.float32))
        clean = sample["net_input"]
        return self.task.scorer(self.task.teacher_on(clean["src_tokens"].device), clean)
