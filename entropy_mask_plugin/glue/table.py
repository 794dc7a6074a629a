"""Cells of one run or several as a table, with what is needed not to be misled by it."""

import json
import math
import os
from typing import Any, Dict, List, Optional, Sequence

from ..reporting.statistics import mean, std
from ..reporting.table import Table, table_of_records
from ..system.atomic_files import make_folder, write_text
from ..system.text import one_line
from .bootstrap import paired_bootstrap
from .cells import Cell, FineTuningRun
from .paper import PAPER_CELLS, PAPER_ROWS, is_single_class_score
from .tasks import TASKS

NOTES = one_line("""Scores in per cent on GLUE's dev sets, mean ± standard deviation over seeds. The same dev sets
chose the epoch (and the point of a grid), so scores are a little optimistic. Majority: the majority-class baseline,
the best score of a classifier that predicts one class for every example. COLLAPSED: the run itself is such a classifier
(for 99 % of the examples, or with scores that hardly vary); whatever its score, it learned nothing. Paper: the metric
of the paper's table; official: GLUE's (the mean where there are two). Δ: official score minus the baseline run's, with
a 95 % interval by paired bootstrap over the examples, for these very seeds: it does not cover the variation between
seeds. Means are over the tasks that all these runs have a score for (MNLI is one task). Tasks that were not run are not
in the table.""")


def score_records(runs: Sequence[FineTuningRun], baseline: Optional[FineTuningRun] = None,
                  with_paper: Sequence[str] = ()) -> List[Dict[str, Any]]:
    """One dict for each dev set and run, and the averages at the end; scores in per cent.

    Args:
        runs: in the order of the table.
        baseline: the one of the runs that the others are compared with; None = no comparison.
        with_paper: keys of PAPER_ROWS to put beside.
    """
    names = [name for task in TASKS.values() for name in task.cells().values()
             if any(name in run.cells for run in runs)]
    records = []
    for name in names:
        ours = [cell_record(run, run.cells[name], baseline) for run in runs if name in run.cells]
        records += ours + [paper_record(paper, ours[0]) for paper in with_paper if name in PAPER_CELLS]
    common = [name for name in names if all(has_score(run, name) for run in runs)]
    of_paper = [name for name in PAPER_CELLS if name in common]
    records += [average(run, common, of_paper) for run in runs if common]
    return records + [paper_average(paper, of_paper) for paper in with_paper if of_paper]


def cell_record(run: FineTuningRun, cell: Cell, baseline: Optional[FineTuningRun]) -> Dict[str, Any]:
    record = {"task": cell.name, "run": run.name, "n_examples": cell.n_examples,
              "n_train_examples": cell.n_train_examples, "limit": run.settings.get("limit"),
              "n_seeds": len(cell.seeds), "n_seeds_started": cell.n_started}
    if cell.task.paper:
        record |= scores_by(cell, "paper", cell.task.paper)
        record["paper_metric"] = cell.task.paper
    record |= scores_by(cell, "official", "official")
    record["official_metric"] = "/".join(cell.task.official)
    record["n_collapsed_seeds"] = cell.n_collapsed()
    record["seconds"] = round(cell.seconds)
    if baseline and baseline is not run and has_score(baseline, cell.name) and has_score(run, cell.name):
        ours, theirs = (list(other.cells[cell.name].seeds.values()) for other in (run, baseline))
        interval = paired_bootstrap(cell.task, ours, theirs)
        record |= zip(("difference_points", "difference_low_points", "difference_high_points"), interval)
    return record


def has_score(run: FineTuningRun, name: str) -> bool:
    """Not, where a correlation is undefined."""
    return name in run.cells and not math.isnan(mean(run.cells[name].values("official")))


def scores_by(cell: Cell, whose: str, metric: str) -> Dict[str, Any]:
    values = cell.values(metric)
    return {f"{whose}_score_pct": mean(values), f"{whose}_std_pct": std(values),
            f"{whose}_majority_baseline_pct": cell.majority_baseline(metric), f"{whose}_scores_pct": values}


def paper_record(paper: str, ours: Dict[str, Any]) -> Dict[str, Any]:
    """ours: a record of the same dev set."""
    value = PAPER_ROWS[paper][PAPER_CELLS.index(ours["task"])]
    return {"task": ours["task"], "run": f"paper: {paper}", "n_seeds": 2, "paper_score_pct": value,
            "n_collapsed_seeds": 2 * is_single_class_score(ours["task"], value)}


