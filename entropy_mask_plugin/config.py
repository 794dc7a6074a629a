"""The flags of the task, and which values make sense."""

import logging
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks.language_modeling import SAMPLE_BREAK_MODE_CHOICES, SHORTEN_METHOD_CHOICES
from omegaconf import II, MISSING, OmegaConf

from .masking import schedule
from .masking.corruption import Corruption
from .masking.strategies import STRATEGIES
from .system.errors import UsageError, require

logger = logging.getLogger(__name__)


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
        default="high", metadata={"help": "which tokens are masked, by entropy: " + ", ".join(STRATEGIES)
                                         + ", or a registered one"}
    )
    mask_prob: Optional[float] = field(
        default=None, metadata={"help": "share of the maskable tokens of each sequence that is masked, in (0, 1] "
                                        "(default: 0.15; 0.5 for --arch …_3ml)"}
    )
    mask_count: Optional[int] = field(
        default=None, metadata={"help": "mask this many tokens of each sequence instead (1 or more)"}
    )
    static_masks: bool = field(
        default=False, metadata={"help": "noise does not depend on the epoch: random masks repeat (control for a "
                                         "static teacher)"}
    )
    leave_unmasked_prob: Optional[float] = field(
        default=None, metadata={"help": "share of the masked tokens that stays as it is, in [0, 1] (BERT: 0.1; "
                                        "default: 0; 0.1 for --arch …_3ml)"}
    )
    random_token_prob: Optional[float] = field(
        default=None, metadata={"help": "share of the masked tokens that becomes a random token, in [0, 1] (BERT: "
                                        "0.1; default: 0; 0.1 for --arch …_3ml)"}
    )
    teacher: Optional[str] = field(
        default=None, metadata={"help": "checkpoint of the reference model, or Hugging Face folder of a BERT; same "
                                         "vocabulary as the data"}
    )
    init_from: Optional[str] = field(
        default=None, metadata={"help": "begin with what this checkpoint or Hugging Face BERT and the model have in "
                                        "common; the rest stays new"}
    )
    init_layers: Optional[str] = field(
        default=None, metadata={"help": "which layer of --init-from each layer takes, from 0, with commas between "
                                        "(default: evenly spaced)"}
    )
    self_mask_from_epoch: Optional[int] = field(
        default=None,
        metadata={"help": "first epoch, from 1, whose entropies come from the model being trained: 1 = cold start, "
                          "2 = the paper's init (default: never)"},
    )
    entropy_cache: Optional[str] = field(
        default=None,
        metadata={"help": "folder that keeps the teacher's entropies: computed once, read by later epochs and runs"},
    )
    self_entropy_every: int = field(
        default=1,
        metadata={"help": "compute self entropies in one of so many passes over a shard and reuse them in the others, "
                          "from --entropy-cache (default: in each)"},
    )
    precision: str = field(
        default="fp32", metadata={"help": "fp32, or bf16: autocast with fp32 weights, on GPU and CPU"}
    )
    entropy_precision: Optional[str] = field(
        default=None,
        metadata={"help": "of entropy passes: bf16 = all of them, cheaper, some masks differ; fp32 = exact also "
                          "under --precision bf16 (default: layers as --precision, projection refined near the "
                          "selection cut)"},
    )
    compile: bool = field(
        default=False, metadata={"help": "torch.compile for the encoder layers, but the last: minutes at the start"}
    )
    # fairseq's own settings that the task must see. Without a help text they are no flags of ours.
    arch: Optional[str] = "${oc.select:model._name,null}"  # fairseq-validate has no model
    seed: int = II("common.seed")
    tpu: bool = II("common.tpu")
    cpu: bool = II("common.cpu")
    train_subset: str = II("dataset.train_subset")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")


def plain(cfg):
    """The settings as an object of their dataclass: reading an attribute of OmegaConf's takes ten microseconds, and an
    update reads dozens."""
    return OmegaConf.to_object(cfg) if OmegaConf.is_config(cfg) else cfg


PAPERS = Corruption(0.15, 0.0, 0.0)  # every selected token becomes <mask>
MASK_LATER = Corruption(0.5, 0.1, 0.1)  # Mask More and Mask Later
CORRUPTION_OF_ARCH = {"bert_base_3ml": MASK_LATER, "bertlet_3ml": MASK_LATER}


def corruption_of(cfg):
    """The `Corruption` of an EntropyMaskedLMConfig: its flags; where they are not given, what its arch is made for."""
    default = CORRUPTION_OF_ARCH.get(cfg.arch, PAPERS)
    given = (cfg.mask_prob, cfg.leave_unmasked_prob, cfg.random_token_prob)
    return Corruption(*(value if flag is None else flag for flag, value in zip(given, default)))


