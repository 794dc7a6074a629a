"""The task: clean blocks of text, and the batch hook that masks each batch.

    1. scores   of the teacher's or the model's own predictions on the clean tokens, or none
    2. masked   positions chosen by the policy, corrupted src_tokens, target
    3. step     criterion and backward pass on the masked sample

Shapes: B sentences, T positions, C width, V vocabulary, K positions.
"""

import functools
import logging
import math
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
from fairseq import utils
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.tasks import TASK_DATACLASS_REGISTRY, register_task
from fairseq.tasks.masked_lm import MaskedLMTask
from hydra.core.config_store import ConfigStore
from torch import Tensor

from .checkpoints.vocabulary import RECORD, read_dictionary_of_shards
from .config import (
    EntropyMaskedLMConfig,
    block_lengths_of,
    names_with,
    plain,
    policy_of,
    source_schedule,
    uses_ema,
    with_length,
    with_options,
)
from .evaluation.shorter_blocks import in_shorter_blocks
from .fairseq_fixes.ranks import refuse_unconnected_ranks
from .fairseq_fixes.yaml_numbers import refuse_numbers_in_base_60
from .flag_checks import check_flags, check_growth, check_policy, warn_of_unused_flags
from .masking import corruption, noise
from .masking.devices import to_device_async
from .masking.masker import Masker
from .masking.scores import Learner, Scores
from .masking.statistics import SUMS, mask_statistics
from .masking.take import number_to_mask, take
from .masking.vocabulary import Vocabulary
from .masking.when import When
from .models.positions import SelectedPositions
from .pretrained.initialization import initialize_from, log_copied_tensors, read_source
from .pretrained.restore import check_restored_shapes, read_restore_file
from .pretrained.teacher import load_teacher
from .recording.attaching import attach_recordings
from .recording.replay import Replay
from .recording.writer import MaskRecorder
from .scoring import contextual, learners, schedule
from .scoring.cache.attaching import attach_entropies
from .scoring.precision import autocast
from .scoring.schedule import SourceSchedule
from .scoring.scorer import Scorer
from .scoring.sources import SOURCES, models_read, refuse_nan
from .system.errors import UsageError, require
from .training import block_lengths, plateau
from .training.blocks import load_samples, some_rows, special_symbols

logger = logging.getLogger(__name__)

TASK = "entropy_masked_lm"
VALID_MASK_PROB = 0.15  # whatever --mask-prob is, so that validation losses are comparable between runs
Sample = Dict[str, Any]  # a batch, as `training.blocks` collates it


