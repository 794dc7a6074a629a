"""Scores of a predictions.tsv in per cent, by scikit-learn and scipy, and those of the majority-class baseline.

Shapes: N examples; classes are numbers in the task's order, scores of a regression floats.
"""

import csv
import math
from typing import NamedTuple, Sequence

import numpy as np
from scipy import stats
from sklearn import metrics

from ..system.errors import UsageError, require
from .tasks import Task

FUNCTIONS = {
    "accuracy": metrics.accuracy_score,
    # Of the second class alone, and 0 where it is neither predicted nor among the labels.
    "f1": lambda gold, predicted: metrics.f1_score(
        gold, predicted, labels=[1], average="macro",
        zero_division=0),  # pyright: ignore[reportArgumentType]  # scikit-learn has no types: guessed from its default
    "mcc": metrics.matthews_corrcoef,
    "pearson": lambda gold, predicted: stats.pearsonr(gold, predicted)[0],
    "spearman": lambda gold, predicted: stats.spearmanr(gold, predicted)[0],
}
CORRELATIONS = ("pearson", "spearman")
COLLAPSED_FRACTION, COLLAPSED_SPREAD = 0.99, 0.01


class Predictions(NamedTuple):
    gold: np.ndarray  # N
    predicted: np.ndarray  # N

    def is_collapsed(self) -> bool:
        """Whether nearly all predictions are one class: COLLAPSED_FRACTION of them, or the std of a regression's scores
        is at most COLLAPSED_SPREAD of gold's."""
        if self.predicted.dtype.kind == "f":
            return bool(self.predicted.std() <= COLLAPSED_SPREAD * self.gold.std())
        return bool(np.unique(self.predicted, return_counts=True)[1].max() >= COLLAPSED_FRACTION * len(self.predicted))

    def at(self, indices: np.ndarray) -> "Predictions":
        """Those of some examples. indices: positions, int64."""
        return Predictions(self.gold[indices], self.predicted[indices])


def read_predictions(path: str, task: Task) -> Predictions:
    """
    Args:
        path: a predictions.tsv.
        task: the `tasks.Task` that it is of.
    Raises:
        UsageError: no such file, no line in it, columns missing, or another task's labels.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        number = float if task.regression else task.labels.index
        gold, predicted = (np.array([number(row[column]) for row in rows]) for column in ("gold", "predicted"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}, expected the predictions of a finished trial") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: {error}, expected index, gold and predicted of {task.folder}") from error
    require(path, "no predictions", rows, "a line for each example of the dev set")
    return Predictions(gold, predicted)


def score(metric: str, predictions: Predictions) -> float:
    """Per cent; nan where a correlation is not defined. metric: a key of FUNCTIONS."""
    if metric in CORRELATIONS and min(len(set(values.tolist())) for values in predictions) < 2:
        return math.nan
    return 100 * float(FUNCTIONS[metric](*predictions))


def official_score(task: Task, predictions: Predictions) -> float:
    """Mean of the task's official metrics, per cent."""
    return float(np.mean([score(metric, predictions) for metric in task.official]))


def majority_baseline(names: Sequence[str], gold: np.ndarray, task: Task) -> float:
    """Score of the majority-class baseline, per cent: the best that predicting one class for every example reaches on
    these labels (by F1, that class need not be the most frequent one). A correlation counts as 0.

    Args:
        names: of metrics, whose scores are averaged.
        gold: N.
        task: whose labels may be predicted.
    """
    if task.regression:
        return 0.0
    single_class = (Predictions(gold, np.full_like(gold, label)) for label in range(len(task.labels)))
    return max(float(np.mean([score(metric, predictions) for metric in names])) for predictions in single_class)