def recorded_corruption(task):
    """The `Corruption` of a task's settings as a checkpoint holds them, a dict."""
    return corruption_of(SimpleNamespace(**{name: task.get(name) for name in (*Corruption._fields, "arch")}))


def check_corruption(shares):
    """Raise a UsageError that names the first share out of its range."""
    require("--mask-prob", shares.mask_prob, 0 < shares.mask_prob <= 1, "a share in (0, 1]")
    require("--leave-unmasked-prob", shares.leave_unmasked_prob, 0 <= shares.leave_unmasked_prob <= 1,
            "a share in [0, 1]")
    require("--random-token-prob", shares.random_token_prob,
            0 <= shares.random_token_prob <= 1 - shares.leave_unmasked_prob,
            "a share in [0, 1], at most 1 together with --leave-unmasked-prob")


def check_flags(cfg):
    """Raise a UsageError that names the first flag out of its range."""
    check_corruption(corruption_of(cfg))
    require("--mask-count", cfg.mask_count, cfg.mask_count is None or cfg.mask_count >= 1, "1 or more")
    require("--self-mask-from-epoch", cfg.self_mask_from_epoch,
            cfg.self_mask_from_epoch is None or cfg.self_mask_from_epoch >= 1, "1 (cold start) or more")
    require("--precision", cfg.precision, cfg.precision in ("fp32", "bf16"), "fp32 or bf16")
    require("--entropy-precision", cfg.entropy_precision, cfg.entropy_precision in (None, "fp32", "bf16"),
            "fp32 or bf16")
    require("--tokens-per-sample", cfg.tokens_per_sample, cfg.tokens_per_sample >= 2, "2 or more")
    require("--self-entropy-every", cfg.self_entropy_every, cfg.self_entropy_every >= 1, "1 or more")
    if cfg.self_entropy_every > 1 and not (cfg.entropy_cache and cfg.self_mask_from_epoch):
        raise UsageError("--self-entropy-every: expected --entropy-cache, where entropies are kept, and "
                         "--self-mask-from-epoch")
    if cfg.entropy_cache and cfg.shorten_method == "random_crop":
        raise UsageError("--entropy-cache together with --shorten-method random_crop found, expected another method: "
                         "crops differ from epoch to epoch")
    if cfg.init_from and cfg.finetune_from_model:
        raise UsageError("--init-from together with --finetune-from-model found, expected one of them")
    require("--init-layers", f"{cfg.init_layers} without --init-from", cfg.init_from or not cfg.init_layers,
            "the model that they are of")
    require("--init-layers", cfg.init_layers, re.fullmatch(r"(\d+,)*\d+", cfg.init_layers or "0"),
            "numbers, from 0, with commas between")
    if cfg.tpu:
        raise UsageError("--bf16 (or --tpu) found, expected --precision bf16: fairseq-train takes --bf16 for a TPU and "
                         "leaves a GPU unused")


def check_policy(cfg):
    """What training needs, and a checkpoint that is loaded for something else does not: as `check_flags`."""
    require("--mask-strategy", cfg.mask_strategy, cfg.mask_strategy in STRATEGIES,
            STRATEGIES.expected(cfg.mask_strategy))
    if not cfg.teacher and schedule.needs_teacher(cfg.mask_strategy, cfg.self_mask_from_epoch):
        raise UsageError(f"--teacher: none found, expected a checkpoint for --mask-strategy {cfg.mask_strategy} "
                         "(or --self-mask-from-epoch 1, or --mask-strategy random)")


def warn_of_unused_flags(cfg):
    if cfg.arch in CORRUPTION_OF_ARCH:
        shares = " ".join(f"--{name.replace('_', '-')} {share}" for name, share in corruption_of(cfg)._asdict().items())
        logger.info(f"masks with --arch {cfg.arch}: {shares}")
    if cfg.mask_strategy == "random" and cfg.self_mask_from_epoch is not None:
        logger.warning("--self-mask-from-epoch has no effect with --mask-strategy random")
    by_teacher = schedule.needs_teacher(cfg.mask_strategy, cfg.self_mask_from_epoch)
    if cfg.entropy_cache and not by_teacher and cfg.self_entropy_every == 1:
        logger.warning("--entropy-cache has no effect: with these flags no mask is chosen by a teacher")
    if cfg.teacher and not schedule.needs_teacher(cfg.mask_strategy, cfg.self_mask_from_epoch):
        logger.warning("--teacher chooses no masks with these flags: it only distils, where --kd-weight says so")
