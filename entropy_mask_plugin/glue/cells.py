"""A finished or unfinished run as cells, one for each dev set; every score in them comes from predictions.tsv."""

import glob
import itertools
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from ..reporting.records import LIST, NONE, NUMBER, OBJECT, read_record
from ..system.errors import UsageError, require
from .metrics import Predictions, majority_baseline, official_score, read_predictions, score
from .predict import predictions_file
from .tasks import TASKS, Task

SETTINGS = {"protocol": OBJECT, "freeze_encoder": (bool,), "limit": (int, *NONE), "extra_args": LIST}


@dataclass
class Cell:
    """Predictions of one run on one dev set."""

    name: str  # CoLA, …, MNLI-matched, MNLI-mismatched
    task: Task
    seeds: Dict[int, Predictions]
    n_started: int  # seeds, finished or not
    seconds: float  # of training, all seeds
    n_train_examples: Optional[int]  # None where the run did not record it

    @property
    def n_examples(self) -> int:
        """Of the dev set."""
        return len(next(iter(self.seeds.values())).gold)

    def n_collapsed(self) -> int:
        """How many seeds predicted one class for every example."""
        return sum(predictions.is_collapsed() for predictions in self.seeds.values())

    def values(self, metric: str) -> List[float]:
        """Score of each seed, per cent. metric: one of `metrics.FUNCTIONS`, or "official"."""
        return [official_score(self.task, seed) if metric == "official" else score(metric, seed)
                for seed in self.seeds.values()]

    def majority_baseline(self, metric: str) -> float:
        """Score of the majority-class baseline, per cent; metric as for `values`."""
        gold = next(iter(self.seeds.values())).gold
        return majority_baseline(self.task.official if metric == "official" else (metric,), gold, self.task)


@dataclass
class FineTuningRun:
    name: str
    cells: Dict[str, Cell]
    settings: Dict[str, Any]  # of `run.FineTuningSettings.record`; {} where there is no settings.json

    def describe(self) -> str:
        """The settings in a sentence; runs with different ones do not compare."""
        if not self.settings:
            return f"{self.name}: settings unknown"
        protocol = ", ".join(f"{key.replace('_', ' ')} {joined(value)}"
                             for key, value in self.recipe()["protocol"].items())
        frozen = "; encoder frozen" if self.settings["freeze_encoder"] else ""
        limit = f"; LIMITED to the first {self.settings['limit']:,} examples" if self.settings["limit"] else ""
        extra = "; " + " ".join(map(str, self.settings["extra_args"])) if self.settings["extra_args"] else ""
        return f"{self.name}: {protocol}{frozen}{limit}{extra}"

    def recipe(self) -> Dict[str, Any]:
        """The settings, without the checkpoint."""
        return {name: value for name, value in self.settings.items() if "checkpoint" not in name}


def joined(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def read_fine_tuning_runs(folders: Sequence[str]) -> List[FineTuningRun]:
    """
    Args:
        folders: of runs; their names are as short as they can be without being the same.
    Raises:
        UsageError: the same folder twice; see `read_fine_tuning_run`.
    """
    paths = [os.path.normpath(os.path.abspath(folder)).split(os.sep) for folder in folders]
    require("RUN", ", ".join(folders), len({tuple(path) for path in paths}) == len(paths), "different folders")
    parts = next(n for n in itertools.count(1) if len({tuple(path[-n:]) for path in paths}) == len(paths))
    return [read_fine_tuning_run(folder, "/".join(path[-parts:])) for folder, path in zip(folders, paths)]


def read_fine_tuning_run(folder: str, name: str) -> FineTuningRun:
    """
    Raises:
        UsageError: nothing finished there, or files of a run that are damaged.
    """
    cells = {}
    for key, task in TASKS.items():
        started = started_seeds(folder, key)
        finished = {seed: path for seed, path in started.items() if os.path.exists(os.path.join(path, "result.json"))}
        results = [read_result(os.path.join(path, "result.json")) for path in finished.values()]
        for dev, cell in task.cells().items() if finished else ():
            file = predictions_file(key, dev)
            seeds = {seed: read_predictions(os.path.join(path, file), task) for seed, path in finished.items()}
            cells[cell] = Cell(cell, task, seeds, len(started), sum(result["seconds"] for result in results),
                               results[0].get("n_train_examples"))
    if not cells:
        raise UsageError(f"{folder}: no finished fine-tuning found, expected TASK/seedN/result.json")
    return FineTuningRun(name, cells, read_settings(folder))


def read_result(path: str) -> Dict[str, Any]:
    """A result.json; n_train_examples may be missing."""
    result = read_record(path, {"seconds": NUMBER})
    number, seconds = result.get("n_train_examples"), result["seconds"]
    require(path, f"{number!r:.60} training examples", number is None or type(number) is int, "a number")
    require(path, f"{seconds} seconds", 0 <= seconds < 1e12, "a time")
    return result


def started_seeds(folder: str, task: str) -> Dict[int, str]:
    """{seed: its folder}, in order."""
    paths = glob.glob(os.path.join(glob.escape(folder), task, "seed*"))
    matches = {path: re.fullmatch(r"seed(\d+)", os.path.basename(path)) for path in paths}
    return dict(sorted((int(match[1]), path) for path, match in matches.items() if match))


def read_settings(folder: str) -> Dict[str, Any]:
    """settings.json of a run; {} where there is none.

    Raises:
        UsageError: damaged, or of a version whose settings cannot be compared with today's.
    """
    path = os.path.join(folder, "settings.json")
    return read_record(path, SETTINGS) if os.path.exists(path) else {}
