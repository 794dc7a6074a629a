"""The task: clean blocks of text, and the batch hook that masks each batch.

    1. scores   of the teacher's or the model's own predictions on the clean tokens, or none
    2. masked   positions chosen by the policy, corrupted src_tokens, target
    3. step     criterion and backward pass on the masked sample

Shapes: B sentences, T positions, C width, V vocabulary, K positions.
"""

import functools
import logging
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.tasks import TASK_DATACLASS_REGISTRY, register_task
from hydra.core.config_store import ConfigStore
from torch import Tensor

from .checkpoints.vocabulary import RECORD
from .config import EntropyMaskedLMConfig, names_with, plain, policy_of, source_schedule, uses_ema, with_options
from .fairseq_fixes.late_norm import name_update
from .fairseq_fixes.ranks import refuse_unconnected_ranks
from .fairseq_fixes.yaml_numbers import refuse_numbers_in_base_60
from .flag_checks import check_device, check_flags, check_growth, check_policy, warn_of_unused_flags
from .masking.devices import to_device_async
from .masking.masker import Masker
from .masking.scores import Learner, Scores
from .masking.statistics import SUMS, mask_statistics
from .masking.strategies import NotFinite
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
from .training import plateau
from .training.blocks import some_rows, with_masks
from .validation_task import Sample, ValidationTask, log_ratio

logger = logging.getLogger(__name__)

TASK = "entropy_masked_lm"


@register_task(TASK, dataclass=with_options(EntropyMaskedLMConfig))
class EntropyMaskedLMTask(ValidationTask):
    """Masked language modelling with masks chosen by entropy.

    Args:
        cfg: an EntropyMaskedLMConfig.
        dictionary: fairseq's, with <mask>.
    Raises:
        UsageError: names the first flag with a wrong value.
    """

    teacher: Any  # a frozen model, or None

    def __init__(self, cfg: Any, dictionary: Any = None):
        check_flags(cfg)
        super().__init__(plain(cfg), dictionary)
        self.teacher = self.restored = None  # see setup_task
        self.learner: Optional[Learner] = None  # see build_model
        self.recorder: Optional[MaskRecorder] = None  # see load_dataset
        self.replay: Optional[Replay] = None  # likewise
        self.sources: Dict[str, Any] = {}  # by name, made at their first use

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
            check_device(task.cfg)
            check_growth(task.cfg, task.unigram_entropy())
            refuse_unconnected_ranks()
            warn_of_unused_flags(task.cfg)
            if task.cfg.entropy_folds > 1 and not task.cfg.replay_masks:
                contextual.log_cost(task.cfg, task.sources_by_epoch)
            task.trains, task.restored = True, read_restore_file(task)
            task.teacher = load_teacher(cfg.teacher, task) if cfg.teacher else None
            logger.info(plateau.unigram_message(task.unigram_entropy()))
        return task

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
        """Load a split as clean blocks, the training split with scores from the cache and with recorded masks.

        Raises:
            UsageError: there is no such split, or nothing to mask; it, a cache or a recording is damaged.
        """
        super().load_dataset(split, epoch, combine, **kwargs)
        samples = self.datasets[split].dataset
        if self.cfg.entropy_cache and split == self.cfg.train_subset:
            attach_entropies(self, samples, split, epoch, self.length)
        if self.trains_on(split):
            attach_recordings(self, samples, split, epoch)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's iterator over the batches of an epoch; ends the recording of the epoch before it.

        Raises:
            UsageError: all blocks of the training data are longer than --max-tokens, so that fairseq would drop them.
        """
        if dataset is self.datasets.get(self.cfg.train_subset):
            most = kwargs.get("max_tokens")
            if most is not None:
                shortest = int(dataset.sizes.min())
                require("--max-tokens", most, shortest <= most, f"at least the {shortest} tokens of the shortest block")
            if self.recorder is not None:
                self.recorder.flush()  # fairseq asks for the next epoch at the end of each, the last one too
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def scoring_device(self) -> torch.device:
        """Where scores are computed before the training starts: fairseq has not moved anything to the GPU yet."""
        on_gpu = torch.cuda.is_available() and not self.cfg.cpu
        return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

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
        """What a checkpoint contains of a score that learns, too."""
        return {**super().learned_state(), **learners.learned_state(self.learner, self.cfg)}

    def load_learned_state(self, state: Dict[str, Any]) -> None:
        """Resume from the `learned_state` of a checkpoint."""
        super().load_learned_state(state)
        learners.load_learned_state(self.learner, self.cfg, state)

    # ---- the batch hook

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Move the learner to the model's device, read the masks to replay."""
        super().begin_epoch(epoch, model)
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
        if self.learner is not None:
            self.learner.update(update_num, sum_over_ranks)

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
            try:
                masked = self.masker(tokens, sample["id"], maskable, scores, when, sample["n_maskable"])
            except NotFinite as error:  # a GPU does not wait for this check: see late_log
                raise UsageError(f"{error}, in {name_update(when.update + 1, sample['ids'])}") from error
        counts = None if masked.counts is None else masked.counts.numpy()
        new = with_masks(sample, masked.src_tokens, masked.target, SelectedPositions(masked.selected, counts))
        statistics = mask_statistics(sum(sample["n_maskable"]), new["selected"].number, maskable, masked,
                                     self.masker.is_partly_guided)
        return new, statistics

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

    # ---- log

    def reduce_metrics(self, logging_outputs: Sequence[Dict[str, Any]], criterion: Any) -> None:
        """Log mask_rate, guided, and the mean score of all maskable and of the masked tokens (entropies in nats)."""
        super().reduce_metrics(logging_outputs, criterion)
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in SUMS}
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


def sum_over_ranks(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all ranks."""
    if torch.distributed.is_initialized():
        distributed_utils.all_reduce(tensor, distributed_utils.get_data_parallel_group())


def wait_for_ranks(device: torch.device) -> None:
    """Return when every rank has come here. device: where ranks exchange tensors."""
    total = torch.zeros(1, device=device)
    sum_over_ranks(total)
    total.item()  # on a GPU, only this waits
