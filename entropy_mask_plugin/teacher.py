"""A frozen reference model from a fairseq checkpoint.

It belongs to the task, which is no nn.Module, so nothing of it enters a checkpoint, an optimizer or a DDP wrapper.
"""

import logging
import os
from itertools import zip_longest

import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import Dictionary
from fairseq.models.roberta import RobertaModel

from .checkpoints import read_checkpoint
from .errors import UsageError

logger = logging.getLogger(__name__)


def load_teacher(path, task):
    """Load, check and freeze a teacher.

    Args:
        path: checkpoint of one of our archs or of fairseq's `roberta`, trained on the same vocabulary.
        task: an EntropyMaskedLMTask; the teacher is built with its dictionary.
    Returns:
        a model in eval mode whose parameters need no gradient, with `lm_hidden` and `output_projection`.
    Raises:
        UsageError: see `read_checkpoint`; another vocabulary; too few positions; a model without a masked-LM head.
    """
    state = read_checkpoint(path, "--teacher")
    check_vocabulary(path, state, task)
    try:
        (model,), _ = checkpoint_utils.load_model_ensemble([path], task=task)
    except (RuntimeError, AssertionError, AttributeError, KeyError, ValueError) as error:
        raise UsageError(f"--teacher: {path} does not load: {' '.join(str(error).split())[:200]}") from error
    model = with_separate_projection(path, model)
    if model.max_positions() < task.max_positions():
        raise UsageError(
            f"--teacher: {path} has {model.max_positions()} positions, expected at least "
            f"--tokens-per-sample ({task.max_positions()})"
        )
    logger.info(f"teacher: {path}, {sum(p.numel() for p in model.parameters()):,} parameters, frozen")
    return model.requires_grad_(False).eval()


def check_vocabulary(path, state, task):
    """Refuse a teacher whose ids mean other symbols than the data's."""
    theirs, ours = symbols_of_checkpoint(path, state, task), task.source_dictionary.symbols
    if theirs is None:
        logger.warning(f"--teacher: {path} does not say its vocabulary: only its size can be compared with the data's")
    elif theirs != ours:
        raise UsageError(f"--teacher: {path} has another vocabulary than the data: {first_difference(theirs, ours)}")


def first_difference(theirs, ours):
    """One clause with both sizes and the first id at which two lists of symbols differ."""
    at, their, our = next((i, a, b) for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
    return f"{len(theirs)} symbols, expected {len(ours)}; at id {at} it has {their!r}, expected {our!r}"


def symbols_of_checkpoint(path, state, task):
    """The symbols that a checkpoint was trained with: its own record (our task keeps one), or the dict.txt beside it
    or in the data-bin it was trained on. None where there is none of these."""
    record = (state.get("extra_state") or {}).get(type(task).__name__)
    if record:
        return record["symbols"]
    for folder in (os.path.dirname(path), data_bin(state)):
        file = os.path.join(folder, "dict.txt")
        if os.path.exists(file):
            return with_mask(Dictionary.load(file)).symbols
    return None


def data_bin(state):
    """The first folder of the data that a checkpoint was trained on."""
    data = state["cfg"]["task"].get("data") if state.get("cfg") else getattr(state["args"], "data", None)
    return utils.split_paths(data)[0] if data else ""


def with_mask(dictionary):
    dictionary.add_symbol("<mask>")
    return dictionary


def with_separate_projection(path, model):
    """The model, with `lm_hidden` and `output_projection`."""
    if hasattr(model, "lm_hidden"):
        return model
    if isinstance(model, RobertaModel):
        return RobertaReference(model)
    raise UsageError(
        f"--teacher: {path} is a {type(model).__name__}, expected one of this plug-in's archs or fairseq's roberta"
    )


class RobertaReference(torch.nn.Module):
    """fairseq's RoBERTa, its body and its output projection apart."""

    def __init__(self, roberta):
        super().__init__()
        self.roberta = roberta

    def forward(self, src_tokens, masked_tokens=None):
        return self.roberta(src_tokens, masked_tokens=masked_tokens)

    def lm_hidden(self, src_tokens):
        features, _ = self.roberta(src_tokens, features_only=True)
        head = self.roberta.encoder.lm_head
        return head.layer_norm(head.activation_fn(head.dense(features)))

    def output_projection(self):
        head = self.roberta.encoder.lm_head
        return head.weight, head.bias

    def max_positions(self):
        return self.roberta.max_positions()
