"""The flags of the task, and what follows from them; `flag_checks` says which values are allowed."""

import copy
import dataclasses
import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple, Type

from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks.language_modeling import SAMPLE_BREAK_MODE_CHOICES, SHORTEN_METHOD_CHOICES
from omegaconf import II, MISSING, OmegaConf

from .masking.corruption import Corruption
from .masking.policy import Policy
from .masking.rates import Rate, parse_rate
from .masking.registry import Option, Registry
from .masking.scores import SCORES, is_learned
from .masking.strategies import STRATEGIES
from .masking.units import UNITS
from .scoring import schedule
from .scoring.schedule import SourceSchedule
from .scoring.sources import SOURCES, models_read
from .system.errors import UsageError, require
from .training.block_lengths import STALLED, BlockLengths, parse_lengths, parse_when

logger = logging.getLogger(__name__)

ROWS = "--rows, which differ in it"
SCALE = "another scale"
ALONE = "fairseq-train alone, for a single run"


def flag(default: Any, help: Optional[str] = None, **traits: Any) -> Any:
    """A field of the dataclass, with everything that other code needs to know about it.

    Args:
        default: its value where the flag is not given.
        help: for --help and docs/flags.md; None = not a flag of this plug-in.
        traits:
            policy = True: a run resumed with another value would mix two policies, and logs a warning.
            chooses = True: it decides which tokens are masked, so that it has no effect with --replay-masks.
            scores = True: a teacher's scores depend on it, so it is part of an entropy cache's key.
            rate = True: it may be FIRST:LAST, see `masking.rates` and `training.block_lengths`.
            study = what to use instead in a study, which sets this flag itself.
    """
    return field(default=default, metadata={**({} if help is None else {"help": help}), **traits})


def names(registry: Registry) -> str:
    """The registered names, for a help text."""
    return ", ".join(registry) + ", or a registered one"


