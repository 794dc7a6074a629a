"""Records and predictions of a study, read back: one `Result` for each row under each corruption."""

import math
import os
from dataclasses import dataclass
from typing import Dict, List

import numpy as np

from ..glue import bootstrap
from ..glue.cells import Cell
from ..glue.cells import read_run as read_fine_tuning
from ..glue.paper import PAPER_CELLS, PAPER_ROWS
from ..glue.tasks import TASKS
from ..reporting.drift import ELEMENTWISE, FROBENIUS
from ..reporting.statistics import mean
from ..system.atomic_files import read_json
from ..system.errors import UsageError
from ..training.plateau import is_on_plateau
from .plan import plan_of
from .record import is_recorded
from .rows import PAPERS_CORRUPTION, ROWS, Row

STANDARD_ERRORS = 3  # the best of a dozen rows that have learned nothing is often two above
PAPERS_NAME = {"bertlet": "BERTlet", "bert_base": "BERT"}


@dataclass
class Result:
    """
    records: {seed: record.json}, of the finished seeds.
    wanted: seeds that were asked for.
    cells: {name of a dev set: `glue.cells.Cell`}, all seeds together.
    """

    name: str
    corruption: str
    records: Dict[int, dict]
    wanted: List[int]
    cells: Dict[str, Cell]

    @property
    def row(self) -> Row:
        return ROWS[self.name]

    def pretrainings(self):
        """Records of pretrainings; none where the row begins with a model from elsewhere."""
        return [record["pretraining"] for record in self.records.values() if "pretraining" in record]

    def trains(self):
        """Whether there is a curve: more than an update without learning."""
        return any(len(found["valid"]) > 1 or found["updates"] > 1 for found in self.pretrainings())

    def on_plateau(self):
        """How many seeds ended on the unigram plateau."""
        return sum(is_on_plateau(found["loss"], found["unigram entropy"]) for found in self.pretrainings())

    def constant(self, cell):
        """How many seeds gave every example the same answer."""
        return self.cells[cell].constant_seeds()

    def scores(self, cell):
        """{seed: the paper's metric, GLUE's where the paper has none}; per cent."""
        cell = self.cells[cell]
        return dict(zip(cell.seeds, cell.values(metric_of(cell))))

    def averages(self, cells):
        """{seed: mean over some dev sets}."""
        scores = [self.scores(cell) for cell in cells]
        return {seed: mean([each[seed] for each in scores]) for seed in self.records}


def metric_of(cell):
    return cell.task.paper or "official"


def read_results(options):
    """Results with at least one seed that has finished all tasks, in the order of the tables.

    Raises:
        UsageError: nothing is finished.
    """
    found = {}
    for unit in plan_of(options):
        if is_recorded(options, unit):
            found.setdefault((unit.corruption, unit.row), []).append(unit)
    if not found:
        raise UsageError(f"--out: no row in {options.out} has finished {', '.join(options.tasks)}, expected "
                         "ROW/CORRUPTION/seedN/record.json, or other --tasks")
    return [result_of(options, found[corruption, row]) for corruption in options.corruptions for row in options.rows()
            if (corruption, row) in found]


def result_of(options, units):
    first = units[0]
    records = {unit.seed: read_json(unit.record(options)) for unit in units}
    runs = [read_fine_tuning(os.path.join(unit.folder(options), "fine-tuning"), str(unit)) for unit in units]
    asked = [name for task in options.tasks for name in TASKS[task].cells().values()]
    cells = {name: merged([run.cells[name] for run in runs]) for name in asked}
    return Result(first.row, first.corruption, records, options.seeds, cells)


def merged(cells):
    """One cell with the seeds of several."""
    seeds = {seed: predictions for cell in cells for seed, predictions in cell.seeds.items()}
    return Cell(cells[0].name, cells[0].task, seeds, sum(cell.begun for cell in cells),
                sum(cell.seconds for cell in cells), cells[0].training_rows)


def plateaus(results):
    """The unigram entropies of the corpora of some results, in bits, each once."""
    return sorted({found["unigram entropy"] for result in results for found in result.pretrainings()
                   if found["unigram entropy"] is not None})


def with_pretraining(results):
    """The results that were pretrained, each pretraining once: borrowed ones where their owner is not here."""
    names = {result.name for result in results}
    return [result for result in results if result.pretrainings() and result.row.pretraining not in names]


def cells_of(results):
    """Names of the dev sets in the paper's order, the others behind; of MNLI the one that the paper reports."""
    shown = [name for name, cell in results[0].cells.items() if name in PAPER_CELLS or cell.task.paper is None]
    order = {name: place for place, name in enumerate(PAPER_CELLS)}
    return sorted(shown, key=lambda name: order.get(name, len(order)))


def moving(results, cells):
    """The dev sets on which some row that was pretrained here has learned something: its mean is above the best
    constant classifier's score by more than STANDARD_ERRORS of a share of so many examples. (A teacher from elsewhere
    may have learned what none of the rows has.)"""
    trained = [result for result in results if result.trains()]
    return [name for name in cells
            if any(mean(list(result.scores(name).values())) > threshold(result.cells[name]) for result in trained)]


def threshold(cell):
    constant = cell.constant(metric_of(cell)) / 100
    variance = 1.0 if cell.task.regression else constant * (1 - constant)
    return 100 * (constant + STANDARD_ERRORS * math.sqrt(variance / cell.rows))


def baseline_of(results, result):
    """The `Result` that a row is compared with, under the same corruption; None for itself and where there is none."""
    found = [other for other in results if (other.name, other.corruption) == (result.row.against, result.corruption)]
    return found[0] if found and found[0] is not result else None


def common_seeds(result, baseline):
    return sorted(result.records.keys() & baseline.records.keys())


def comparison(result, baseline, cells):
    """{name of a dev set, or "mean": (difference, low, high)} of the scores, in points; those that are not defined, a
    correlation with a constant, are not in it, and then neither is the mean.

    Only seeds that both have are compared; {} where there is none.
    """
    generator = np.random.default_rng(1)  # one for all: the tasks' resamples are independent
    found, all_drawn, differences = {}, [], []
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
        found[name] = (differences[-1], *bootstrap.interval(drawn))
    if not found or len(found) < len(cells):
        return found
    found["mean"] = (float(np.mean(differences)), *bootstrap.interval(np.mean(all_drawn, axis=0)))
    return found


def drift_of(result):
    """{task: {(part, component): {measure: mean over seeds}}} of a result."""
    found = {}
    for task in next(iter(result.records.values()))["fine-tuning"]["drift"]:
        rows = [record["fine-tuning"]["drift"].get(task, []) for record in result.records.values()]
        moved = {}
        for part, component, *values in (entry for row in rows for entry in row):
            moved.setdefault((part, component), []).append(values)
        found[task] = {where: dict(zip((FROBENIUS, ELEMENTWISE), np.mean(values, axis=0)))
                       for where, values in moved.items()}
    return found


def papers_scores(result, arch):
    """{name of a dev set: the paper's score} of this row; {} where the paper has none."""
    if result.corruption != PAPERS_CORRUPTION:
        return {}
    key = f"{PAPERS_NAME[arch]} {result.row.paper}"
    return dict(zip(PAPER_CELLS, PAPER_ROWS[key])) if key in PAPER_ROWS else {}
