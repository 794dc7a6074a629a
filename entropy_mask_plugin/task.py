"""The task: clean blocks of text, and the batch hook that turns each batch into a masked one.

    1. scores      entropy of the teacher's or the model's own predictions on the clean tokens, or noise
    2. selected    the strategy's choice among the maskable positions
    3. new sample  corrupted src_tokens and target, for the criterion

Shapes: B sentences, T positions, C width, V vocabulary, K positions.
"""

import contextlib
import os
from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq import utils
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import SAMPLE_BREAK_MODE_CHOICES, SHORTEN_METHOD_CHOICES
from fairseq.tasks.masked_lm import MaskedLMTask
from omegaconf import II, MISSING

from .blocks import load_samples
from .checkpoints import check_vocabulary, read_checkpoint, vocabulary_record
from .errors import UsageError, require
from .fairseq_fixes import started_by_torchrun
from .masking import corruption, noise, schedule, selection
from .masking.entropy import projected_entropy
from .masking.statistics import SUMS, mask_statistics
from .teacher import load_teacher

VALID_MASK_PROB = 0.15  # whatever --mask-prob is, so that validation losses of all runs compare


@dataclass
class EntropyMaskedLMConfig(FairseqDataclass):
    data: str = field(
        default=MISSING, metadata={"help": "data-bin folder; several, separated by colons, are shards: one per epoch"}
    )
    tokens_per_sample: int = field(default=512, metadata={"help": "positions of a block, <s> included"})
    sample_break_mode: SAMPLE_BREAK_MODE_CHOICES = field(
        default="none",
        metadata={"help": "none: full blocks; complete: whole sentences; complete_doc: also no new document within a "
                          "block; eos: one sentence a block"},
    )
    shorten_method: SHORTEN_METHOD_CHOICES = field(
        default="none", metadata={"help": "what becomes of lines longer than a block: none, truncate or random_crop"}
    )
    shorten_data_split_list: str = field(
        default="", metadata={"help": "comma-separated splits to shorten, e.g. train,valid (default: all)"}
    )
    mask_strategy: str = field(
        default="high", metadata={"help": "which tokens are masked, by entropy: " + ", ".join(schedule.STRATEGIES)}
    )
    mask_prob: float = field(
        default=0.15, metadata={"help": "share of the maskable tokens of each sequence that is masked, in (0, 1]"}
    )
    mask_count: Optional[int] = field(
        default=None, metadata={"help": "mask this many tokens of each sequence instead (1 or more)"}
    )
    static_masks: bool = field(
        default=False, metadata={"help": "noise does not depend on the epoch: random masks repeat (control for a "
                                         "static teacher)"}
    )
    leave_unmasked_prob: float = field(
        default=0.0, metadata={"help": "share of the masked tokens that stays as it is, in [0, 1] (BERT: 0.1)"}
    )
    random_token_prob: float = field(
        default=0.0, metadata={"help": "share of the masked tokens that becomes a random token, in [0, 1] (BERT: 0.1)"}
    )
    teacher: Optional[str] = field(
        default=None, metadata={"help": "checkpoint of the reference model; same vocabulary as the data"}
    )
    self_mask_from_epoch: Optional[int] = field(
        default=None,
        metadata={"help": "first epoch, from 1, whose entropies come from the model being trained: 1 = cold start, "
                          "2 = the paper's init (default: never)"},
    )
    precision: str = field(
        default="fp32", metadata={"help": "fp32, or bf16: autocast with fp32 weights, on GPU and CPU"}
    )
    # fairseq's own settings that the task must see. Without a help text they are no flags of ours.
    seed: int = II("common.seed")
    tpu: bool = II("common.tpu")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")


