"""Trainings and commands that are killed again and again: some kills here, 100 of each scenario each night (KILLS=100).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NIGHTLY = int(os.environ.get("KILLS", "0"))
BRIEF = {  # scenarios: kills of each
    ("init + KD, cache",): 5, ("accuracy",): 5, ("ema, guided ramp, two ranks",): 5,
    ("prepare-corpus", "build-entropy-cache", "import-hf-bert", "export-hf-bert"): 3,
}  # test_glue_run and test_studies kill theirs once


@pytest.mark.slow
@pytest.mark.parametrize("names", [()] if NIGHTLY else BRIEF, ids=", ".join)
def test_killed_runs_end_with_the_files_of_an_undisturbed_one(names, inputs):
    command = [sys.executable, Path(__file__).parent / "kill_storm.py", "--inputs", inputs,
               "--kills", str(NIGHTLY or BRIEF[names]), *(["--only", *names] if names else [])]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    assert all(f"{name}: " in done.stdout for name in names)
    assert done.stdout.count(" runs with the files of an undisturbed one") >= max(1, len(names))
