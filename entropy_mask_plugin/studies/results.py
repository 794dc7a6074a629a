"""Records and predictions of a study, read back: one `Result` for each condition and corruption."""

import math
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..glue import bootstrap
from ..glue.cells import Cell, read_fine_tuning_run
from ..glue.paper import PAPER_CELLS, PAPER_ROWS
from ..glue.tasks import TASKS
from ..reporting.drift import ELEMENTWISE, FROBENIUS, Drift
from ..reporting.statistics import mean
from ..system.errors import UsageError
from ..training.plateau import is_on_plateau
from .conditions import CONDITIONS, PAPERS_CORRUPTION, Condition
from .options import StudyOptions
from .plan import StudyTrial, plan_of
from .record import is_recorded, read_trial_record

STANDARD_ERRORS = 3  # the best of a dozen conditions that have learned nothing is often two above
PAPERS_NAME = {"bertlet": "BERTlet", "bert_base": "BERT"}


@dataclass
class Result:
    """One condition under one corruption.

    records: {seed: record.json}, of the finished seeds.
    requested_seeds: of the options.
    cells: {name of a dev set: `glue.cells.Cell`}, all seeds together.
    """

    name: str
    corruption: str
    records: Dict[int, Dict[str, Any]]
    requested_seeds: Sequence[int]
    cells: Dict[str, Cell]

    @property
    def condition(self) -> Condition:
        return CONDITIONS[self.name]

    def pretrainings(self) -> List[Dict[str, Any]]:
        """Records of pretrainings; none where the condition begins with a model from elsewhere."""
        return [record["pretraining"] for record in self.records.values() if "pretraining" in record]

    def trains(self) -> bool:
        """Whether there is a curve: more than an update without learning."""
        return any(len(pretraining["valid"]) > 1 or pretraining["updates"] > 1 for pretraining in self.pretrainings())

    def on_plateau(self) -> int:
        """How many seeds ended on the unigram plateau."""
        return sum(ended_on_plateau(pretraining) for pretraining in self.pretrainings())

    def n_collapsed(self, cell: str) -> int:
        """How many seeds predicted one class for every example."""
        return self.cells[cell].n_collapsed()

    def scores(self, name: str) -> Dict[int, float]:
        """{seed: the paper's metric, GLUE's where the paper has none}; per cent."""
        cell = self.cells[name]
        return dict(zip(cell.seeds, cell.values(metric_of(cell))))

    def averages(self, cells: Sequence[str]) -> Dict[int, float]:
        """{seed: mean over some dev sets}; per cent."""
        scores = [self.scores(cell) for cell in cells]
        return {seed: mean([each[seed] for each in scores]) for seed in self.records}


def ended_on_plateau(pretraining: Dict[str, Any]) -> bool:
    return is_on_plateau(pretraining["loss_bits"], pretraining["unigram_entropy_bits"])


def metric_of(cell: Cell) -> str:
    return cell.task.paper or "official"


def read_results(options: StudyOptions) -> List[Result]:
    """Those with at least one seed that has finished all tasks, in the order of the tables.

    Raises:
        UsageError: nothing is finished.
    """
    trials = {}
    for trial in plan_of(options):
        if is_recorded(options, trial):
            trials.setdefault((trial.corruption, trial.condition), []).append(trial)
    if not trials:
        raise UsageError(f"--out: no trial in {options.out} has finished {', '.join(options.tasks)}, expected "
                         "ROW/CORRUPTION/seedN/record.json, or other --tasks")
    return [result_of(options, trials[corruption, name]) for corruption in options.corruptions
            for name in options.conditions if (corruption, name) in trials]


def result_of(options: StudyOptions, trials: Sequence[StudyTrial]) -> Result:
    """trials: of one condition and corruption, all recorded."""
    first = trials[0]
    records = {trial.seed: read_trial_record(trial.record(options)) for trial in trials}
    runs = [read_fine_tuning_run(os.path.join(trial.folder(options), "fine-tuning"), str(trial)) for trial in trials]
    names = [name for task in options.tasks for name in TASKS[task].cells().values()]
    cells = {name: merge_seeds([run.cells[name] for run in runs]) for name in names}
    return Result(first.condition, first.corruption, records, options.seeds, cells)


def merge_seeds(cells: Sequence[Cell]) -> Cell:
    """One cell with the seeds of several."""
    seeds = {seed: predictions for cell in cells for seed, predictions in cell.seeds.items()}
    return Cell(cells[0].name, cells[0].task, seeds, sum(cell.n_started for cell in cells),
                sum(cell.seconds for cell in cells), cells[0].n_train_examples)