@register_task(TASK, dataclass=with_options(EntropyMaskedLMConfig))
class EntropyMaskedLMTask(MaskedLMTask):
    """Masked language modelling with masks chosen by entropy.

    Args:
        cfg: an EntropyMaskedLMConfig.
        dictionary: fairseq's, with <mask>.
    Raises:
        UsageError: names the first flag with a wrong value.
    """

    cfg: Any  # an EntropyMaskedLMConfig, not the base class's
    teacher: Any  # a frozen model, or None

    def __init__(self, cfg: Any, dictionary: Any = None):
        check_flags(cfg)
        super().__init__(plain(cfg), dictionary)
        self.epoch = 1  # set by begin_epoch
        self.teacher = self.restored = None  # see setup_task
        self.learner: Optional[Learner] = None  # see build_model
        self.recorder: Optional[MaskRecorder] = None  # see load_dataset
        self.replay: Optional[Replay] = None  # likewise
        self.pairs: Any = None  # likewise
        self.pair_sums: Dict[str, float] = {}  # set by begin_valid_epoch
        self.trains, self.sources = False, {}
        self.updates_per_epoch = 0  # set by get_batch_iterator
        specials = set(special_symbols(self.dictionary).tolist())
        self.ordinary = torch.tensor([i for i in range(len(self.dictionary)) if i not in specials])
        self.block_lengths = block_lengths_of(cfg, self.unigram_entropy())
        self.length = self.block_lengths.longest  # positions of a training block, set by load_dataset

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """The flags. One block length is a number as in YAML: fairseq's own archs calculate with it."""
        super().add_args(parser)
        action = next(action for action in parser._actions if action.dest == "tokens_per_sample")
        action.type = block_lengths.as_setting

    @classmethod
    def setup_task(cls, cfg: Any, from_checkpoint: bool = False, **kwargs: Any) -> "EntropyMaskedLMTask":
        """Build the task; for training, with its teacher. from_checkpoint: a checkpoint is loaded for something else.

        Raises:
            UsageError: a flag, the data, the teacher or the checkpoint to resume from cannot be used.
        """
        task = super().setup_task(cfg, **kwargs)
        if not from_checkpoint:
            refuse_numbers_in_base_60(names_with("rate"))
            check_policy(task.cfg, task.dictionary.symbols)
            check_growth(task.cfg, task.unigram_entropy())
            refuse_unconnected_ranks()
            warn_of_unused_flags(task.cfg)
            if task.cfg.entropy_folds > 1 and not task.cfg.replay_masks:
                contextual.log_cost(task.cfg, task.sources_by_epoch)
            task.trains, task.restored = True, read_restore_file(task)
            task.teacher = load_teacher(cfg.teacher, task) if cfg.teacher else None
            logger.info(plateau.unigram_message(task.unigram_entropy()))
        return task

    @classmethod
    def load_dict(cls, cfg: Any) -> Any:
        """The dictionary of the data, with <mask>.

        Raises:
            UsageError: it is missing or damaged, or differs between shards.
        """
        return read_dictionary_of_shards(utils.split_paths(cfg.data))

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's model, for training compiled and initialized as the flags say.

        Raises:
            UsageError: the arch cannot do what a flag asks for, or does not match the checkpoint to resume from.
        """
        if isinstance(getattr(cfg, "tokens_per_sample", None), str):  # fairseq's own archs make positions of it
            cfg.tokens_per_sample = self.max_positions()
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.compile and not from_checkpoint:
            require("--compile", f"--arch {cfg._name}", hasattr(model, "compile_layers"), "one of this plug-in's archs")
            model.compile_layers()
        if self.cfg.init_from and self.trains and not from_checkpoint:
            self.initialize(model)
        if self.restored is not None and not from_checkpoint:
            check_restored_shapes(self.restored, model)
        if self.trains and not from_checkpoint:
            self.learner = learners.new_learner(self.cfg, policy_of(self.cfg), model, len(self.dictionary))
        return model

    def initialize(self, model: Any) -> None:
        """Copy the weights that the model has in common with --init-from, at the start of a run.

        Raises:
            UsageError: the source cannot be read, or does not match the model.
        """
        if self.restored is not None:
            logger.info("--init-from: not read again, the run resumes from a checkpoint")
            return
        require("--init-from", type(model).__name__, hasattr(model, "lm_hidden"), "an --arch of this plug-in")
        layers = self.cfg.init_layers and [int(layer) for layer in self.cfg.init_layers.split(",")]
        source = read_source(self.cfg.init_from, self)
        log_copied_tensors(source, initialize_from(source, model, layers))

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's criterion.

        Raises:
            UsageError: it is not a masked language model's.
        """
        name = cfg._name  # fairseq's default would average over all tokens instead of the masked ones
        require("--criterion", name, name in ("entropy_masked_lm", "masked_lm"), "entropy_masked_lm (or masked_lm)")
        require("--criterion", f"{name} with --mask-score {self.cfg.mask_score}",
                self.learner is None or name == "entropy_masked_lm", "entropy_masked_lm, which shows the answers")
        return super().build_criterion(cfg, from_checkpoint)

    # ---- data

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split as clean blocks, in the training split with the entropies from the cache.

        Raises:
            UsageError: there is no such split, it is damaged, or there is nothing to mask.
        """
        trains = self.trains and split == self.cfg.train_subset
        length = self.begin_blocks(epoch) if trains else self.max_positions()
        samples: Any = load_samples(with_length(self.cfg, length), self.dictionary, split, epoch, combine)
        first = (samples[i]["src_tokens"] for i in range(min(len(samples), 1000)))
        if not any(samples.dataset.maskable(tokens).any() for tokens in first):
            raise UsageError(f"data: {split} in {self.cfg.data} begins with 1,000 sequences without anything to mask, "
                             "expected text in the symbols of dict.txt (is all of it <unk>?)")
        self.datasets[split] = samples
        if self.cfg.entropy_cache and split == self.cfg.train_subset:
            attach_entropies(self, samples.dataset, split, epoch, length)
        if trains:
            attach_recordings(self, samples.dataset, split, epoch)
        if self.trains and self.cfg.valid_pairs and split == self.cfg.valid_subset.split(",")[0]:
            from .evaluation.during_training import valid_pairs  # here, so that other trainings need no tokenizers

            self.pairs = valid_pairs(self.cfg, self.dictionary, samples.dataset.blocks)

    def begin_blocks(self, epoch: int) -> int:
        """Set and return the length of the blocks of an epoch, see `training.block_lengths`."""
        self.length = self.block_lengths.begin_epoch(epoch, self.cfg.max_update, self.cfg.max_epoch)
        if self.block_lengths.grows:
            logger.info(f"epoch {epoch}: blocks of {self.length} positions (--tokens-per-sample "
                        f"{self.cfg.tokens_per_sample})")
        return self.length

    def max_positions(self) -> int:
        """Positions of the longest block, which the model and the teacher must have."""
        return self.block_lengths.longest

    def has_sharded_data(self, split: str) -> bool:
        """Whether fairseq is to load the data anew in each epoch: other shards, or blocks that may be longer."""
        return super().has_sharded_data(split) or self.block_lengths.grows

    def scoring_device(self) -> torch.device:
        """Where scores are computed before the training starts: fairseq has not moved anything to the GPU yet."""
        on_gpu = torch.cuda.is_available() and not self.cfg.cpu
        return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's iterator over the batches of an epoch; remembers how many updates a training epoch takes."""
        trains = self.trains and dataset is self.datasets.get(self.cfg.train_subset)
        if trains and kwargs.get("max_sentences"):  # as many tokens in every batch, whatever the length of the blocks
            kwargs["max_sentences"] = kwargs["max_sentences"] * self.max_positions() // self.length
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if trains:
            self.updates_per_epoch = -(-len(iterator) // self.cfg.update_freq[0])
            if self.recorder is not None:
                self.recorder.flush()  # fairseq asks for the next epoch at the end of each, the last one too
        return iterator

    def get_checkpoint_dict(self) -> Dict[str, Any]:
        """What a checkpoint contains of the task: the symbols of its vocabulary."""
        return {RECORD: list(self.dictionary.symbols)}

    def before_checkpoint(self) -> None:
        """Write all masks that were recorded, on every rank, so that a resumed run finds those before its checkpoint.
        """
        if self.recorder is not None:
            self.recorder.flush()
            wait_for_ranks(self.scoring_device())

    def learned_state(self) -> Dict[str, Any]:
        """What a checkpoint contains of a score that learns, and of blocks that grow."""
        blocks = self.block_lengths.state_dict()
        return {**learners.learned_state(self.learner, self.cfg), **({block_lengths.STATE: blocks} if blocks else {})}

    def load_learned_state(self, state: Dict[str, Any]) -> None:
        """Resume from the `learned_state` of a checkpoint."""
        learners.load_learned_state(self.learner, self.cfg, state)
        self.block_lengths.load_state_dict(state.get(block_lengths.STATE, {}))

    # ---- the batch hook

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Remember the epoch, counted from 1, move the learner to the model's device, read the masks to replay."""
        super().begin_epoch(epoch, model)
        self.epoch = epoch  # set, not counted: fairseq calls this again after resuming within an epoch
        if self.learner is not None:
            self.learner.to(next(model.parameters()).device)
        if self.replay is not None:
            self.replay.begin_epoch(epoch)

    @functools.cached_property  # fairseq asks in each update
    def uses_ema(self) -> bool:
        """Whether fairseq hands over the model's average in each update (--store-ema)."""
        return uses_ema(vars(self.cfg))

    def train_step(self, sample: Sample, model: Any, criterion: Any, optimizer: Any, update_num: int,
                   ignore_grad: bool = False, ema_model: Any = None) -> Tuple[Tensor, int, Dict[str, Any]]:
        """fairseq's step on a masked sample. Returns loss, sample size, and the logging output with the sums of
        `mask_statistics`."""
        when = self.when(update_num)
        # A rank that has run out of batches repeats one, of training or validation, and ignores its gradient.
        scores = None if ignore_grad else self.score(sample, model, when, ema_model)
        if self.replay is not None and not ignore_grad:
            sample = self.replay.with_masks(sample)
        masked, statistics = self.mask(sample, scores, when)
        if self.recorder is not None and not ignore_grad:
            self.recorder.record(when, sample["ids"], masked["selected"].mask)
        if self.learner is not None and not ignore_grad:
            masked["learner"] = self.learner
        loss, sample_size, logging_output = super().train_step(
            masked, model, self.in_precision(criterion), optimizer, update_num, ignore_grad
        )
        return loss, sample_size, {**logging_output, **statistics}

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """fairseq's, once in an update on every rank; then the learner's."""
        super().optimizer_step(optimizer, model, update_num)
        self.block_lengths.updates = update_num + 1
        if self.learner is not None:
            self.learner.update(update_num, sum_over_ranks)

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Score the minimal pairs of --valid-pairs."""
        super().begin_valid_epoch(epoch, model)
        if self.pairs is not None:
            from .evaluation.during_training import accuracy_sums

            self.pair_sums = accuracy_sums(self.pairs, model)

    def valid_step(self, sample: Sample, model: Any, criterion: Any,
                   ema_model: Any = None) -> Tuple[Tensor, int, Dict[str, Any]]:
        """fairseq's step on random masks, the same for every policy, epoch and run. While the blocks of the training
        are shorter, the logging output also has short_loss and short_size, of the same masks in such blocks. Each step
        logs all minimal pairs: their ratio is the same however often it is added up, and fairseq drops what a rank
        without a batch logs."""
        masked, criterion = self.mask_for_validation(sample), self.in_precision(criterion)
        loss, sample_size, logging_output = super().valid_step(masked, model, criterion)
        if self.length < self.max_positions():
            shorter = in_shorter_blocks(masked, self.length, self.dictionary.pad())
            _, _, short = super().valid_step(shorter, model, criterion)
            logging_output = {**logging_output, "short_loss": short["loss"], "short_size": short["sample_size"]}
        return loss, sample_size, {**logging_output, **self.pair_sums}

    def when(self, update_num: int) -> When:
        """The time of an update, for the policy."""
        cfg = self.cfg
        total = schedule.total_updates(cfg.max_update, cfg.max_epoch, self.updates_per_epoch)
        return When(self.epoch, update_num, min(1.0, update_num / total) if total else 0.0)

    def score(self, sample: Sample, model: Any, when: When, ema_model: Any = None) -> Optional[Scores]:
        """The scores of this epoch's source on the clean tokens, B x T, or on those of the sentences whose masks follow
        the scores; None where no masks do."""
        name = self.sources_by_epoch.at(when.epoch)
        if name is None:
            return None
        rows = self.masker.guided_rows(sample["ids"], when)
        if rows is not None and not len(rows):
            return None
        is_first = name not in self.sources
        if is_first:
            self.sources[name] = SOURCES[name].fn(self)
        reference = ema_model if "ema" in models_read(name) else model
        guided = sample if rows is None else some_rows(sample, rows)
        scores = self.sources[name](guided, reference, when)
        if is_first:
            refuse_nan(scores.values, guided["maskable"], name)  # once: on a GPU, the host waits for it
        return scores if rows is None else scores._replace(rows=to_device_async(rows, scores.values.device))

    @functools.cached_property
    def sources_by_epoch(self) -> SourceSchedule:
        """Whose predictions score the tokens in which epoch."""
        return source_schedule(vars(self.cfg))

    @functools.cached_property
    def scorer(self) -> Scorer:
        """Scores clean tokens with any model, by --mask-score, --entropy-folds, --precision and --entropy-precision.
        """
        policy = policy_of(self.cfg)
        return Scorer(policy.score, self.cfg.precision, self.cfg.entropy_precision, policy.options,
                      is_refined=not policy.needs_exact_scores, n_folds=self.cfg.entropy_folds,
                      mask_idx=self.mask_idx, learner=self.learner)

    @functools.cached_property
    def masker(self) -> Masker:
        """Created at its first use, so that a checkpoint loads without the parts it was trained with."""
        vocabulary = Vocabulary(self.mask_idx, self.dictionary.pad(), self.ordinary, self.dictionary.symbols)
        return Masker(policy_of(self.cfg), vocabulary, self.cfg.seed)

    def mask(self, sample: Sample, scores: Optional[Scores], when: When) -> Tuple[Sample, Dict[str, Any]]:
        """A new sample with masks, and the sums of `mask_statistics`. The sample itself stays clean: fairseq reuses it.
        """
        tokens, maskable = sample["net_input"]["src_tokens"], sample["maskable"]
        if "recorded_mask" in sample:
            recorded = sample["recorded_mask"], sample["recorded_counts"]
            masked = self.masker.mask_at(tokens, sample["id"], *recorded, when)
        else:
            masked = self.masker(tokens, sample["id"], maskable, scores, when, sample["n_maskable"])
        counts = None if masked.counts is None else masked.counts.numpy()
        new = with_masks(sample, masked.src_tokens, masked.target, SelectedPositions(masked.selected, counts))
        statistics = mask_statistics(sum(sample["n_maskable"]), new["selected"].number, maskable, masked,
                                     self.masker.is_partly_guided)
        return new, statistics

    def mask_for_validation(self, sample: Sample) -> Sample:
        """A new sample with random masks that depend on nothing but the sample id."""
        tokens = sample["net_input"]["src_tokens"]
        priority = noise.uniform(0, 0, sample["id"], tokens.size(1), noise.VALIDATION)
        k = number_to_mask(torch.tensor(sample["n_maskable"]), VALID_MASK_PROB)
        selected = take(priority, sample["maskable"], to_device_async(k, tokens.device))
        src_tokens, target = corruption.corrupt(tokens, selected, self.mask_idx, self.dictionary.pad())
        return with_masks(sample, src_tokens, target, SelectedPositions(selected, k.numpy()))

    def teacher_on(self, device: torch.device) -> Any:
        """The teacher, moved to the device at its first use."""
        if next(self.teacher.parameters()).device != device:  # `to` visits every parameter, 0.3 ms in each update
            self.teacher.to(device)
        return self.teacher

    def teacher_logits(self, net_input: Dict[str, Any], positions: SelectedPositions) -> Tensor:
        """The teacher's logits at K positions of the masked sequences: K x V."""
        device = net_input["src_tokens"].device
        with torch.no_grad(), autocast(device, self.cfg.precision):
            return self.teacher_on(device)(**net_input, masked_tokens=positions)[0]

    def in_precision(self, criterion: Any) -> Callable[[Any, Sample], Any]:
        """The criterion under autocast. Autocast around train_step would have no effect: fairseq disables it there
        unless --amp is given."""

        def compute(model, sample):
            with autocast(sample["target"].device, self.cfg.precision):
                return criterion(model, sample)

        return compute

    # ---- log

    def unigram_entropy(self) -> Optional[float]:
        """Unigram entropy of the training data in bits, by the counts in dict.txt; None where it has no counts."""
        return plateau.unigram_entropy([self.dictionary.count[i] for i in self.ordinary.tolist()])

    def post_validate(self, model: Any, stats: Dict[str, Any], agg: Any) -> None:
        """Log how far the validation loss is below the unigram entropy, warn where it is on the plateau, and remember
        it: blocks may grow with it."""
        loss, unigram = float(stats.get("short_loss", stats["loss"])), self.unigram_entropy()
        self.block_lengths.record_loss(self.epoch, int(stats.get("num_updates", 0)), loss)
        if unigram is None:
            return
        stats["bits_below_unigram"] = round(unigram - loss, 3)
        if plateau.is_on_plateau(loss, unigram):
            logger.warning(plateau.plateau_warning(loss, unigram, self.block_lengths.lengths))

    def reduce_metrics(self, logging_outputs: Sequence[Dict[str, Any]], criterion: Any) -> None:
        """Log mask_rate, guided, the mean score of all maskable and of the masked tokens (entropies in nats), and in
        validation the accuracy on minimal pairs."""
        super().reduce_metrics(logging_outputs, criterion)
        keys = (*SUMS, "short_loss", "short_size", "pairs_correct", "n_pairs")
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in keys}
        log_ratio("short_loss", total["short_loss"] / math.log(2), total["short_size"])
        log_ratio("pairs_accuracy", total["pairs_correct"], total["n_pairs"])
        log_ratio("mask_rate", total["n_selected"], total["n_maskable"])
        if schedule.is_scored(self.cfg.mask_strategy) and not self.cfg.replay_masks:
            log_ratio("guided", total["n_guided"], total["n_selected"])
        source = self.sources_by_epoch.at(self.epoch)
        is_entropy = self.cfg.mask_score == "entropy" and models_read(source)  # validation works without the source
        name = "entropy" if is_entropy else "score"
        log_ratio(name, total["entropy_sum"], total["n_scored"])
        log_ratio(f"{name}_masked", total["entropy_masked_sum"], total["n_scored_selected"])