@dataclass
class EntropyMaskedLMConfig(FairseqDataclass):
    """The flags of --task entropy_masked_lm; `check_flags` says which values are allowed."""

    data: str = flag(MISSING, "data-bin folder; several, separated by colons, are shards: one per epoch")
    tokens_per_sample: Any = flag(  # int, or FIRST:LAST
        512, "positions of a block, <s> included; FIRST:LAST, such as 32:128, doubles them over the run",
        policy=True, scores=True, rate=True, study=SCALE)
    grow_tokens_per_sample: str = flag(
        STALLED, "when --tokens-per-sample FIRST:LAST doubles: left, after an epoch whose validation loss has left the "
        "unigram plateau; stalled, also after one that ends on it without progress; or at fractions of the run, as "
        "0.3,0.6", policy=True, study=SCALE)
    sample_break_mode: SAMPLE_BREAK_MODE_CHOICES = flag(  # pyright: ignore[reportInvalidTypeForm]  # made by a call
        "none", "none: full blocks; complete: whole sentences; complete_doc: also no new document within a block; eos: "
        "one sentence per block", policy=True, scores=True, study=SCALE)
    shorten_method: SHORTEN_METHOD_CHOICES = flag(  # pyright: ignore[reportInvalidTypeForm]  # made by a call
        "none", "how lines longer than a block are shortened: none, truncate or random_crop", scores=True, study=SCALE)
    shorten_data_split_list: str = flag(
        "", "comma-separated splits to shorten, e.g. train,valid (default: all)", scores=True, study=SCALE)
    mask_strategy: str = flag(
        "high", f"which tokens are masked, by their scores: {names(STRATEGIES)}", policy=True, chooses=True, study=ROWS)
    mask_score: str = flag(
        "entropy", f"what about the prediction at each token is scored: {names(SCORES)}", policy=True, chooses=True,
        scores=True)
    mask_source: str = flag(
        "teacher", f"whose predictions are scored before --self-mask-from-epoch: {names(SOURCES)}", policy=True,
        chooses=True)
    mask_unit: str = flag("token", f"which tokens are masked together: {names(UNITS)}", policy=True, chooses=True)
    mask_prob: Optional[str] = flag(
        None, "fraction of the maskable tokens of each sequence that is masked, in (0, 1]; FIRST:LAST, as 0.3:0.15, "
        "changes linearly over the run (default: 0.15; 0.5 for --arch …_3ml)", policy=True, chooses=True, rate=True,
        study=ROWS)
    mask_count: Optional[int] = flag(
        None, "mask this many tokens of each sequence instead (1 or more)", policy=True, chooses=True, study=ROWS)
    guided_fraction: str = flag(
        "1", "fraction of the masked tokens that is chosen by score, in [0, 1]; the others are random; FIRST:LAST "
        "changes linearly over the run", policy=True, chooses=True, rate=True, study=ROWS)
    guided_by: str = flag(
        "tokens", "tokens: that fraction of each sequence's masked tokens; sequences: all of them in that fraction of "
        "the sequences, so that only these are scored", policy=True, chooses=True, study=ROWS)
    static_masks: bool = flag(
        False, "noise does not depend on the epoch: random masks repeat (control for a static teacher)", policy=True,
        study=ROWS)
    leave_unmasked_prob: Optional[float] = flag(
        None, "fraction of the masked tokens that stays unchanged, in [0, 1] (BERT: 0.1; default: 0; 0.1 for --arch "
        "…_3ml)", policy=True, study="--corruption")
    random_token_prob: Optional[float] = flag(
        None, "fraction of the masked tokens that becomes a random token, in [0, 1] (BERT: 0.1; default: 0; 0.1 for "
        "--arch …_3ml)", policy=True, study="--corruption")
    teacher: Optional[str] = flag(
        None, "checkpoint of the reference model, or Hugging Face folder of a BERT; same vocabulary as the data",
        policy=True, study="--teacher before the --")
    init_from: Optional[str] = flag(
        None, "initialize from this checkpoint or Hugging Face BERT the weights that the model has in common with it")
    init_layers: Optional[str] = flag(
        None, "for each layer, which one of --init-from it copies: comma-separated, from 0 (default: evenly spaced)")
    self_mask_from_epoch: Optional[int] = flag(
        None, "first epoch, from 1, whose scores come from the model being trained: 1 = cold start, 2 = the paper's "
        "init; epochs before it are masked at random without --teacher (default: never; with a score that learns, 1)",
        policy=True, chooses=True, study=ROWS)
    self_mask_model: str = flag(
        "current", "whose weights --self-mask-from-epoch means: current, or ema: the slow average that fairseq keeps "
        "with --store-ema --ema-decay 0.999", policy=True, chooses=True, study=ROWS)
    entropy_cache: Optional[str] = flag(
        None, "folder that stores the teacher's scores: computed once, read by later epochs and runs", chooses=True,
        study=ROWS)
    self_entropy_every: int = flag(
        1, "compute the model's own scores in one of this many passes over a shard and read them from "
        "--entropy-cache in the others (default: in each)", policy=True, chooses=True)
    record_masks: Optional[str] = flag(
        None, "folder that stores which tokens were masked, for --replay-masks and entropy-mask diff", study=ALONE)
    replay_masks: Optional[str] = flag(
        None, "mask the tokens that another run on the same blocks of text has recorded in this folder with "
        "--record-masks; flags that choose masks have no effect then", policy=True, study=ALONE)
    precision: str = flag(
        "fp32", "fp32, or bf16: autocast with fp32 weights, on GPU and CPU", policy=True, scores=True)
    entropy_precision: Optional[str] = flag(
        None, "of scoring passes: bf16 = all of them, cheaper, some masks differ; fp32 = exact also under --precision "
        "bf16 (default: layers as --precision, projection refined near the selection cut)", policy=True, chooses=True,
        scores=True)
    entropy_folds: int = flag(
        1, "score each token while it is hidden: in this many passes, each of which replaces an equal part of the "
        "maskable tokens by <mask> (default: 1, all tokens are visible)", policy=True, chooses=True, scores=True)
    valid_pairs: Optional[str] = flag(
        None, "measure at each validation how often the model prefers the acceptable side of a minimal pair: text "
        "makes pairs from the validation text (is/are, was/were, has/have, this/these, a/an); otherwise a folder of "
        "*.jsonl files, such as BLiMP, or one file")
    valid_pairs_limit: Optional[int] = flag(
        None, "the most pairs of each swap of --valid-pairs text, or of each paradigm of a folder, 2 or more (default: "
        "200; 10 of a folder)")
    compile: bool = flag(False, "torch.compile all encoder layers but the last: takes minutes at the start")
    # fairseq's own settings that the task must see. Without a help text, they are not flags of this plug-in.
    arch: Optional[str] = "${oc.select:model._name,null}"  # fairseq-validate has no model
    seed: int = flag(II("common.seed"), policy=True, study="--seeds")
    tpu: bool = II("common.tpu")
    disable_validation: bool = II("dataset.disable_validation")
    cpu: bool = II("common.cpu")
    train_subset: str = flag(II("dataset.train_subset"), scores=True)
    valid_subset: str = II("dataset.valid_subset")
    save_dir: str = flag(II("checkpoint.save_dir"), study="--out")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    fp16: bool = II("common.fp16")
    amp: bool = II("common.amp")
    store_ema: bool = II("ema.store_ema")
    ema_decay: float = II("ema.ema_decay")
    max_update: int = II("optimization.max_update")
    max_epoch: int = II("optimization.max_epoch")
    update_freq: List[int] = II("optimization.update_freq")


