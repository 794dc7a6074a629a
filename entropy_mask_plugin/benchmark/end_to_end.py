"""Stage `end_to_end`: the commands that a user types. Train a teacher; then a student with its cached entropies, and
self-masking and distillation from epoch 2; then resume the student for a third epoch."""

import os
import shutil
import subprocess
import sys
import tempfile

from ..system.processes import PACKAGE
from . import data
from .results import record
from .steps import TINY
from .timing import ON_GPU

SHOWN_LINES = ("| train_inner |", "| valid |", "| train |", "error:", "Error", "done training", "Loaded checkpoint")


def run(options):
    folder = tempfile.mkdtemp(prefix="end-to-end-")
    small = options.tiny or not ON_GPU
    try:
        data.write_data_bin(os.path.join(folder, "bin"), 5120 if small else 163840)
        teacher = os.path.join(folder, "teacher", "checkpoint_last.pt")
        student = ["--mask-strategy", "high", "--teacher", teacher, "--entropy-cache", os.path.join(folder, "cache"),
                   "--self-mask-from-epoch", "2", "--kd-weight", "0.5", "--kd-start-epoch", "2"]
        return (train(folder, "teacher", small, False, "--mask-strategy", "random", "--leave-unmasked-prob", "0.1",
                      "--random-token-prob", "0.1", "--max-epoch", "1")
                and train(folder, "student", small, False, *student, "--max-epoch", "2")
                and train(folder, "student", small, True, *student, "--max-epoch", "3"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def train(folder, name, small, resumes, *flags):
    """Train, print the important lines of the log as they come, and record the outcome. Returns whether training
    succeeded and resumed as expected."""
    sizes = [*TINY, "--tokens-per-sample", "32", "--batch-size", "8"] if small else [
        "--tokens-per-sample", "128", "--batch-size", "64"]
    command = [
        sys.executable, "-m", "fairseq_cli.train", os.path.join(folder, "bin"), "--user-dir", PACKAGE,
        "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--arch", "bertlet", *sizes,
        "--precision", "bf16", "--optimizer", "fused_adamw", "--lr", "1e-4", "--lr-scheduler", "fixed",
        "--clip-norm", "1", "--num-workers", "2", "--log-format", "simple", "--log-interval", "10",
        "--no-epoch-checkpoints", "--save-dir", os.path.join(folder, name), *([] if ON_GPU else ["--cpu"]), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    has_resumed = False
    for line in process.stdout:
        has_resumed |= "Loaded checkpoint" in line
        if any(text in line for text in SHOWN_LINES):
            print(line.rstrip()[:240], flush=True)
    record("end_to_end", run=name, max_epoch=int(flags[-1]), exit_status=process.wait(), resumed=has_resumed)
    return process.returncode == 0 and has_resumed == resumes