def average(run: FineTuningRun, common: Sequence[str], of_paper: Sequence[str]) -> Dict[str, Any]:
    """Over the tasks, and over the cells of the paper's table among them."""
    tasks = {}
    for name in common:
        tasks.setdefault(run.cells[name].task.folder, []).append(mean(run.cells[name].values("official")))
    record = {"task": f"mean of {counted(len(tasks), 'task')}", "run": run.name,
              "official_score_pct": mean([mean(values) for values in tasks.values()])}
    n_collapsed = sum(run.cells[name].n_collapsed() > 0 for name in common)
    record["task"] += f" ({n_collapsed} COLLAPSED)" if n_collapsed else ""
    if of_paper:
        record["task"] += f", of {len(of_paper)} in the paper"
        cells = [run.cells[name] for name in of_paper]
        record["paper_score_pct"] = mean([mean(cell.values(cell.task.paper)) for cell in cells if cell.task.paper])
    return record


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def paper_average(paper: str, of_paper: Sequence[str]) -> Dict[str, Any]:
    values = [PAPER_ROWS[paper][PAPER_CELLS.index(name)] for name in of_paper]
    return {"task": f"mean of {len(values)} in the paper", "run": f"paper: {paper}", "paper_score_pct": mean(values)}


def remarks_on(runs: Sequence[FineTuningRun], baseline: Optional[FineTuningRun]) -> List[str]:
    """The settings of each run, and a caution where they differ from the baseline's."""
    sentences = [run.describe() + "." for run in runs]
    for run in runs:
        different = [name for name in run.recipe() if baseline and run.recipe()[name] != baseline.recipe().get(name)]
        if baseline and different:
            sentences.append(f"CAUTION: {run.name} and {baseline.name} have different settings "
                             f"({', '.join(different)}): their difference is not the checkpoints' alone.")
    return sentences


# ---- for people


def glue_table(records: Sequence[Dict[str, Any]], remarks: Sequence[str] = ()) -> Table:
    """The records as text."""
    compared = any("difference_points" in record for record in records)
    scores = ["score", "majority"]
    header = ["task", "run", "train", "dev", "seeds", "paper's metric", *scores, "official metric", *scores]
    header += (["Δ [95 %]"] if compared else []) + ["training"]
    return Table("", header, [text_row(record, compared) for record in records], "\n\n".join([NOTES, *remarks]))


def text_row(record: Dict[str, Any], compared: bool) -> List[str]:
    mark = collapsed_mark(record)
    n_started, n_seeds = record.get("n_seeds_started"), number(record.get("n_seeds"), "d")
    row = [record["task"], record["run"] + (" LIMITED" if record.get("limit") else ""),
           number(record.get("n_train_examples"), ","), number(record.get("n_examples"), ","),
           f"{n_seeds} of {n_started}" if n_started and n_started != record["n_seeds"] else n_seeds]
    for whose in ("paper", "official"):
        row += [record.get(f"{whose}_metric", ""),
                score_text(record, whose) + (mark if f"{whose}_score_pct" in record else ""),
                number(record.get(f"{whose}_majority_baseline_pct"), ".2f")]
    if compared:
        form = "{difference_points:+.2f} [{difference_low_points:+.2f}, {difference_high_points:+.2f}]"
        row.append(form.format(**record) if "difference_points" in record else "")
    return [*row, f"{record['seconds'] // 60} min {record['seconds'] % 60} s" if "seconds" in record else ""]


def collapsed_mark(record: Dict[str, Any]) -> str:
    count = record.get("n_collapsed_seeds", 0)
    if not count:
        return ""
    return " COLLAPSED" if count == record["n_seeds"] else f" COLLAPSED in {count} of {record['n_seeds']}"


def score_text(record: Dict[str, Any], whose: str) -> str:
    if f"{whose}_score_pct" not in record:
        return ""
    if math.isnan(record[f"{whose}_score_pct"]):
        return "undefined"
    spread = record.get(f"{whose}_std_pct")
    return f"{record[f'{whose}_score_pct']:.2f}" + (f" ± {spread:.2f}" if spread is not None else "")


def number(value: Optional[float], form: str) -> str:
    return "" if value is None else format(value, form)


# ---- for programs


def table_json(records: Sequence[Dict[str, Any]], remarks: Sequence[str]) -> str:
    """nan has no form in JSON: null."""
    return json.dumps({"records": without_nan(records), "notes": [NOTES, *remarks]}, indent=2,
                      ensure_ascii=False) + "\n"


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_tables(records: Sequence[Dict[str, Any]], remarks: Sequence[str], folder: str) -> str:
    """Write table.md, table.csv (where the marks COLLAPSED and LIMITED are the columns n_collapsed_seeds and limit),
    table.json and table.tex.

    Returns:
        the Markdown.
    Raises:
        UsageError: the folder cannot be made, or the disk is full.
    """
    make_folder(folder, "--out")
    table = glue_table(records, remarks)
    contents = {"md": table.markdown() + "\n", "csv": table_of_records(records).csv(),
                "json": table_json(records, remarks), "tex": table.latex()}
    for ending, content in contents.items():
        write_text(os.path.join(folder, f"table.{ending}"), content)
    return contents["md"]
