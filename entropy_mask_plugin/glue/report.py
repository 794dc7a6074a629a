"""Runs to tables and a picture, in a folder."""

import os
from typing import Optional, Sequence

from ..system.errors import require
from .cells import read_fine_tuning_runs
from .paper import PAPER_ROWS
from .picture import draw_scores
from .table import remarks_on, score_records, write_tables


def write_glue_report(folders: Sequence[str], out: str, baseline: Optional[str] = None,
                      with_paper: Sequence[str] = ()) -> str:
    """Write table.md, .csv, .json, .tex and .png to `out`.

    Args:
        folders: of runs.
        out: folder of the tables and the picture.
        baseline: name or folder of the run that the others are compared with; None = no comparison.
        with_paper: keys of PAPER_ROWS.
    Returns:
        the Markdown.
    Raises:
        UsageError: nothing finished in one of the folders; a name that is none of the runs' or of the paper's rows.
    """
    runs = {run.name: run for run in read_fine_tuning_runs(folders)}
    baseline_run = None
    if baseline is not None:
        by_folder = {os.path.abspath(folder): run for folder, run in zip(folders, runs.values())}
        baseline_run = runs.get(baseline) or by_folder.get(os.path.abspath(baseline))
        require("--baseline", baseline, baseline_run is not None, "one of " + ", ".join(runs))
    for paper in with_paper:
        require("--paper", paper, paper in PAPER_ROWS, "one of " + "; ".join(PAPER_ROWS))
    records = score_records(list(runs.values()), baseline_run, with_paper)
    text = write_tables(records, remarks_on(list(runs.values()), baseline_run), out)
    draw_scores(records, os.path.join(out, "table.png"))
    return text