@register_task("entropy_masked_lm", dataclass=EntropyMaskedLMConfig)
class EntropyMaskedLMTask(MaskedLMTask):
    """Masked language modelling with masks chosen by entropy."""

    def __init__(self, cfg, dictionary=None):
        check_flags(cfg)
        super().__init__(cfg, dictionary)
        self.epoch = 1  # set by begin_epoch
        self.teacher = None
        specials = {self.dictionary.index(s) for s in ("<pad>", "<s>", "</s>", "<unk>", "<mask>")}
        self.specials = torch.tensor(sorted(specials))
        self.ordinary = torch.tensor([i for i in range(len(self.dictionary)) if i not in specials])

    @classmethod
    def setup_task(cls, cfg, from_checkpoint=False, **kwargs):
        """Build the task; for training (not when a checkpoint is loaded for something else) with its teacher."""
        task = super().setup_task(cfg, **kwargs)
        if not from_checkpoint:
            check_ranks()
            check_restore_file(task)
            task.teacher = load_teacher(cfg.teacher, task) if cfg.teacher else None
        return task

    @classmethod
    def load_dict(cls, cfg):
        file = os.path.join(utils.split_paths(cfg.data)[0], "dict.txt")
        if not os.path.exists(file):
            raise UsageError(f"data: {file} does not exist, expected a folder written by fairseq-preprocess")
        return super().load_dict(cfg)

    # ---- data

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        self.datasets[split] = load_samples(self.cfg, self.dictionary, split, epoch, combine)

    def get_checkpoint_dict(self):
        return vocabulary_record(self)

    # ---- the batch hook

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        self.epoch = epoch  # set, never counted: fairseq calls this again after a resume in mid-epoch

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        masked, statistics = self.mask_for_training(sample, model, update_num)
        loss, sample_size, logging_output = super().train_step(
            masked, model, self.in_precision(criterion), optimizer, update_num, ignore_grad
        )
        return loss, sample_size, {**logging_output, **statistics}

    def valid_step(self, sample, model, criterion):
        return super().valid_step(self.mask_for_validation(sample), model, self.in_precision(criterion))

    def mask_for_training(self, sample, model, update_num):
        """A new sample with masks, and sums for the log. The old sample stays as it is: fairseq reuses it."""
        tokens = sample["net_input"]["src_tokens"]
        maskable = self.maskable(tokens)
        entropies = self.entropies(tokens, model)
        scores = self.draw(sample, noise.SELECTION) if entropies is None else entropies
        k = selection.number_to_mask(maskable, self.cfg.mask_prob, self.cfg.mask_count)
        strategy = schedule.strategy_of_update(self.cfg.mask_strategy, self.cfg.seed, update_num)
        selected = selection.CHOOSE[strategy](scores, maskable, k)
        masked = self.masked(sample, selected)
        if self.cfg.leave_unmasked_prob or self.cfg.random_token_prob:
            masked["net_input"]["src_tokens"] = self.softened(sample, masked, selected)
        return masked, mask_statistics(maskable, selected, entropies)

    def mask_for_validation(self, sample):
        """A new sample with random masks that depend on the sample id alone."""
        tokens = sample["net_input"]["src_tokens"]
        maskable = self.maskable(tokens)
        scores = noise.uniform(0, 0, sample["id"], tokens.size(1), noise.VALIDATION)
        k = selection.number_to_mask(maskable, VALID_MASK_PROB)
        return self.masked(sample, selection.highest(scores, maskable, k))

    def masked(self, sample, selected):
        """The sample with <mask> at the selected positions and their tokens as target."""
        tokens = sample["net_input"]["src_tokens"]
        src_tokens, target = corruption.corrupt(tokens, selected, self.mask_idx, self.dictionary.pad())
        return {**sample, "net_input": {**sample["net_input"], "src_tokens": src_tokens}, "target": target}

    def softened(self, sample, masked, selected):
        """BERT's 80/10/10 instead of 100 % <mask>: B x T int64."""
        tokens = sample["net_input"]["src_tokens"]
        replacement = corruption.random_tokens(self.draw(sample, noise.REPLACEMENT), self.ordinary.to(tokens.device))
        return corruption.soften(
            masked["net_input"]["src_tokens"], tokens, selected, self.cfg.leave_unmasked_prob,
            self.cfg.random_token_prob, self.draw(sample, noise.CORRUPTION), replacement,
        )

    def draw(self, sample, stream):
        """B x T fp32 in [0, 1), a function of (seed, epoch, sample id, position)."""
        epoch = schedule.noise_epoch(self.epoch, self.cfg.static_masks)
        return noise.uniform(self.cfg.seed, epoch, sample["id"], sample["net_input"]["src_tokens"].size(1), stream)

    def maskable(self, tokens):
        """B x T bool: everything but <pad>, <s>, </s>, <mask>, <unk>."""
        return ~torch.isin(tokens, self.specials.to(tokens.device))

    def entropies(self, tokens, model):
        """B x T fp32, nats, of this epoch's source on the clean tokens; None where the strategy needs none."""
        source = schedule.entropy_source(self.cfg.mask_strategy, self.epoch, self.cfg.self_mask_from_epoch)
        if source == "teacher":
            return self.entropies_of(self.teacher_on(tokens.device), tokens)
        if source == "self":  # the weights before the update, dropout off
            model.eval()
            entropies = self.entropies_of(model, tokens)
            model.train()
            return entropies
        return None

    def entropies_of(self, model, tokens):
        with torch.no_grad(), self.autocast(tokens.device):
            hidden = model.lm_hidden(tokens)
        return projected_entropy(hidden, *model.output_projection())

    def teacher_logits(self, src_tokens, positions):
        """The teacher's logits at chosen positions of the masked sequence: B x T int64, B x T bool -> K x V."""
        with torch.no_grad(), self.autocast(src_tokens.device):
            return self.teacher_on(src_tokens.device)(src_tokens, masked_tokens=positions)[0]

    def teacher_on(self, device):
        return self.teacher.to(device)  # moves once, at the first batch

    def autocast(self, device):
        if self.cfg.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def in_precision(self, criterion):
        """The criterion under autocast. Around train_step it would have no effect: fairseq switches autocast off there
        unless --amp is given."""

        def compute(model, sample):
            with self.autocast(sample["target"].device):
                return criterion(model, sample)

        return compute

    # ---- log

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in SUMS}
        log_ratio("mask_rate", total["n_selected"], total["n_maskable"])
        log_ratio("entropy", total["entropy_sum"], total["n_scored"])
        log_ratio("entropy_masked", total["entropy_masked_sum"], total["n_scored_selected"])


