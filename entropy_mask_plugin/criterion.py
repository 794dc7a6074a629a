"""The loss: (1 - w) MLM + w KD (paper, section 3.6).

Shapes: B sentences, T positions, V vocabulary, K selected positions, P positions whose logits are computed.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics

from .config import plain
from .models.positions import Positions
from .scoring import schedule
from .system.errors import require
from .training.cross_entropy import cross_entropy_of_consumed


@dataclass
class EntropyMaskedLMCriterionConfig(FairseqDataclass):
    kd_weight: float = field(
        default=0.0, metadata={"help": "w in (1-w) MLM + w KD, in [0, 1]; 0 = no distillation, the paper's is 0.5"}
    )
    kd_temperature: float = field(
        default=1.0, metadata={"help": "T in T^2 KL(teacher_T || student_T), above 0"}
    )
    kd_start_epoch: int = field(
        default=1, metadata={"help": "first epoch, from 1, with distillation: 1 = the paper's complete transfer, "
                                     "2 = transfer after initialization"}
    )
    kd_positions: str = field(
        default="masked", metadata={"help": "where student and teacher are compared: masked or all (padding never)"}
    )


@register_criterion("entropy_masked_lm", dataclass=EntropyMaskedLMCriterionConfig)
class EntropyMaskedLMCriterion(FairseqCriterion):
    """Masked language modelling with optional distillation from the task's teacher.

    The loss is a sum over the selected tokens and sample_size their number, as fairseq wants it. A sequence's KD sum
    over its n compared positions counts as its k selected ones, k/n each: a weight that only the sequence decides, so
    the balance of the two losses is the same for every --update-freq, number of workers and batch.
    """

    def __init__(self, cfg, task):
        super().__init__(task)
        check_flags(cfg, task)
        self.cfg = plain(cfg)

    def forward(self, model, sample, reduce=True):
        """Returns the loss (a sum, nats), sample_size, and sums for the log."""
        selected = sample["selected"]
        target = selected.of(sample["target"])  # K
        if self.distils():
            loss, mlm_loss, kd_loss, n_correct = self.with_distillation(model, sample["net_input"], selected, target)
        else:
            logits, _ = model(**sample["net_input"], masked_tokens=wanted(model, selected))  # K x V
            loss, n_correct = cross_entropy_of_consumed(logits, target)
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

    def with_distillation(self, model, net_input, selected, target):
        """(loss, MLM loss, KD loss, correct predictions), all of them sums."""
        compares_all = self.cfg.kd_positions == "all"
        positions = Positions(net_input["src_tokens"].ne(self.padding_idx)) if compares_all else selected
        logits, _ = model(**net_input, masked_tokens=wanted(model, positions))  # P x V
        mlm_logits = logits[positions.of(selected.mask)] if compares_all else logits  # K x V
        mlm_loss = F.cross_entropy(mlm_logits.float(), target, reduction="sum")
        share = selected.mask.sum(1) / positions.mask.sum(1).clamp(min=1)  # B
        weight = positions.of(share[:, None].expand_as(positions.mask))  # P
        teacher_logits = self.task.teacher_logits(net_input, positions)
        kd_loss = (weight * distillation_loss(logits, teacher_logits, self.cfg.kd_temperature)).sum()
        loss = (1 - self.cfg.kd_weight) * mlm_loss + self.cfg.kd_weight * kd_loss
        return loss, mlm_loss, kd_loss, mlm_logits.argmax(dim=-1).eq(target).sum()

    def distils(self):
        """Validation loss is the MLM term alone."""
        return self.training and schedule.distils(self.task.epoch, self.cfg.kd_weight, self.cfg.kd_start_epoch)

    @staticmethod
    def reduce_metrics(logging_outputs):
        """Losses in bits per selected token."""
        total = {key: sum(log.get(key, 0) for log in logging_outputs)
                 for key in ("loss", "kd_loss", "kd_sample_size", "n_correct", "sample_size")}
        n = total["sample_size"]
        metrics.log_scalar("loss", ratio(total["loss"], n) / math.log(2), n, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["loss"].avg))
        metrics.log_scalar("accuracy", ratio(total["n_correct"], n), n, round=4)
        if total["kd_sample_size"] > 0:  # in epochs without distillation there is no such number
            kd_loss = total["kd_loss"] / total["kd_sample_size"] / math.log(2)
            metrics.log_scalar("kd_loss", kd_loss, total["kd_sample_size"], round=3)

    @staticmethod
    def logging_outputs_can_be_summed():
        return True


def wanted(model, positions):
    """The positions as the model takes them: fairseq's own models know masks only."""
    return positions if hasattr(model, "lm_hidden") else positions.mask


def ratio(total, count):
    return total / count if count > 0 else math.nan  # nothing was masked: a loss of 0 would mislead


def distillation_loss(student_logits, teacher_logits, temperature):
    """T^2 KL(teacher_T || student_T), with P_T = softmax(logits / T) (Hinton, Vinyals, Dean 2015).

    Args:
        student_logits, teacher_logits: P x V.
    Returns:
        P, fp32, nats.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


def check_flags(cfg, task):
    """Raise a UsageError that names the first flag out of its range."""
    require("--task", type(task).__name__, hasattr(task, "teacher_logits"),
            "entropy_masked_lm, which --criterion entropy_masked_lm needs")
    require("--kd-weight", cfg.kd_weight, 0 <= cfg.kd_weight <= 1, "a weight in [0, 1]")
    require("--kd-weight", f"{cfg.kd_weight} without --teacher", not cfg.kd_weight or task.cfg.teacher,
            "a checkpoint to distil from")
    require("--kd-temperature", cfg.kd_temperature, 0 < cfg.kd_temperature < math.inf, "a number above 0")
    require("--kd-start-epoch", cfg.kd_start_epoch, cfg.kd_start_epoch >= 1, "1 or more")
    require("--kd-positions", cfg.kd_positions, cfg.kd_positions in ("masked", "all"), "masked or all")
