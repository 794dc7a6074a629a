"""Runs to tables and a picture, in a folder."""

import os

from ..errors import require
from .cells import read_run
from .paper import PAPER_ROWS
from .picture import draw_table
from .table import markdown, rows_of, write_tables


def write(folders, out, baseline=None, with_paper=()):
    """Write table.md, .csv, .json, .tex and .png to `out`.

    Args:
        folders: of runs.
        baseline: name of the run that the others are compared with; None = no comparison.
        with_paper: keys of PAPER_ROWS.
    Returns:
        the Markdown.
    Raises:
        UsageError: nothing finished in one of the folders; a name that is none of the runs' or of the paper's rows.
    """
    runs = {run.name: run for run in map(read_run, folders)}
    require("--baseline", baseline, baseline is None or baseline in runs, "one of " + ", ".join(runs))
    for paper in with_paper:
        require("--paper", paper, paper in PAPER_ROWS, "one of " + "; ".join(PAPER_ROWS))
    rows = rows_of(list(runs.values()), runs.get(baseline), with_paper)
    write_tables(rows, out)
    draw_table(rows, os.path.join(out, "table.png"))
    return markdown(rows)
