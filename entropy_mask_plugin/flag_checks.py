"""Which values and combinations of the task's flags are allowed, and which have no effect."""

import logging
import os
import re
from typing import Any, Iterator, Optional, Sequence

import torch
from fairseq import utils

from .config import (
    CORRUPTION_OF_ARCH,
    OWN,
    block_lengths_of,
    corruption_of,
    defaults_with,
    flag_of,
    lengths_of,
    options,
    parts_of,
    policy_of,
    rate_of,
    recorded_defaults,
    source_schedule,
    teacher_chooses_masks,
    uses_ema,
)
from .masking.corruption import Corruption
from .masking.policy import check_ranges
from .masking.rates import Ramp, ends
from .masking.scores import is_learned
from .masking.units import check_symbols
from .system.errors import UsageError, require

logger = logging.getLogger(__name__)

MOST_FOLDS = 1 << 15  # more than a sequence has tokens


def check_corruption(fractions: Corruption, **numbers: Any) -> None:
    """Check the range of each fraction, and of other numbers of a `Policy`.

    Raises:
        UsageError: names the first flag out of its range.
    """
    try:
        check_ranges(**fractions._asdict(), **numbers)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_flags(cfg: Any) -> None:
    """Check the values and combinations of an EntropyMaskedLMConfig.

    Raises:
        UsageError: names the first flag with a wrong value.
    """
    for name, default in defaults_with("help").items():
        require(flag_of(name), "an empty text", getattr(cfg, name, default) != "" or default == "", "a value")
    check_corruption(corruption_of(cfg), mask_count=cfg.mask_count,
                     guided_fraction=rate_of("guided_fraction", cfg.guided_fraction), guided_by=cfg.guided_by)
    require("--self-mask-from-epoch", cfg.self_mask_from_epoch,
            cfg.self_mask_from_epoch is None or cfg.self_mask_from_epoch >= 1, "1 (cold start) or more")
    require("--self-mask-model", cfg.self_mask_model, cfg.self_mask_model in OWN, " or ".join(OWN))
    require("--precision", cfg.precision, cfg.precision in ("fp32", "bf16"), "fp32 or bf16")
    require("--entropy-precision", cfg.entropy_precision, cfg.entropy_precision in (None, "fp32", "bf16"),
            "fp32 or bf16")
    require("--entropy-folds", cfg.entropy_folds, 1 <= cfg.entropy_folds <= MOST_FOLDS,
            f"1 (all tokens are visible) to {MOST_FOLDS:,}")
    block_lengths_of(cfg)
    require("--self-entropy-every", cfg.self_entropy_every, cfg.self_entropy_every >= 1, "1 or more")
    if cfg.self_entropy_every > 1 and not (cfg.entropy_cache and cfg.self_mask_from_epoch):
        raise UsageError(f"--self-entropy-every: {cfg.self_entropy_every} alone found, expected --entropy-cache, where "
                         "the entropies are kept, and --self-mask-from-epoch with it")
    if cfg.self_entropy_every > 1 and cfg.guided_by == "sequences":
        raise UsageError("--self-entropy-every together with --guided-by sequences found, expected one of them: other "
                         "sequences are scored in each epoch")
    if cfg.self_entropy_every > 1 and 0 in ends(rate_of("guided_fraction", cfg.guided_fraction)):
        raise UsageError(f"--self-entropy-every together with --guided-fraction {cfg.guided_fraction} found, expected "
                         "a fraction that is never 0: where it is, nothing is scored")
    if cfg.entropy_cache and cfg.shorten_method == "random_crop":
        raise UsageError("--entropy-cache together with --shorten-method random_crop found, expected another method: "
                         "crops differ from epoch to epoch")
    if cfg.init_from and cfg.finetune_from_model:
        raise UsageError("--init-from together with --finetune-from-model found, expected one of them")
    require("--init-layers", f"{cfg.init_layers} without --init-from", cfg.init_from or not cfg.init_layers,
            "--init-from MODEL, whose layers they are")
    require("--init-layers", cfg.init_layers, re.fullmatch(r"(\d+,)*\d+", cfg.init_layers or "0"),
            "numbers of layers, from 0, separated by commas")
    require("--valid-pairs-limit", cfg.valid_pairs_limit, cfg.valid_pairs_limit is None or cfg.valid_pairs_limit >= 2,
            "2 or more")
    check_recordings(cfg)
    for name, option in options().items():
        value = getattr(cfg, name, option.default)
        require(flag_of(name), value, option.is_valid is None or option.is_valid(value), option.expected)
    if cfg.tpu:
        raise UsageError("--bf16 (or --tpu) found, expected --precision bf16: fairseq-train reads --bf16 as "
                         "a flag for TPUs and leaves the GPU unused")