def plateaus(results: Sequence[Result]) -> List[float]:
    """The unigram entropies of the corpora of some results, in bits, each once."""
    entropies = {pretraining["unigram_entropy_bits"] for result in results for pretraining in result.pretrainings()}
    return sorted(entropies - {None})


def with_pretraining(results: Sequence[Result]) -> List[Result]:
    """The results that were pretrained, each pretraining once: borrowed ones where their owner is not here."""
    names = {result.name for result in results}
    return [result for result in results if result.pretrainings() and result.condition.pretraining not in names]


def cells_of(results: Sequence[Result]) -> List[str]:
    """Names of the dev sets in the paper's order, the others behind; of MNLI the one that the paper reports."""
    shown = [name for name, cell in results[0].cells.items() if name in PAPER_CELLS or cell.task.paper is None]
    order = {name: place for place, name in enumerate(PAPER_CELLS)}
    return sorted(shown, key=lambda name: order.get(name, len(order)))


def informative_tasks(results: Sequence[Result], cells: Sequence[str]) -> List[str]:
    """The dev sets on which some condition that was pretrained here has learned something: its mean is above the
    majority-class baseline by more than STANDARD_ERRORS of a proportion of so many examples. (A teacher from elsewhere
    may have learned what none of the conditions has.)"""
    trained = [result for result in results if result.trains()]
    return [name for name in cells
            if any(mean(list(result.scores(name).values())) > threshold(result.cells[name]) for result in trained)]


def threshold(cell: Cell) -> float:
    """The score, in per cent, above which a dev set is informative."""
    baseline = cell.majority_baseline(metric_of(cell)) / 100
    variance = 1.0 if cell.task.regression else baseline * (1 - baseline)
    return 100 * (baseline + STANDARD_ERRORS * math.sqrt(variance / cell.n_examples))


def baseline_of(results: Sequence[Result], result: Result) -> Optional[Result]:
    """The one that a result is compared with, under the same corruption; None for itself and where there is none."""
    key = (result.condition.baseline, result.corruption)
    return next((other for other in results if (other.name, other.corruption) == key and other is not result), None)


def common_seeds(result: Result, baseline: Result) -> List[int]:
    return sorted(result.records.keys() & baseline.records.keys())


def paired_differences(result: Result, baseline: Result,
                       cells: Sequence[str]) -> Dict[str, Tuple[float, float, float]]:
    """{name of a dev set, or "mean": (difference, low, high)} of the scores, in points; those that are not defined, a
    correlation of a collapsed run, are not in it, and then neither is the mean.

    Only seeds that both have are compared; {} where there is none.
    """
    generator = np.random.default_rng(1)  # one for all: the tasks' resamples are independent
    intervals, all_drawn, differences = {}, [], []
    common = common_seeds(result, baseline)
    for name in cells if common else ():
        ours, theirs = (other.cells[name] for other in (result, baseline))
        pair = [[cell.seeds[seed] for seed in common] for cell in (ours, theirs)]
        metric = metric_of(ours)
        if math.isnan(bootstrap.difference(ours.task, *pair, metric)):
            continue
        drawn = bootstrap.resampled(ours.task, *pair, metric, generator)
        differences.append(bootstrap.difference(ours.task, *pair, metric))
        all_drawn.append(np.resize(drawn, bootstrap.RESAMPLES))
        intervals[name] = (differences[-1], *bootstrap.interval(drawn))
    if not intervals or len(intervals) < len(cells):
        return intervals
    intervals["mean"] = (float(np.mean(differences)), *bootstrap.interval(np.mean(all_drawn, axis=0)))
    return intervals


def mean_drift(result: Result) -> Dict[str, Drift]:
    """{task: drift, mean over seeds}."""
    drifts = {}
    for task in next(iter(result.records.values()))["fine_tuning"]["drift"]:
        entries = [entry for record in result.records.values()
                   for entry in record["fine_tuning"]["drift"].get(task, [])]
        by_place = {}
        for part, component, *values in entries:
            by_place.setdefault((part, component), []).append(values)
        drifts[task] = {place: dict(zip((FROBENIUS, ELEMENTWISE), np.mean(values, axis=0)))
                        for place, values in by_place.items()}
    return drifts


def papers_scores(result: Result, arch: str) -> Dict[str, float]:
    """{name of a dev set: the paper's score, per cent} of this condition; {} where the paper has none."""
    if result.corruption != PAPERS_CORRUPTION:
        return {}
    key = f"{PAPERS_NAME[arch]} {result.condition.paper}"
    return dict(zip(PAPER_CELLS, PAPER_ROWS[key])) if key in PAPER_ROWS else {}
