"""Cells of one run or several as rows of a table, with what is needed not to be misled by it."""

import csv
import io
import json
import math
import os

from tabulate import tabulate

from ..partial import completed, write
from .cells import deviation, mean
from .metrics import paired_bootstrap
from .paper import PAPER_CELLS, PAPER_ROWS
from .tasks import TASKS

NOTES = """Scores in per cent on GLUE's dev sets, mean ± standard deviation over seeds. "constant": the best classifier
that gives every example the same answer. CONSTANT: the run itself gave every example the same answer; whatever its
score, it learned nothing. Paper: the metric of the paper's table; official: GLUE's (the mean where there are two). Δ:
official score minus the baseline's, with a 95 % interval by paired bootstrap over the examples. Tasks that were not run
are not in the table."""


def rows_of(runs, baseline=None, with_paper=()):
    """List of dicts, one for each dev set and run, and the averages at the end.

    Args:
        runs: list of `cells.Run`.
        baseline: the one of them that the others are compared with; None = no comparison.
        with_paper: keys of PAPER_ROWS to put beside.
    """
    names = [name for task in TASKS.values() for name in task.cells().values()
             if any(name in run.cells for run in runs)]
    rows = []
    for name in names:
        rows += [row_of(run, run.cells[name], baseline) for run in runs if name in run.cells]
        rows += [paper_row(paper, name) for paper in with_paper if name in PAPER_CELLS]
    return rows + [average(run) for run in runs] + [paper_average(paper, names) for paper in with_paper]


def row_of(run, cell, baseline):
    row = {"task": cell.name, "run": run.name, "examples": cell.rows, "seeds": len(cell.seeds)}
    if cell.task.paper:
        row |= scored(cell, "paper", cell.task.paper)
        row["paper metric"] = cell.task.paper
    row |= scored(cell, "official", "official")
    row["official metric"] = "/".join(cell.task.official)
    row["constant seeds"] = cell.constant_seeds()
    row["seconds"] = round(cell.seconds)
    if baseline and baseline is not run and cell.name in baseline.cells:
        ours, theirs = (list(other.cells[cell.name].seeds.values()) for other in (run, baseline))
        row["difference"], row["low"], row["high"] = paired_bootstrap(cell.task, ours, theirs)
    return row


def scored(cell, column, metric):
    values = cell.values(metric)
    return {column: mean(values), f"{column} sd": deviation(values), f"{column} constant": cell.constant(metric)}


def paper_row(paper, name):
    return {"task": name, "run": f"paper: {paper}", "seeds": 2, "paper": PAPER_ROWS[paper][PAPER_CELLS.index(name)]}


def average(run):
    """Over all dev sets of a run, and over those of the paper's table among them."""
    official = [mean(cell.values("official")) for cell in run.cells.values()]
    paper = [mean(run.cells[name].values(run.cells[name].task.paper)) for name in PAPER_CELLS if name in run.cells]
    row = {"task": f"mean of {len(official)}" + (f", of the paper's {len(paper)}" if paper else ""), "run": run.name,
           "official": mean(official)}
    return {**row, "paper": mean(paper)} if paper else row


def paper_average(paper, names):
    values = [value for name, value in zip(PAPER_CELLS, PAPER_ROWS[paper]) if name in names]
    return {"task": f"mean of the paper's {len(values)}", "run": f"paper: {paper}", "paper": mean(values)}


# ---- as text


def readable(rows):
    """Rows of strings under a header, for people."""
    compared = any("difference" in row for row in rows)
    scores = ["score", "constant"]
    header = ["task", "run", "n", "seeds", "paper's metric", *scores, "official metric", *scores]
    header += (["Δ [95 %]"] if compared else []) + ["time"]
    return header, [readable_row(row, compared) for row in rows]


def readable_row(row, compared):
    mark = constant_mark(row)
    cells = [row["task"], row["run"], number(row.get("examples"), ","), number(row.get("seeds"), "d"),
             row.get("paper metric", ""), with_deviation(row, "paper") + mark,
             number(row.get("paper constant"), ".2f"),
             row.get("official metric", ""), with_deviation(row, "official") + mark,
             number(row.get("official constant"), ".2f")]
    if compared:
        known = "difference" in row
        cells.append(f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]" if known else "")
    return [*cells, f"{row['seconds'] // 60} min {row['seconds'] % 60} s" if "seconds" in row else ""]


def constant_mark(row):
    count = row.get("constant seeds", 0)
    if not count:
        return ""
    return " CONSTANT" if count == row["seeds"] else f" CONSTANT in {count} of {row['seeds']}"


def with_deviation(row, column):
    if column not in row:
        return ""
    if math.isnan(row[column]):
        return "undefined"
    spread = row.get(f"{column} sd")
    return f"{row[column]:.2f}" + (f" ± {spread:.2f}" if spread is not None else "")


def number(value, form):
    return "" if value is None else format(value, form)


def markdown(rows):
    header, cells = readable(rows)
    return tabulate(cells, header, tablefmt="github", disable_numparse=True) + "\n\n" + NOTES.replace("\n", " ") + "\n"


def latex(rows):
    header, cells = readable(rows)
    return tabulate(cells, header, tablefmt="latex_booktabs", disable_numparse=True) + "\n"


def comma_separated(rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(rows):
    """nan has no form in JSON."""
    clean = [{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
             for row in rows]
    return json.dumps(clean, indent=2, ensure_ascii=False) + "\n"


def write_tables(rows, folder):
    """table.md, table.csv, table.json and table.tex."""
    os.makedirs(folder, exist_ok=True)
    for ending, form in (("md", markdown), ("csv", comma_separated), ("json", as_json), ("tex", latex)):
        with completed(os.path.join(folder, f"table.{ending}")) as beside:
            write(beside, form(rows).encode())