def check_recordings(cfg: Any) -> None:
    """Check --record-masks and --replay-masks.

    Raises:
        UsageError: they name one folder, or updates may be repeated or skipped.
    """
    if not cfg.record_masks:
        return
    is_same = cfg.replay_masks and os.path.realpath(cfg.replay_masks) == os.path.realpath(cfg.record_masks)
    require("--record-masks", f"{cfg.record_masks}, which is replayed,", not is_same, "another folder")
    require("--fp16 or --amp", "with --record-masks", not (cfg.fp16 or cfg.amp),
            "--precision bf16: they repeat or skip updates")


def check_policy(cfg: Any, symbols: Sequence[str]) -> None:
    """Check what only training needs: the parts of the policy are registered, the vocabulary of these V subword strings
    has the unit, and a teacher is given where one scores. Loading a checkpoint for another purpose must work without
    them.

    Raises:
        UsageError: names the first flag with a wrong value.
    """
    check_parts(cfg)
    check_unit(cfg.mask_unit, symbols)
    if not cfg.teacher and teacher_chooses_masks(vars(cfg)):
        raise UsageError(f"--teacher: none found, expected a checkpoint for --mask-strategy {cfg.mask_strategy} "
                         "(or --self-mask-from-epoch N, or --mask-strategy random)")
    if uses_ema(vars(cfg)):
        flag = "--self-mask-model" if cfg.self_mask_model == "ema" else "--mask-source"
        require(flag, "ema without --store-ema", cfg.store_ema,
                "--store-ema, with which fairseq keeps the average, and --ema-decay 0.999")
    for name in ("mask_prob", "guided_fraction"):
        if isinstance(getattr(policy_of(cfg), name), Ramp):
            check_end_of_run(cfg, f"{flag_of(name)} {getattr(cfg, name)}")


def check_device(cfg: Any) -> None:
    """Raise a UsageError where fairseq would scale losses on a CPU, which ends in a traceback."""
    require("--fp16 or --amp", "on a CPU", not (cfg.fp16 or cfg.amp) or (torch.cuda.is_available() and not cfg.cpu),
            "--precision bf16, or a GPU")


def check_end_of_run(cfg: Any, ramp: str) -> None:
    """Check that it is known how much of the run is over.

    Args:
        cfg: an EntropyMaskedLMConfig.
        ramp: what needs it, for the message.
    Raises:
        UsageError: the run has no end, or epochs of different length.
    """
    if cfg.max_update:
        return
    if not cfg.max_epoch:
        raise UsageError(f"{ramp} without an end of the run found, expected --max-update or --max-epoch: the rate "
                         "changes over the whole run")
    grows = len(lengths_of(cfg.tokens_per_sample)) > 1
    if grows or len(utils.split_paths(cfg.data)) > 1 or len(set(cfg.update_freq)) > 1:
        raise UsageError(f"{ramp} with epochs of different numbers of updates (shards, several --update-freq, or "
                         "blocks that grow) found, expected --max-update")


def check_growth(cfg: Any, unigram: Optional[float]) -> None:
    """Check what blocks that grow need of a training. unigram: unigram entropy of the data in bits; None = unknown.

    Raises:
        UsageError: it is not known when they grow, or a flag needs blocks of one length.
    """
    blocks = block_lengths_of(cfg)
    if not blocks.grows:
        return
    flag, given = "--grow-tokens-per-sample", cfg.grow_tokens_per_sample
    if isinstance(blocks.when, str):
        require(flag, f"{given} with a dict.txt without counts", unigram is not None,
                "fractions of the run, as 0.3,0.6: the unigram entropy is unknown")
        require(flag, f"{given} with --disable-validation", not cfg.disable_validation,
                "validations, or fractions of the run, as 0.3,0.6")
    else:
        require(flag, f"{given} without an end of the run", cfg.max_update or cfg.max_epoch,
                "--max-update or --max-epoch")
    for name in ("record_masks", "replay_masks"):
        folder = getattr(cfg, name)
        require(flag_of(name), f"{folder} with --tokens-per-sample {cfg.tokens_per_sample}", not folder,
                "blocks of one length: a mask belongs to a block")