def add_flags_of_parts() -> None:
    """Add the options of parts that were registered after the task to the task's flags."""
    current = TASK_DATACLASS_REGISTRY[TASK]
    config = with_options(current)
    if config is current:
        return
    TASK_DATACLASS_REGISTRY[TASK] = config
    setattr(EntropyMaskedLMTask, "__dataclass", config)  # as `register_task` does: the parser looks there
    node = config()
    node._name = TASK
    ConfigStore.instance().store(name=TASK, group="task", node=node, provider="fairseq")


def with_masks(sample: Sample, src_tokens: Tensor, target: Tensor, selected: SelectedPositions) -> Sample:
    """A new sample with corrupted tokens and targets, B x T int64 each, and the positions to be predicted."""
    return {**sample, "net_input": {**sample["net_input"], "src_tokens": src_tokens}, "target": target,
            "selected": selected}


def sum_over_ranks(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all ranks."""
    if torch.distributed.is_initialized():
        distributed_utils.all_reduce(tensor, distributed_utils.get_data_parallel_group())


def wait_for_ranks(device: torch.device) -> None:
    """Return when every rank has come here. device: where ranks exchange tensors."""
    total = torch.zeros(1, device=device)
    sum_over_ranks(total)
    total.item()  # on a GPU, only this waits


def log_ratio(name: str, total: Any, count: Any) -> None:
    """Log total / count, weighted by count."""
    if count > 0:  # without a count, the mean is unknown: a zero would mislead
        metrics.log_scalar(name, total / count, count, round=3)
