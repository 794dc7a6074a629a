"""Contextual scores (--entropy-folds): what they cost, and how they differ from the scores of visible tokens.

Shapes: T positions.
"""

import logging
from typing import Any, List, Optional, Tuple

import numpy as np
import torch
from scipy import stats  # fairseq needs scikit-learn, and that scipy

from .cache.building import scores_of_blocks
from .cache.store import EntropyStore
from .schedule import SourceSchedule
from .scorer import Scorer
from .sources import models_read

logger = logging.getLogger(__name__)

SAMPLE_BLOCKS = 64


def log_cost(cfg: Any, sources: SourceSchedule) -> None:
    """Log what --entropy-folds costs, or that it has no effect. cfg: an EntropyMaskedLMConfig."""
    reads = {model for name in sources.used() for model in models_read(name)}
    costs = []
    if "teacher" in reads:
        costs.append("of the teacher, once over the data, since --entropy-cache keeps its scores" if cfg.entropy_cache
                     else "of the teacher, in each update (once over the data with --entropy-cache)")
    if reads & {"self", "ema"}:
        costs.append("of the model being trained, in each update that computes its scores")
    if costs:
        logger.info(f"--entropy-folds {cfg.entropy_folds}: a scoring pass runs the layers {cfg.entropy_folds} times "
                    f"instead of once: {'; '.join(costs)}")
    else:
        logger.warning("--entropy-folds has no effect: with these flags, no model scores the tokens")


def compare_with_visible(samples: Any, store: EntropyStore, scorer: Scorer, model: Any, longest: int,
                         device: torch.device) -> Tuple[float, int]:
    """How alike a store of contextual scores and the scores of visible tokens rank the tokens of a sequence.

    Args:
        samples: the data set, a `training.blocks.Samples`.
        store: the complete scores of its blocks.
        scorer: the one that computed them.
        model: likewise, on the device.
        longest: tokens of the longest block that is scored.
        device: where to compute.
    Returns:
        the mean of Spearman's rank correlation over the maskable tokens of each of up to SAMPLE_BLOCKS blocks, evenly
        spaced over the data, and the number of blocks in the mean: those in which it is defined. nan if there are none.
    """
    places = np.linspace(0, len(samples) - 1, min(SAMPLE_BLOCKS, len(samples)), dtype=np.int64)
    blocks = [i for i in places.tolist() if samples.sizes[i] <= longest]
    visible = scorer.of_visible_tokens()
    correlations: List[Optional[float]] = []
    for i, scores in zip(blocks, scores_of_blocks(samples, blocks, lambda batch: visible.exact(model, batch), device)):
        maskable = samples.maskable(samples.blocks[i]).numpy()
        correlations.append(rank_correlation(scores[maskable], store.read(i)[maskable]))
    defined = [correlation for correlation in correlations if correlation is not None]
    return (float(np.mean(defined)) if defined else float("nan")), len(defined)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> Optional[float]:
    """Spearman's rank correlation of two arrays of T numbers, ties with their average rank; None where it is not
    defined: all numbers of one of them are equal, or there are fewer than two."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    result: Any = stats.spearmanr(one, other)
    return float(result.statistic)
