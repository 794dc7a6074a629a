"""Intervals of the difference of two runs, by paired bootstrap over the examples (Efron and Tibshirani 1993).

Examples are drawn with replacement, the same for all seeds of both runs. The seeds stay as they are: an interval does
not hold what other seeds would have given. Intervals are percentiles.

Scores of classes depend on an example only through its gold class and what each seed predicted, so the examples are
drawn as counts of these patterns, of which there are few. `tests/test_glue_table.py` compares this with drawing
examples and scikit-learn.

Shapes: N examples, S seeds, P patterns, R resamples, L classes.
"""

from typing import Optional, Sequence, Tuple

import numpy as np
from scipy import stats

from ..system.errors import UsageError
from .metrics import Predictions, official_score, score
from .tasks import Task

RESAMPLES = 10_000
RESAMPLES_OF_SCORES = 1000  # of regressions, whose correlations are computed anew each time
INTERVAL = (2.5, 97.5)  # per cent


def paired_bootstrap(task: Task, ours: Sequence[Predictions], baseline: Sequence[Predictions],
                     metric: str = "official") -> Tuple[float, float, float]:
    """
    Args:
        task: whose metrics and labels count.
        ours: predictions of one run, one for each seed.
        baseline: those of the other run, over the same examples.
        metric: one of `metrics.FUNCTIONS`, or "official".
    Returns:
        (difference of the means over seeds, low, high), in percentage points.
    Raises:
        UsageError: the two runs are over different dev sets.
    """
    return (difference(task, ours, baseline, metric), *interval(resampled(task, ours, baseline, metric)))


def difference(task: Task, ours: Sequence[Predictions], baseline: Sequence[Predictions],
               metric: str = "official") -> float:
    """Of the means over seeds, in percentage points."""
    of = (lambda seed: official_score(task, seed)) if metric == "official" else (lambda seed: score(metric, seed))
    return float(np.mean([of(seed) for seed in ours]) - np.mean([of(seed) for seed in baseline]))


def interval(differences: np.ndarray) -> Tuple[float, float]:
    """(low, high) of R resampled differences."""
    low, high = map(float, np.percentile(differences, INTERVAL))
    return low, high


def resampled(task: Task, ours: Sequence[Predictions], baseline: Sequence[Predictions], metric: str = "official",
              generator: Optional[np.random.Generator] = None) -> np.ndarray:
    """Differences in R resamples, R fp64, percentage points. Those of two tasks are independent, so that their mean
    is a resampled mean."""
    seeds = [*ours, *baseline]
    if len({seed.gold.tobytes() for seed in seeds}) != 1:
        raise UsageError(f"{task.folder}: the two runs are over different dev sets, expected the same examples")
    generator = generator or np.random.default_rng(1)
    names = task.official if metric == "official" else (metric,)
    if task.regression or any(name not in FROM_COUNTS for name in names):
        return resampled_examples(task, ours, baseline, metric, generator)
    labels = len(task.labels)
    columns = np.stack([seeds[0].gold, *(seed.predicted for seed in seeds)])  # 1 + S x N
    patterns, counts = np.unique(columns, axis=1, return_counts=True)  # 1 + S x P
    drawn = generator.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)  # R x P
    scores = []
    for predicted in patterns[1:]:
        cells = np.eye(labels**2)[patterns[0] * labels + predicted]  # P x L²
        confusion = (drawn @ cells).reshape(-1, labels, labels)  # R x gold x predicted
        scores.append(np.mean([FROM_COUNTS[name](confusion) for name in names], axis=0))
    return 100 * (np.mean(scores[: len(ours)], axis=0) - np.mean(scores[len(ours) :], axis=0))


def resampled_examples(task, ours, baseline, metric, generator):
    """The same by drawing examples, for any metric."""
    def of(indices):
        return difference(task, [seed.at(indices) for seed in ours], [seed.at(indices) for seed in baseline], metric)

    drawn = stats.bootstrap((np.arange(len(ours[0].gold)),), of, vectorized=False, n_resamples=RESAMPLES_OF_SCORES,
                            method="percentile", rng=generator)
    return drawn.bootstrap_distribution


def accuracy(confusion):
    return np.trace(confusion, axis1=1, axis2=2) / confusion.sum((1, 2))


def f1(confusion):
    """Of the second class; 0 where it is neither predicted nor there."""
    right = confusion[:, 1, 1]
    return zero_where_undefined(2 * right, confusion[:, 1].sum(1) + confusion[:, :, 1].sum(1))


def mcc(confusion):
    """Matthews correlation (Gorodkin 2004); 0 where one side is constant, as scikit-learn has it."""
    total, right = confusion.sum((1, 2)), np.trace(confusion, axis1=1, axis2=2)
    gold, predicted = confusion.sum(2), confusion.sum(1)
    covariance = right * total - (gold * predicted).sum(1)
    spread = (total**2 - (gold**2).sum(1)) * (total**2 - (predicted**2).sum(1))
    return zero_where_undefined(covariance, np.sqrt(spread))


def zero_where_undefined(over, under):
    return np.divide(over, under, out=np.zeros(len(over)), where=under > 0)


FROM_COUNTS = {"accuracy": accuracy, "f1": f1, "mcc": mcc}  # confusion R x L x L -> R