FAIRSEQS_OWN = {field.name for section in dataclasses.fields(FairseqConfig) if dataclasses.is_dataclass(section.type)
                for field in dataclasses.fields(section.type)}  # names that its sections hold already


def registries() -> Tuple[Registry, ...]:
    """Those of the parts that a flag chooses."""
    return SOURCES, SCORES, STRATEGIES, UNITS


def options() -> Dict[str, Option]:
    """{name: Option} of all registered parts."""
    return {name: option for registry in registries() for name, option in registry.options()}


def with_options(config: Type[FairseqDataclass]) -> Type[FairseqDataclass]:
    """The dataclass extended by a field for each option of a registered part; the same class if it has them all."""
    existing = {field.name: field.metadata.get("option") for field in dataclasses.fields(config)}
    existing.update(dict.fromkeys(FAIRSEQS_OWN))
    missing = []
    for registry in registries():
        for name, option in registry.options():
            require(registry.flag, f"an option {name}", existing.get(name, option) is option,
                    "another name: there is a flag of this one")
            if name not in existing:
                existing[name] = option
                missing.append((name, type(option.default), flag(
                    option.default, option.help, policy=True, chooses=True, scores=name in options_of_cached_scores(),
                    option=option)))
    return dataclasses.make_dataclass(config.__name__, missing, bases=(config,)) if missing else config


def options_of_cached_scores() -> Set[str]:
    """The options of the scores that a cache can keep: those that do not learn."""
    return {name for score, entry in SCORES.items() if not is_learned(score) for name in entry.options}


def names_with(trait: str, config: Type[FairseqDataclass] = EntropyMaskedLMConfig) -> Dict[str, Any]:
    """{field: value of the trait} for the fields that have it, options of registered parts included; see `flag`."""
    fields = dataclasses.fields(with_options(config) if config is EntropyMaskedLMConfig else config)
    return {field.name: field.metadata[trait] for field in fields if field.metadata.get(trait)}


def defaults_with(trait: str) -> Dict[str, Any]:
    """{field: its default} for the flags that have a trait, options of registered parts included; see `flag`."""
    fields = dataclasses.fields(with_options(EntropyMaskedLMConfig))
    return {field.name: field.default for field in fields if field.metadata.get(trait)}


def flag_of(name: str) -> str:
    """The command-line flag of a field: mask_prob -> --mask-prob."""
    return "--" + name.replace("_", "-")


def field_of(registry: Registry) -> str:
    """The field whose value is a name in the registry: --mask-score -> mask_score."""
    return registry.flag.removeprefix("--").replace("-", "_")


def policy_of(cfg: Any) -> Policy:
    """The `Policy` that an EntropyMaskedLMConfig describes; where masks are replayed, one that asks for no scores."""
    if cfg.replay_masks:
        corruption = corruption_of(cfg)._replace(mask_prob=PAPERS.mask_prob)  # whatever it is
        return Policy("random", static_masks=cfg.static_masks, **corruption._asdict())
    values = {name: getattr(cfg, name, option.default) for name, option in options().items()}
    return Policy(cfg.mask_strategy, cfg.mask_score, cfg.mask_unit, mask_count=cfg.mask_count,
                  static_masks=cfg.static_masks, guided_fraction=parse_rate(cfg.guided_fraction),
                  guided_by=cfg.guided_by, options=values, **corruption_of(cfg)._asdict())


def plain(cfg: Any) -> Any:
    """The settings as an instance of their dataclass. Reading an attribute from OmegaConf takes ten microseconds, and
    an update reads dozens."""
    return OmegaConf.to_object(cfg) if OmegaConf.is_config(cfg) else cfg


def lengths_of(value: Any, flag: str = "--tokens-per-sample") -> Tuple[int, ...]:
    """The block lengths that a flag gives, ascending.

    Raises:
        UsageError: it gives none.
    """
    try:
        return parse_lengths(value)
    except ValueError:
        raise UsageError(f"{flag}: {value} found, expected 2 or more, or FIRST:LAST, as 32:128") from None


def recorded_lengths(task: Mapping[str, Any]) -> Tuple[int, ...]:
    """The block lengths of the task's settings in a checkpoint, ascending."""
    return lengths_of(task.get("tokens_per_sample", recorded_defaults()["tokens_per_sample"]))


