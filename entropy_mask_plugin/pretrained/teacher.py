"""A frozen reference model from a fairseq checkpoint or a Hugging Face folder.

It belongs to the task, which is no nn.Module, so nothing of it enters a checkpoint, an optimizer or a DDP wrapper.
"""

import logging
import os

import torch
from fairseq import checkpoint_utils
from fairseq.models.roberta import RobertaModel

from ..checkpoints.reading import NO_HEAD, file_or_huggingface_folder, read_checkpoint
from ..checkpoints.vocabulary import check_symbols, check_vocabulary
from ..system.errors import UsageError, require

logger = logging.getLogger(__name__)


def load_teacher(path, task):
    """Load, check and freeze a teacher.

    Args:
        path: checkpoint of one of our archs or of fairseq's `roberta`, or the Hugging Face folder of a BERT; trained on
            the same vocabulary.
        task: an EntropyMaskedLMTask; a checkpoint's model is built with its dictionary.
    Returns:
        a model in eval mode whose parameters need no gradient, with `lm_hidden` and `output_projection`.
    Raises:
        UsageError: see `read_checkpoint` and `read_bert`; another vocabulary; too few positions; a model without a
            (trained) masked-LM head.
    """
    path = file_or_huggingface_folder(path, "--teacher")
    model = from_huggingface(path, task) if os.path.isdir(path) else from_checkpoint(path, task)
    check_positions(path, model.max_positions(), task)
    logger.info(f"teacher: {path}, {sum(p.numel() for p in model.parameters()):,} parameters, frozen")
    return model.requires_grad_(False).eval()


def from_huggingface(folder, task):
    from ..huggingface.importing import read_bert  # its tokenizers have no place in every other training

    bert = read_bert(folder, "--teacher")
    refuse_headless(bert.has_head, folder)
    check_symbols(bert.vocabulary.symbols(), folder, "--teacher", task)
    return bert.model()


def from_checkpoint(path, task):
    state = read_checkpoint(path, "--teacher")
    refuse_headless(NO_HEAD not in (state.get("extra_state") or {}), path)
    check_vocabulary(state, path, "--teacher", task)
    model = (state.get("cfg") or {}).get("model")
    if isinstance(model, dict) and "max_positions" in model:  # before it is built for the task
        check_positions(path, model["max_positions"], task)
    try:
        (model,), _ = checkpoint_utils.load_model_ensemble([path], task=task)
    except (RuntimeError, AssertionError, AttributeError, KeyError, ValueError) as error:
        raise UsageError(f"--teacher: {path} does not load: {' '.join(str(error).split())[:400]}") from error
    return with_separate_projection(path, model)


def check_positions(path, positions, task):
    require("--teacher", f"{path} with {positions} positions", positions >= task.max_positions(),
            f"at least --tokens-per-sample ({task.max_positions()})")


def refuse_headless(has_head, path):
    if not has_head:
        raise UsageError(f"--teacher: {path} has no trained masked-LM head, expected one: without it there are no "
                         "predictions whose entropy could be taken")


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

    def forward(self, src_tokens, masked_tokens=None, **unused):
        """masked_tokens: the `Positions` whose logits are wanted; None = all."""
        return self.roberta(src_tokens, masked_tokens=masked_tokens and masked_tokens.mask)

    def lm_hidden(self, src_tokens, has_padding=None):
        features, _ = self.roberta(src_tokens, features_only=True)
        head = self.roberta.encoder.lm_head
        return head.layer_norm(head.activation_fn(head.dense(features)))

    def output_projection(self):
        head = self.roberta.encoder.lm_head
        return head.weight, head.bias

    def settings(self):
        return vars(self.roberta.args)

    def max_positions(self):
        return self.roberta.max_positions()
