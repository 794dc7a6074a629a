"""Scores of a predictions.tsv in per cent, by scikit-learn and scipy, and of a classifier that always says the same.

Shapes: N examples; classes are numbers in the task's order, scores of a regression floats.
"""

import csv
import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn import metrics

from ..system.errors import UsageError

FUNCTIONS = {
    "accuracy": metrics.accuracy_score,
    # Of the second class alone, also where it is neither predicted nor there.
    "f1": lambda gold, predicted: metrics.f1_score(gold, predicted, labels=[1], average="macro", zero_division=0),
    "mcc": metrics.matthews_corrcoef,
    "pearson": lambda gold, predicted: stats.pearsonr(gold, predicted).statistic,
    "spearman": lambda gold, predicted: stats.spearmanr(gold, predicted).statistic,
}
CORRELATIONS = ("pearson", "spearman")
CONSTANT_SHARE, CONSTANT_SPREAD = 0.99, 0.01


class Predictions(NamedTuple):
    gold: np.ndarray  # N
    predicted: np.ndarray  # N

    def is_constant(self):
        """As good as the same answer for every example: CONSTANT_SHARE of them have the most frequent class, or the
        scores of a regression vary by less than CONSTANT_SPREAD of gold's deviation."""
        if self.predicted.dtype.kind == "f":
            return bool(self.predicted.std() <= CONSTANT_SPREAD * self.gold.std())
        return bool(np.unique(self.predicted, return_counts=True)[1].max() >= CONSTANT_SHARE * len(self.predicted))

    def at(self, rows):
        return Predictions(self.gold[rows], self.predicted[rows])


def read_predictions(path, task):
    """
    Args:
        path: a predictions.tsv.
        task: the `tasks.Task` that it is of.
    Raises:
        UsageError: no such file, columns missing, or another task's labels.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        number = float if task.regression else task.labels.index
        return Predictions(*(np.array([number(row[column]) for row in rows]) for column in ("gold", "predicted")))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}, expected the predictions of a finished unit") from error
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path}: {error}, expected index, gold and predicted of {task.folder}") from error


def score(metric, predictions):
    """Per cent; nan where a correlation is not defined. metric: a key of FUNCTIONS."""
    if metric in CORRELATIONS and min(len(set(values.tolist())) for values in predictions) < 2:
        return math.nan
    return 100 * float(FUNCTIONS[metric](*predictions))


def official_score(task, predictions):
    """Mean of the task's official metrics."""
    return float(np.mean([score(metric, predictions) for metric in task.official]))


def constant_score(names, gold, task):
    """The best mean score on these gold labels of a classifier that always says the same. A correlation counts as 0.

    Args:
        names: of metrics, whose scores are averaged.
    """
    if task.regression:
        return 0.0
    constants = (Predictions(gold, np.full_like(gold, label)) for label in range(len(task.labels)))
    return max(float(np.mean([score(metric, constant) for metric in names])) for constant in constants)