def log_ratio(name, total, count):
    if count > 0:  # nothing counted, nothing known: a zero would mislead
        metrics.log_scalar(name, total / count, count, round=3)


def check_flags(cfg):
    """Raise a UsageError that names the first flag out of its range."""
    first, leave = cfg.self_mask_from_epoch, cfg.leave_unmasked_prob
    require("--mask-strategy", cfg.mask_strategy, cfg.mask_strategy in schedule.STRATEGIES,
            "one of " + ", ".join(schedule.STRATEGIES))
    require("--mask-prob", cfg.mask_prob, 0 < cfg.mask_prob <= 1, "a share in (0, 1]")
    require("--mask-count", cfg.mask_count, cfg.mask_count is None or cfg.mask_count >= 1, "1 or more")
    require("--leave-unmasked-prob", leave, 0 <= leave <= 1, "a share in [0, 1]")
    require("--random-token-prob", cfg.random_token_prob, 0 <= cfg.random_token_prob <= 1 - leave,
            "a share in [0, 1], at most 1 together with --leave-unmasked-prob")
    require("--self-mask-from-epoch", first, first is None or first >= 1, "1 (cold start) or more")
    require("--precision", cfg.precision, cfg.precision in ("fp32", "bf16"), "fp32 or bf16")
    require("--tokens-per-sample", cfg.tokens_per_sample, cfg.tokens_per_sample >= 2, "2 or more")
    require("--bf16", "a TPU flag", not cfg.tpu,
            "--precision bf16: with --bf16, fairseq-train leaves a GPU unused")
    require("--teacher", "none", cfg.teacher or not schedule.needs_teacher(cfg.mask_strategy, first),
            f"a checkpoint for --mask-strategy {cfg.mask_strategy} (or --self-mask-from-epoch 1, or random masks)")


def check_ranks():
    if started_by_torchrun() and not torch.distributed.is_initialized():  # fairseq-hydra-train without a GPU
        raise UsageError(
            "torchrun: several processes found that do not know of each other, expected fairseq-train: each would "
            "train a model of its own and overwrite the others' checkpoints"
        )


def check_restore_file(task):
    """Look at the checkpoint that fairseq is going to load. Where --restore-file does not exist, it starts from scratch
    without a word; where it cannot be read, a page of traceback follows; and it loads another vocabulary of equal size.
    """
    cfg = task.cfg
    last = os.path.join(cfg.save_dir, "checkpoint_last.pt")
    if cfg.restore_file != "checkpoint_last.pt":
        flag, path = "--restore-file", cfg.restore_file
    elif os.path.exists(last):
        flag, path = "--save-dir", last
    else:
        flag, path = "--finetune-from-model", cfg.finetune_from_model
    if path:
        check_vocabulary(read_checkpoint(path, flag), path, flag, task)
