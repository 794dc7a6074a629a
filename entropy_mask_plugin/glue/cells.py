"""A finished or unfinished run as cells, one for each dev set; everything in them comes from predictions.tsv."""

import glob
import itertools
import os
import re
from dataclasses import dataclass
from typing import Dict, Optional

from ..system.atomic_files import read_json
from ..system.errors import UsageError, require
from .metrics import Predictions, constant_score, official_score, read_predictions, score
from .predict import predictions_file
from .tasks import TASKS, Task


@dataclass
class Cell:
    """What one run says about one dev set."""

    name: str  # CoLA, …, MNLI-matched, MNLI-mismatched
    task: Task
    seeds: Dict[int, Predictions]
    begun: int  # seeds, finished or not
    seconds: float  # of training, all seeds
    training_rows: Optional[int]  # None where the run does not say it

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
        return constant_score(self.task.official if metric == "official" else (metric,), gold, self.task)


@dataclass
class Run:
    name: str
    cells: Dict[str, Cell]
    settings: dict  # what `run.Settings.record` said; {} where it is not known

    def describe(self):
        """How it was made, in a sentence; runs that were made differently do not compare."""
        if not self.settings:
            return f"{self.name}: settings unknown"
        protocol = ", ".join(f"{key.replace('_', ' ')} {words(value)}" for key, value in self.how()["protocol"].items())
        frozen = "; encoder frozen" if self.settings["freeze encoder"] else ""
        limit = f"; LIMITED to the first {self.settings['limit']:,} rows" if self.settings["limit"] else ""
        more = "; " + " ".join(self.settings["more flags"]) if self.settings["more flags"] else ""
        return f"{self.name}: {protocol}{frozen}{limit}{more}"

    def how(self):
        """The settings, without the checkpoint."""
        return {name: value for name, value in self.settings.items() if "checkpoint" not in name}


def words(value):
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def read_runs(folders):
    """
    Args:
        folders: of runs; their names are as short as they can be without being the same.
    Raises:
        UsageError: the same folder twice; see `read_run`.
    """
    paths = [os.path.normpath(os.path.abspath(folder)).split(os.sep) for folder in folders]
    require("RUN", ", ".join(folders), len({tuple(path) for path in paths}) == len(paths), "different folders")
    parts = next(n for n in itertools.count(1) if len({tuple(path[-n:]) for path in paths}) == len(paths))
    return [read_run(folder, "/".join(path[-parts:])) for folder, path in zip(folders, paths)]


def read_run(folder, name):
    """
    Raises:
        UsageError: nothing finished there, or files of a run that are damaged.
    """
    cells = {}
    for key, task in TASKS.items():
        begun = {int(found[1]): path for path in glob.glob(os.path.join(glob.escape(folder), key, "seed*"))
                 if (found := re.fullmatch(r"seed(\d+)", os.path.basename(path)))}
        finished = {seed: path for seed, path in sorted(begun.items())
                    if os.path.exists(os.path.join(path, "result.json"))}
        results = [read_result(path) for path in finished.values()]
        for dev, cell in task.cells().items() if finished else ():
            file = predictions_file(key, dev)
            seeds = {seed: read_predictions(os.path.join(path, file), task) for seed, path in finished.items()}
            cells[cell] = Cell(cell, task, seeds, len(begun), sum(result["seconds"] for result in results),
                               results[0].get("training examples"))
    if not cells:
        raise UsageError(f"{folder}: no finished fine-tuning found, expected TASK/seedN/result.json")
    return Run(name, cells, read_settings(folder))


def read_result(folder):
    return read_json(os.path.join(folder, "result.json"))


def read_settings(folder):
    """settings.json of a run; {} where there is none."""
    path = os.path.join(folder, "settings.json")
    return read_json(path) if os.path.exists(path) else {}