def block_lengths_of(cfg: Any, unigram: Optional[float] = None) -> BlockLengths:
    """How long the blocks of each epoch are. unigram: unigram entropy of the training data in bits; None = unknown.

    Raises:
        UsageError: --tokens-per-sample or --grow-tokens-per-sample cannot be read, or they do not fit together.
    """
    lengths, text = lengths_of(cfg.tokens_per_sample), cfg.grow_tokens_per_sample
    try:
        when = parse_when(text)
    except ValueError:
        raise UsageError(f"--grow-tokens-per-sample: {text} found, expected left, stalled, or ascending fractions of "
                         "the run in (0, 1), as 0.3,0.6") from None
    if len(lengths) > 1 and not isinstance(when, str):
        require("--grow-tokens-per-sample", text, len(when) == len(lengths) - 1,
                f"{len(lengths) - 1} fractions for the lengths {', '.join(map(str, lengths))}")
    return BlockLengths(lengths, when, unigram)


def with_length(cfg: Any, length: int) -> Any:
    """The same settings with blocks of one length."""
    cfg = copy.copy(cfg)
    cfg.tokens_per_sample = length
    return cfg


PAPERS = Corruption(0.15, 0.0, 0.0)  # the paper's: every selected token becomes <mask>
MASK_LATER = Corruption(0.5, 0.1, 0.1)  # of "Mask More and Mask Later"
CORRUPTION_OF_ARCH = {"bert_base_3ml": MASK_LATER, "bertlet_3ml": MASK_LATER}


def corruption_of(cfg: Any) -> Corruption:
    """The `Corruption` of an EntropyMaskedLMConfig: its flags, and the defaults of its arch for those not given.

    Raises:
        UsageError: --mask-prob is not a rate.
    """
    defaults = CORRUPTION_OF_ARCH.get(cfg.arch, PAPERS)
    flags = rate_of("mask_prob", cfg.mask_prob), cfg.leave_unmasked_prob, cfg.random_token_prob
    values: Any = (default if value is None else value for value, default in zip(flags, defaults, strict=True))
    return Corruption(*values)


def rate_of(name: str, value: Any) -> Any:
    """The rate that a flag gives, see `masking.rates`; None stays None.

    Raises:
        UsageError: it is none.
    """
    try:
        return parse_rate(value)
    except ValueError as error:
        raise UsageError(f"{flag_of(name)}: {value} found ({error}), expected a number, or FIRST:LAST") from None


def recorded_guided_fraction(task: Mapping[str, Any]) -> Rate:
    """The rate of --guided-fraction of the task's settings in a checkpoint, a dict; 1 in those older than the flag."""
    return rate_of("guided_fraction", task.get("guided_fraction", 1.0))


def recorded_corruption(task: Mapping[str, Any]) -> Corruption:
    """The `Corruption` of the task's settings in a checkpoint, a dict."""
    return corruption_of(SimpleNamespace(**{name: task.get(name) for name in (*Corruption._fields, "arch")}))


def parts_of(cfg: Any) -> Tuple[Tuple[Registry, str], ...]:
    """(registry, name) of each part that the flags choose."""
    return tuple((registry, getattr(cfg, field_of(registry))) for registry in registries())


def unused_options(cfg: Any) -> Set[str]:
    """The options of registered parts that the policy does not consist of."""
    used = {name for registry, part in parts_of(cfg) if part in registry for name in registry[part].options}
    return options().keys() - used


def recorded_defaults() -> Dict[str, Any]:
    """{field: default} of the policy: checkpoints of older versions do not hold all of them."""
    return {field.name: field.default for field in dataclasses.fields(EntropyMaskedLMConfig)
            if field.metadata.get("policy") and "help" in field.metadata}


OWN = {"current": "self", "ema": "ema"}  # --self-mask-model: source


def source_schedule(task: Mapping[str, Any]) -> SourceSchedule:
    """Whose predictions score the tokens in which epoch. task: its settings, as a checkpoint holds them."""
    if task.get("replay_masks") or not schedule.is_scored(task["mask_strategy"]):
        return schedule.RANDOM
    first, switch = task.get("mask_source", "teacher"), task["self_mask_from_epoch"]
    if is_learned(task.get("mask_score", "entropy")):  # by the model being trained, and no other
        first, switch = None, switch or 1
    elif switch is not None and not task["teacher"] and "teacher" in models_read(first):
        first = None
    return SourceSchedule(first, OWN[task.get("self_mask_model", "current")], switch)


def teacher_chooses_masks(task: Mapping[str, Any]) -> bool:
    """Whether the teacher's scores choose the masks of any epoch. task: its settings."""
    return "teacher" in models_read(source_schedule(task).at(1))


def uses_ema(task: Mapping[str, Any]) -> bool:
    """Whether the scores of the model's average choose the masks of any epoch. task: its settings."""
    return any("ema" in models_read(source) for source in source_schedule(task).used())


