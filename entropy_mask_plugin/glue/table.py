"""Cells of one run or several as rows of a table, with what is needed not to be misled by it."""

import csv
import io
import json
import math
import os

from tabulate import tabulate

from ..reporting.statistics import mean, std
from ..system.atomic_files import write_text
from ..system.errors import UsageError
from .bootstrap import paired_bootstrap
from .paper import PAPER_CELLS, PAPER_ROWS, is_constant
from .tasks import TASKS

NOTES = """Scores in per cent on GLUE's dev sets, mean ± standard deviation over seeds. The same dev sets chose the
epoch (and the point of a grid), so scores are a little optimistic. "constant": the best classifier that gives every
example the same answer. CONSTANT: the run itself did (for 99 % of the examples, or with scores that hardly vary);
whatever its score, it learned nothing. Paper: the metric of the paper's table; official: GLUE's (the mean where
there are two). Δ: official score minus the baseline's, with a 95 % interval by paired bootstrap over the examples,
for these very seeds: it does not hold what other seeds would give. Means are over the tasks that all these runs
have a score for (MNLI is one task). Tasks that were not run are not in the table."""


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
        own = [row_of(run, run.cells[name], baseline) for run in runs if name in run.cells]
        rows += own + [paper_row(paper, own[0]) for paper in with_paper if name in PAPER_CELLS]
    common = [name for name in names if all(has_score(run, name) for run in runs)]
    of_paper = [name for name in PAPER_CELLS if name in common]
    rows += [average(run, common, of_paper) for run in runs if common]
    return rows + [paper_average(paper, of_paper) for paper in with_paper if of_paper]


def row_of(run, cell, baseline):
    row = {"task": cell.name, "run": run.name, "examples": cell.rows, "training examples": cell.training_rows,
           "limit": run.settings.get("limit"), "seeds": len(cell.seeds), "seeds begun": cell.begun}
    if cell.task.paper:
        row |= scored(cell, "paper", cell.task.paper)
        row["paper metric"] = cell.task.paper
    row |= scored(cell, "official", "official")
    row["official metric"] = "/".join(cell.task.official)
    row["constant seeds"] = cell.constant_seeds()
    row["seconds"] = round(cell.seconds)
    if baseline and baseline is not run and has_score(baseline, cell.name) and has_score(run, cell.name):
        ours, theirs = (list(other.cells[cell.name].seeds.values()) for other in (run, baseline))
        row["difference"], row["low"], row["high"] = paired_bootstrap(cell.task, ours, theirs)
    return row


def has_score(run, name):
    """Not, where a correlation is undefined."""
    return name in run.cells and not math.isnan(mean(run.cells[name].values("official")))


def scored(cell, column, metric):
    values = cell.values(metric)
    return {column: mean(values), f"{column} sd": std(values), f"{column} constant": cell.constant(metric),
            f"{column} of seeds": values}


def paper_row(paper, ours):
    """ours: a row of the same dev set."""
    value = PAPER_ROWS[paper][PAPER_CELLS.index(ours["task"])]
    return {"task": ours["task"], "run": f"paper: {paper}", "seeds": 2, "paper": value,
            "constant seeds": 2 * is_constant(ours["task"], value)}


def average(run, common, of_paper):
    """Over the tasks, and over the cells of the paper's table among them."""
    tasks = {}
    for name in common:
        tasks.setdefault(run.cells[name].task.folder, []).append(mean(run.cells[name].values("official")))
    row = {"task": f"mean of {counted(len(tasks), 'task')}", "run": run.name,
           "official": mean([mean(values) for values in tasks.values()])}
    constant = sum(run.cells[name].constant_seeds() > 0 for name in common)
    row["task"] += f" ({constant} CONSTANT)" if constant else ""
    if of_paper:
        row["task"] += f", of {len(of_paper)} in the paper"
        row["paper"] = mean([mean(run.cells[name].values(run.cells[name].task.paper)) for name in of_paper])
    return row


def counted(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")


def paper_average(paper, of_paper):
    values = [PAPER_ROWS[paper][PAPER_CELLS.index(name)] for name in of_paper]
    return {"task": f"mean of {len(values)} in the paper", "run": f"paper: {paper}", "paper": mean(values)}


def cautions(runs, baseline):
    """How each run was made, and whether they compare."""
    sentences = [run.describe() + "." for run in runs]
    for run in runs:
        different = [name for name in run.how() if baseline and run.how()[name] != baseline.how().get(name)]
        if different:
            sentences.append(f"CAUTION: {run.name} and {baseline.name} were not made alike ({', '.join(different)}): "
                             "their difference is not the checkpoints' alone.")
    return sentences


# ---- as text


def readable(rows):
    """Rows of strings under a header, for people."""
    compared = any("difference" in row for row in rows)
    scores = ["score", "constant"]
    header = ["task", "run", "train", "dev", "seeds", "paper's metric", *scores, "official metric", *scores]
    header += (["Δ [95 %]"] if compared else []) + ["training"]
    return header, [readable_row(row, compared) for row in rows]


def readable_row(row, compared):
    mark = constant_mark(row)
    begun, seeds = row.get("seeds begun"), number(row.get("seeds"), "d")
    cells = [row["task"], row["run"] + (" LIMITED" if row.get("limit") else ""),
             number(row.get("training examples"), ","), number(row.get("examples"), ","),
             f"{seeds} of {begun}" if begun and begun != row["seeds"] else seeds,
             row.get("paper metric", ""), with_deviation(row, "paper") + (mark if "paper" in row else ""),
             number(row.get("paper constant"), ".2f"),
             row.get("official metric", ""), with_deviation(row, "official") + (mark if "official" in row else ""),
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


def markdown(rows, remarks):
    header, cells = readable(rows)
    table = tabulate(cells, header, tablefmt="github", disable_numparse=True)
    return "\n\n".join([table, NOTES.replace("\n", " "), *remarks]) + "\n"


def latex(rows, remarks):
    """For pdflatex with booktabs; the notes are comments."""
    header, cells = readable(rows)
    header = [name.replace("Δ", "difference") for name in header]
    comments = "".join(f"% {line}\n" for line in [*NOTES.split("\n"), *remarks])
    return comments + tabulate(cells, header, tablefmt="latex_booktabs", disable_numparse=True) + "\n"


def comma_separated(rows):
    """The marks CONSTANT and LIMITED are the columns "constant seeds" and "limit"."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(rows, remarks):
    """nan has no form in JSON."""
    return json.dumps({"rows": without_nan(rows), "notes": [NOTES.replace("\n", " "), *remarks]}, indent=2,
                      ensure_ascii=False) + "\n"


def without_nan(value):
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_tables(rows, remarks, folder):
    """table.md, table.csv, table.json and table.tex."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror}, expected a folder or a name for a new one") from error
    for ending, content in (("md", markdown(rows, remarks)), ("csv", comma_separated(rows)),
                            ("json", as_json(rows, remarks)), ("tex", latex(rows, remarks))):
        write_text(os.path.join(folder, f"table.{ending}"), content)
