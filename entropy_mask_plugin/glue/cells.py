"""A finished or unfinished run as cells, one for each dev set; everything in them comes from predictions.tsv."""

import glob
import json
import os
from dataclasses import dataclass
from typing import Dict, Optional

import numpy as np

from ..errors import UsageError
from .metrics import Predictions, constant_score, official_score, read_predictions, score
from .predict import predictions_file
from .tasks import TASKS, Task


@dataclass
class Cell:
    """What one run says about one dev set."""

    name: str  # CoLA, …, MNLI-matched, MNLI-mismatched
    task: Task
    seeds: Dict[int, Predictions]
    seconds: float  # of all seeds

    @property
    def rows(self):
        return len(next(iter(self.seeds.values())).gold)

    def constant_seeds(self):
        """How many seeds gave every example the same answer."""
        return sum(predictions.is_constant() for predictions in self.seeds.values())

    def values(self, metric):
        """Of each seed; metric: one of `metrics.FUNCTIONS`, or "official"."""
        return [official_score(self.task, seed) if metric == "official" else score(metric, seed)
                for seed in self.seeds.values()]

    def constant(self, metric):
        """Of the best classifier that always says the same."""
        gold = next(iter(self.seeds.values())).gold
        metrics = self.task.official if metric == "official" else (metric,)
        return float(np.mean([constant_score(each, gold, self.task) for each in metrics]))


@dataclass
class Run:
    name: str
    cells: Dict[str, Cell]


def read_run(folder):
    """
    Raises:
        UsageError: nothing finished there.
    """
    cells = {}
    for key, task in TASKS.items():
        results = sorted(glob.glob(os.path.join(glob.escape(folder), key, "seed*", "result.json")), key=seed_of)
        seconds = sum(seconds_of(result) for result in results)
        for dev, name in task.cells().items() if results else ():
            file = predictions_file(key, dev)
            seeds = {seed_of(path): read_predictions(os.path.join(os.path.dirname(path), file), task)
                     for path in results}
            cells[name] = Cell(name, task, seeds, seconds)
    if not cells:
        raise UsageError(f"{folder}: no finished fine-tuning found, expected TASK/seedN/result.json")
    return Run(os.path.basename(os.path.normpath(folder)), cells)


def seed_of(path):
    return int(os.path.basename(os.path.dirname(path))[len("seed"):])


def seconds_of(result):
    with open(result, encoding="utf-8") as file:
        return json.load(file)["seconds"]


def mean(values):
    """nan where there are none."""
    return float(np.mean(values)) if values else float("nan")


def deviation(values) -> Optional[float]:
    """Over seeds, with n - 1; None where there is one only."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
