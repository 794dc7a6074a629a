"""The loss: (1 - w) MLM + w KD (paper, section 3.6).

Shapes: B sentences, T positions, C width, V vocabulary, K selected positions, P positions whose logits are computed.
"""

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

from .config import ROWS, flag, plain
from .masking.scores import Answers, Learner
from .models.positions import SelectedPositions
from .scoring import schedule
from .system.errors import require
from .training.cross_entropy import cross_entropy_by_row, inplace_cross_entropy, inplace_cross_entropy_by_row


@dataclass
class EntropyMaskedLMCriterionConfig(FairseqDataclass):
    """The flags of `--criterion entropy_masked_lm`."""

    kd_weight: float = flag(
        0.0, "w in (1-w) MLM + w KD, in [0, 1]; 0 = no distillation, the paper's is 0.5", study=ROWS)
    kd_temperature: float = flag(1.0, "T in T^2 KL(teacher_T || student_T), above 0")
    kd_start_epoch: int = flag(
        1, "first epoch, from 1, with distillation: 1 = the paper's complete transfer, 2 = transfer after "
        "initialization", study=ROWS)
    kd_positions: str = flag("masked", "where student and teacher are compared: masked or all (padding never)")


@register_criterion("entropy_masked_lm", dataclass=EntropyMaskedLMCriterionConfig)
class EntropyMaskedLMCriterion(FairseqCriterion):
    """Masked language modelling with optional distillation from the task's teacher.

    The loss is a sum over the selected tokens and sample_size their number, as fairseq expects. Each of the n positions
    that a sequence with k selected tokens compares with the teacher has the weight k/n in the KD loss. That weight
    depends on the sequence alone, so the balance of the two losses does not change with --update-freq, the number of
    workers or the batch.

    Raises:
        UsageError: a flag out of its range, see `check_criterion_flags`.
    """

    def __init__(self, cfg: EntropyMaskedLMCriterionConfig, task: Any):
        super().__init__(task)
        check_criterion_flags(cfg, task)
        self.cfg: Any = plain(cfg)

    def forward(self, model: nn.Module, sample: dict, reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """The loss of a masked batch.

        Args:
            model: one of this plug-in's or of fairseq's masked language models.
            sample: a batch as `EntropyMaskedLMTask.mask` returns it; its "learner", if any, observes the answers.
            reduce: unused; the loss is always a sum.
        Returns:
            the loss (a sum, nats, 0-dim), sample_size K, and sums for the log.
        """
        selected = sample["selected"]
        target, learner = selected.gather(sample["target"]), sample.get("learner")  # target: K
        if self.distils():
            loss, mlm_loss, kd_loss, n_correct = self.with_distillation(model, sample["net_input"], selected, target,
                                                                        learner)
        else:
            logits, extra = model(**sample["net_input"], masked_tokens=as_model_argument(model, selected))  # K x V
            if learner is None:
                loss, n_correct = inplace_cross_entropy(logits, target)
            else:
                loss, n_correct, losses, correct = inplace_cross_entropy_by_row(logits, target)
                show_answers(learner, selected, target, losses, correct, extra.get("features"))
            mlm_loss, kd_loss = loss, torch.zeros_like(loss)
        return loss, selected.number, {
            "loss": mlm_loss.detach(),  # without the KD term, so that curves compare
            "kd_loss": kd_loss.detach(),
            "kd_sample_size": selected.number * self.distils(),
            "n_correct": n_correct,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": selected.number,
        }

    def with_distillation(
        self, model: nn.Module, net_input: dict, selected: SelectedPositions, target: Tensor,
        learner: Optional[Learner] = None,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """(1 - w) MLM + w KD (paper, section 3.6). target: K int64.

        Returns:
            loss, MLM loss, KD loss (nats) and number of correct predictions: 0-dim sums over the batch.
        """
        compares_all = self.cfg.kd_positions == "all"
        positions = SelectedPositions(net_input["src_tokens"].ne(self.padding_idx)) if compares_all else selected
        logits, extra = model(**net_input, masked_tokens=as_model_argument(model, positions))  # P x V
        mlm_logits = logits[positions.gather(selected.mask)] if compares_all else logits  # K x V
        if learner is not None:
            features = extra.get("features")  # P x C
            if features is not None and compares_all:
                features = features[positions.gather(selected.mask)]  # K x C
            show_answers(learner, selected, target, *cross_entropy_by_row(mlm_logits, target), features)
        mlm_loss = F.cross_entropy(mlm_logits.float(), target, reduction="sum")
        ratio_of_row = selected.mask.sum(1) / positions.mask.sum(1).clamp(min=1)  # B, k/n
        weight = positions.gather(ratio_of_row[:, None].expand_as(positions.mask))  # P
        teacher_logits = self.task.teacher_logits(net_input, positions)  # P x V
        kd_loss = (weight * distillation_loss(logits, teacher_logits, self.cfg.kd_temperature)).sum()
        loss = (1 - self.cfg.kd_weight) * mlm_loss + self.cfg.kd_weight * kd_loss
        return loss, mlm_loss, kd_loss, mlm_logits.argmax(dim=-1).eq(target).sum()

    def distils(self) -> bool:
        """Whether the KD term is computed; the validation loss is the MLM term alone."""
        return self.training and schedule.distils(self.task.epoch, self.cfg.kd_weight, self.cfg.kd_start_epoch)

    @staticmethod
    def reduce_metrics(logging_outputs: List[Dict[str, Any]]) -> None:
        """Log the losses in bits per selected token."""
        total = {key: sum(log.get(key, 0) for log in logging_outputs)
                 for key in ("loss", "kd_loss", "kd_sample_size", "n_correct", "sample_size")}
        n = total["sample_size"]
        metrics.log_scalar("loss", ratio(total["loss"], n) / math.log(2), n, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["loss"].avg))
        metrics.log_scalar("accuracy", ratio(total["n_correct"], n), n, round=4)
        if total["kd_sample_size"] > 0:  # undefined in epochs without distillation
            kd_loss = total["kd_loss"] / total["kd_sample_size"] / math.log(2)
            metrics.log_scalar("kd_loss", kd_loss, total["kd_sample_size"], round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every logged value is a sum, so that fairseq adds them over workers instead of gathering them."""
        return True


def show_answers(learner: Learner, selected: SelectedPositions, target: Tensor, losses: Tensor, correct: Tensor,
                 features: Optional[Tensor]) -> None:
    """Let a learner observe what the model predicted at the K selected positions; arguments as in `Answers`."""
    rows = selected.indices // selected.mask.size(1)
    features = None if features is None else features.detach()
    with torch.autocast(target.device.type, enabled=False):  # the step's would make the learner's products bf16
        learner.observe(Answers(target, correct, losses, rows, features))


def as_model_argument(model: nn.Module, positions: SelectedPositions) -> Union[SelectedPositions, Tensor]:
    """The positions as the model takes them: fairseq's own models know bool masks (B x T) only."""
    return positions if hasattr(model, "lm_hidden") else positions.mask


def ratio(total: float, count: float) -> float:
    """total / count, nan for 0 / 0: where nothing was masked, a loss of 0 would mislead."""
    return total / count if count > 0 else math.nan


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher_T || student_T), with P_T = softmax(logits / T) (Hinton, Vinyals, Dean 2015).

    Args:
        student_logits: P x V, any float type.
        teacher_logits: P x V, any float type.
        temperature: T > 0.
    Returns:
        P, fp32, nats.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


def check_criterion_flags(cfg: EntropyMaskedLMCriterionConfig, task: Any) -> None:
    """Check every flag of the criterion.

    Raises:
        UsageError: names the first flag out of its range.
    """
    require("--task", type(task).__name__, hasattr(task, "teacher_logits"),
            "entropy_masked_lm, which --criterion entropy_masked_lm needs")
    require("--kd-weight", cfg.kd_weight, 0 <= cfg.kd_weight <= 1, "a weight in [0, 1]")
    require("--kd-weight", f"{cfg.kd_weight} without --teacher", not cfg.kd_weight or task.cfg.teacher,
            "a checkpoint to distil from")
    require("--kd-temperature", cfg.kd_temperature, 1e-6 <= cfg.kd_temperature <= 1e6,
            "a number above 0, 1e-6 to 1e6")
    require("--kd-start-epoch", cfg.kd_start_epoch, cfg.kd_start_epoch >= 1, "1 or more")
    require("--kd-positions", cfg.kd_positions, cfg.kd_positions in ("masked", "all"), "masked or all")
