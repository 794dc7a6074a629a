"""A frozen reference model from a fairseq checkpoint or a Hugging Face folder.

The task holds it. As the task is not an nn.Module, the teacher enters no checkpoint, optimizer or DDP wrapper.
"""

import logging
import os
from typing import Any, Dict, Optional, Tuple, Union

from fairseq import checkpoint_utils
from fairseq.models.roberta import RobertaModel
from torch import Tensor, nn

from ..checkpoints.reading import NO_HEAD, file_or_huggingface_folder, read_checkpoint
from ..checkpoints.structure import UNFIT
from ..checkpoints.vocabulary import check_symbols, check_vocabulary
from ..models.architecture import check_model
from ..models.bert import BertModel
from ..models.positions import SelectedPositions
from ..system.errors import UsageError, require
from ..system.finite import refuse_not_finite

logger = logging.getLogger(__name__)


def load_teacher(path: str, task: Any) -> "Teacher":
    """Load, check and freeze a teacher.

    Args:
        path: checkpoint of one of our archs or of fairseq's `roberta`, or the Hugging Face folder of a BERT; trained
            with the same vocabulary.
        task: an EntropyMaskedLMTask; a checkpoint's model is built with its dictionary.
    Returns:
        a model in eval mode whose parameters require no gradient, with `lm_hidden` and `output_projection`.
    Raises:
        UsageError: see `read_checkpoint` and `read_bert`; another vocabulary; too few positions; no (trained) masked-LM
            head; weights that are nan, infinite, or zero.
    """
    path = file_or_huggingface_folder(path, "--teacher")
    model = huggingface_teacher(path, task) if os.path.isdir(path) else checkpoint_teacher(path, task)
    check_positions(path, model.max_positions(), task)
    refuse_not_finite(model.state_dict(), path, "--teacher")
    require("--teacher", f"{path} with an output projection of zeros", model.output_projection()[0].any(),
            "a trained model: with these weights, each prediction is the same")
    logger.info(f"teacher: {path}, {sum(p.numel() for p in model.parameters()):,} parameters, frozen")
    return model.requires_grad_(False).eval()


def huggingface_teacher(folder: str, task: Any) -> BertModel:
    """The BERT of a Hugging Face folder; raises as `load_teacher`."""
    from ..huggingface.importing import read_bert  # here, so that other trainings need not import tokenizers

    bert = read_bert(folder, "--teacher")
    refuse_headless(bert.has_head, folder)
    check_symbols(bert.vocabulary.symbols(), folder, "--teacher", task)
    return bert.model()


def checkpoint_teacher(path: str, task: Any) -> "Teacher":
    """The model of a fairseq checkpoint; raises as `load_teacher`."""
    state = read_checkpoint(path, "--teacher")
    refuse_headless(NO_HEAD not in (state.get("extra_state") or {}), path)
    check_vocabulary(state, path, "--teacher", task)
    model = (state.get("cfg") or {}).get("model")
    if isinstance(model, dict) and "max_positions" in model:  # checked before the model is built with the task's
        check_positions(path, model["max_positions"], task)
    return load_masked_lm(path, "--teacher", task)


def load_masked_lm(path: str, flag: str, task: Any) -> "Teacher":
    """The model of a fairseq checkpoint that `read_checkpoint` accepts.

    Args:
        path: of the checkpoint.
        flag: the command-line flag that names it, for messages.
        task: a fairseq task with the dictionary of the checkpoint.
    Raises:
        UsageError: the weights do not fit the model; see `check_model`.
    """
    check_model(read_checkpoint(path, flag), path, flag)
    try:
        (model,), _ = checkpoint_utils.load_model_ensemble([path], task=task)
    except UNFIT as error:
        raise UsageError(f"{flag}: {path} cannot be loaded: {' '.join(str(error).split())[:400]}") from error
    return with_separate_projection(path, model, flag)


def check_positions(path: str, positions: int, task: Any) -> None:
    """Raise a UsageError where the task's sequences are longer than the teacher's positions."""
    require("--teacher", f"{path} with {positions} positions", positions >= task.max_positions(),
            f"at least --tokens-per-sample ({task.max_positions()})")


def refuse_headless(has_head: bool, path: str, flag: str = "--teacher", use: str = "entropies") -> None:
    """Raise a UsageError unless the model can predict tokens. use: what is computed from its predictions."""
    if not has_head:
        raise UsageError(f"{flag}: {path} has no trained masked-LM head, expected one: {use} are computed from its "
                         "predictions")


def with_separate_projection(path: str, model: Any, flag: str = "--teacher") -> "Teacher":
    """The model with `lm_hidden` and `output_projection`, wrapped if it is fairseq's RoBERTa."""
    if hasattr(model, "lm_hidden"):
        return model
    if isinstance(model, RobertaModel):
        return RobertaReference(model)
    raise UsageError(
        f"{flag}: {path} is a {type(model).__name__}, expected one of this plug-in's archs or fairseq's roberta"
    )


class RobertaReference(nn.Module):
    """fairseq's RoBERTa with the interface of `BertModel`: body and output projection apart."""

    def __init__(self, roberta: RobertaModel):
        super().__init__()
        self.roberta = roberta

    def forward(self, src_tokens: Tensor, masked_tokens: Optional[SelectedPositions] = None,
                **unused: Any) -> Tuple[Tensor, Any]:
        """B x T int64 -> logits, K x V at the masked tokens or B x T x V, and what else RoBERTa returns."""
        return self.roberta(src_tokens, masked_tokens=masked_tokens and masked_tokens.mask)

    def lm_hidden(self, src_tokens: Tensor, has_padding: Optional[bool] = None) -> Tensor:
        """B x T int64 -> B x T x C, the input of the output projection."""
        features, _ = self.roberta(src_tokens, features_only=True)
        head = self.roberta.encoder.lm_head
        return head.layer_norm(head.activation_fn(head.dense(features)))

    def output_projection(self) -> Tuple[Tensor, Tensor]:
        """weight V x C, bias V."""
        head = self.roberta.encoder.lm_head
        return head.weight, head.bias

    def settings(self) -> Dict[str, Any]:
        """{flag of its arch: value}."""
        return dict(vars(self.roberta.args))

    def max_positions(self) -> int:
        """The longest sequence, in tokens."""
        return self.roberta.max_positions()


Teacher = Union[BertModel, RobertaReference]
