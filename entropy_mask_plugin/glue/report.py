"""Runs to tables and a picture, in a folder."""

import os

from ..system.errors import require
from .cells import read_runs
from .paper import PAPER_ROWS
from .picture import draw_table
from .table import cautions, markdown, rows_of, write_tables


def write(folders, out, baseline=None, with_paper=()):
    """Write table.md, .csv, .json, .tex and .png to `out`.

    Args:
        folders: of runs.
        baseline: name or folder of the run that the others are compared with; None = no comparison.
        with_paper: keys of PAPER_ROWS.
    Returns:
        the Markdown.
    Raises:
        UsageError: nothing finished in one of the folders; a name that is none of the runs' or of the paper's rows.
    """
    runs = {run.name: run for run in read_runs(folders)}
    by_folder = {os.path.abspath(folder): run for folder, run in zip(folders, runs.values())}
    if baseline is not None:
        found = runs.get(baseline) or by_folder.get(os.path.abspath(baseline))
        require("--baseline", baseline, found is not None, "one of " + ", ".join(runs))
        baseline = found
    for paper in with_paper:
        require("--paper", paper, paper in PAPER_ROWS, "one of " + "; ".join(PAPER_ROWS))
    rows, remarks = rows_of(list(runs.values()), baseline, with_paper), cautions(list(runs.values()), baseline)
    write_tables(rows, remarks, out)
    draw_table(rows, os.path.join(out, "table.png"))
    return markdown(rows, remarks)
