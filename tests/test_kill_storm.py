"""Trainings that are killed again and again: fifteen kills here, 100 of each scenario each night (KILLS=100)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NIGHTLY = int(os.environ.get("KILLS", "0"))
BRIEF = ["init + KD, cache", "accuracy", "two ranks, ema"]  # five kills each


@pytest.mark.slow
@pytest.mark.parametrize("names", [[]] if NIGHTLY else [[name] for name in BRIEF], ids=" ".join)
def test_killed_trainings_end_with_the_weights_of_an_undisturbed_one(names, data_bin, teacher):
    command = [sys.executable, Path(__file__).parent / "kill_storm.py", "--data", data_bin, "--teacher", teacher,
               "--kills", str(NIGHTLY or 5), *(["--only", *names] if names else [])]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    assert all(f"{name}: {NIGHTLY or 5} kills, " in done.stdout for name in names)
