"""Models without a training: a task with a dictionary, and an arch from flags."""

import torch
from builders.training import TINY, parse
from fairseq import models
from fairseq.data import Dictionary


def dictionary(size):
    symbols = Dictionary()
    for i in range(size - len(symbols) - 1):
        symbols.add_symbol(f"w{i}")
    symbols.add_symbol("<mask>")
    return symbols


class AnyTask:
    """What an arch asks of a task."""

    def __init__(self, vocabulary=50, length=16):
        self.source_dictionary, self.length = dictionary(vocabulary), length

    def max_positions(self):
        return self.length


def build(*flags, task=None, model=TINY):
    """A model from flags, with new weights."""
    cfg = parse(["nowhere", "--task", "masked_lm", "--criterion", "masked_lm", *model, *flags])
    return models.build_model(cfg.model, task or AnyTask())


def lively(module):
    """With weights as large as a trained model's: all-but-zero scores would hide mistakes in a softmax."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.6
    return module