def check_parts(cfg: Any) -> None:
    """Check that the parts of the policy are registered, and that no scores are kept which change in each update.

    Raises:
        UsageError: names the first that is not, and the nearest one that is; or the flag that keeps scores.
    """
    for registry, name in parts_of(cfg):
        require(registry.flag, name, name in registry, registry.expected(name))
    if is_learned(cfg.mask_score):
        for name in ("entropy_cache", "self_entropy_every", "entropy_folds"):
            value = getattr(cfg, name)
            require(flag_of(name), f"{value} with --mask-score {cfg.mask_score}", value in (None, 1),
                    "none: this score learns from the training's own answers")
        require("--fp16 or --amp", f"with --mask-score {cfg.mask_score}", not (cfg.fp16 or cfg.amp),
                "--precision bf16: they repeat or skip updates")


def check_unit(name: str, symbols: Sequence[str]) -> None:
    """Check that --mask-unit can be made of a vocabulary's subword strings.

    Raises:
        UsageError: it cannot.
    """
    try:
        check_symbols(name, symbols)
    except ValueError as error:
        raise UsageError(str(error)) from None


def warn_of_unused_flags(cfg: Any) -> None:
    """Log a warning for each flag without effect, the corruption where the arch determines its defaults, and until when
    masks are random."""
    if cfg.arch in CORRUPTION_OF_ARCH:
        flags = " ".join(f"{flag_of(name)} {value}" for name, value in corruption_of(cfg)._asdict().items()
                         if not (cfg.replay_masks and name == "mask_prob"))
        logger.info(f"corruption with --arch {cfg.arch}: {flags}")
    sources = source_schedule(vars(cfg))
    if sources.at(1) is None and sources.switch is not None:
        reason = "" if cfg.teacher else "no --teacher: "
        logger.info(f"{reason}masks are random before epoch {sources.switch} (--self-mask-from-epoch)")
    for message in unused_flags(cfg):
        logger.warning(message)


def unused_flags(cfg: Any) -> Iterator[str]:
    """A line for each flag that is given and has no effect."""
    when = recorded_defaults()["grow_tokens_per_sample"]
    if cfg.grow_tokens_per_sample != when and len(lengths_of(cfg.tokens_per_sample)) == 1:
        yield "--grow-tokens-per-sample has no effect without --tokens-per-sample FIRST:LAST"
    if cfg.replay_masks:
        for name, default in defaults_with("chooses").items():
            if getattr(cfg, name, default) != default:
                yield f"{flag_of(name)} has no effect with --replay-masks"
        if cfg.teacher:
            yield "--teacher chooses no masks with --replay-masks: it is used for distillation only (--kd-weight)"
        return
    policy, by_teacher = policy_of(cfg), teacher_chooses_masks(vars(cfg))
    random = f"with --mask-strategy {cfg.mask_strategy}"
    for name in ("self_mask_from_epoch", "self_mask_model", "mask_score", "guided_fraction"):
        if not policy.needs_scores and getattr(cfg, name) != recorded_defaults()[name]:
            yield f"{flag_of(name)} has no effect {random}"
    if policy.needs_scores and cfg.self_mask_model == "ema" and not uses_ema(vars(cfg)):
        yield "--self-mask-model has no effect without --self-mask-from-epoch, the first epoch of self-masking"
    first, last = cfg.self_mask_from_epoch, cfg.max_epoch
    if policy.needs_scores and first and last and first > last:
        yield f"--self-mask-from-epoch {first} has no effect: the run ends with epoch {last} (--max-epoch)"
    if policy.guided_fraction == 1 and cfg.guided_by == "sequences":
        yield "--guided-by has no effect with --guided-fraction 1"
    if cfg.mask_count is not None and cfg.mask_prob is not None:
        yield "--mask-prob has no effect with --mask-count"
    if cfg.entropy_cache and not by_teacher and cfg.self_entropy_every == 1:
        yield "--entropy-cache has no effect: with these flags, the teacher chooses no masks"
    if cfg.teacher and not by_teacher:
        yield "--teacher chooses no masks with these flags: it is used for distillation only (--kd-weight)"
