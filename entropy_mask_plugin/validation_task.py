"""Validation that compares between runs: random masks, the same for every policy; the unigram plateau; minimal pairs.

Shapes: B sentences, T positions.
"""

import logging
import math
from typing import Any, Callable, Dict, Sequence, Tuple

import torch
from fairseq.logging import metrics
from torch import Tensor

from .evaluation.shorter_blocks import in_shorter_blocks
from .masking import corruption, noise
from .masking.devices import to_device_async
from .masking.take import number_to_mask, take
from .models.positions import SelectedPositions
from .scoring.precision import autocast
from .system.errors import require
from .text_task import TextTask
from .training import plateau
from .training.blocks import with_masks

logger = logging.getLogger(__name__)

VALID_MASK_PROB = 0.15  # whatever --mask-prob is, so that validation losses are comparable between runs
SUMS = ("short_loss", "short_size", "pairs_correct", "n_pairs")  # keys of the logging output
Sample = Dict[str, Any]  # a batch, as `training.blocks` collates it


class ValidationTask(TextTask):
    """Validates on random masks. Arguments as for `TextTask`."""

    def __init__(self, cfg: Any, dictionary: Any = None):
        super().__init__(cfg, dictionary)
        self.epoch = 1  # of the training, set by begin_epoch
        self.pairs: Any = None  # see load_dataset
        self.pair_sums: Dict[str, float] = {}  # set by begin_valid_epoch

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split as clean blocks; with the first validation split, the minimal pairs of --valid-pairs.

        Raises:
            UsageError: as `TextTask.load_dataset`, or there are no pairs.
        """
        super().load_dataset(split, epoch, combine, **kwargs)
        if self.trains and self.cfg.valid_pairs and split == self.cfg.valid_subset.split(",")[0]:
            from .evaluation.during_training import valid_pairs  # here, so that other trainings need no tokenizers

            self.pairs = valid_pairs(self.cfg, self.dictionary, self.datasets[split].dataset.blocks,
                                     self.max_positions())

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Remember the epoch, counted from 1."""
        super().begin_epoch(epoch, model)
        self.epoch = epoch  # set, not counted: fairseq calls this again after resuming within an epoch

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

    def mask_for_validation(self, sample: Sample) -> Sample:
        """A new sample with random masks that depend on nothing but the sample id."""
        tokens = sample["net_input"]["src_tokens"]
        priority = noise.uniform(0, 0, sample["id"], tokens.size(1), noise.VALIDATION)
        k = number_to_mask(torch.tensor(sample["n_maskable"]), VALID_MASK_PROB)
        selected = take(priority, sample["maskable"], to_device_async(k, tokens.device))
        src_tokens, target = corruption.corrupt(tokens, selected, self.mask_idx, self.dictionary.pad())
        return with_masks(sample, src_tokens, target, SelectedPositions(selected, k.numpy()))

    def in_precision(self, criterion: Any) -> Callable[[Any, Sample], Any]:
        """The criterion under autocast. Autocast around train_step would have no effect: fairseq disables it there
        unless --amp is given."""

        def compute(model, sample):
            with autocast(sample["target"].device, self.cfg.precision):
                return criterion(model, sample)

        return compute

    def post_validate(self, model: Any, stats: Dict[str, Any], agg: Any) -> None:
        """Log how far the validation loss is below the unigram entropy, warn where it is on the plateau, and remember
        it: blocks may grow with it.

        Raises:
            UsageError: --best-checkpoint-metric is none of the stats, which fairseq reads next.
        """
        loss, unigram = float(stats.get("short_loss", stats["loss"])), self.unigram_entropy()
        self.block_lengths.record_loss(self.epoch, int(stats.get("num_updates", 0)), loss)
        if unigram is not None:
            stats["bits_below_unigram"] = round(unigram - loss, 3)
            if plateau.is_on_plateau(loss, unigram):
                logger.warning(plateau.plateau_warning(loss, unigram, self.block_lengths.lengths))
        metric = self.cfg.best_checkpoint_metric
        require("--best-checkpoint-metric", metric, metric in stats, f"one of {', '.join(sorted(stats))}")

    def reduce_metrics(self, logging_outputs: Sequence[Dict[str, Any]], criterion: Any) -> None:
        """Log short_loss (bits) and pairs_accuracy where there are any."""
        super().reduce_metrics(logging_outputs, criterion)
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in SUMS}
        log_ratio("short_loss", total["short_loss"] / math.log(2), total["short_size"])
        log_ratio("pairs_accuracy", total["pairs_correct"], total["n_pairs"])


def log_ratio(name: str, total: Any, count: Any) -> None:
    """Log total / count, weighted by count."""
    if count > 0:  # without a count, the mean is unknown: a zero would mislead
        metrics.log_scalar(name, total / count, count, round=3)
