"""The stages of `entropy-mask benchmark --stages`, each in a separate process with its own time limit.

Each result is written to DIR/results.jsonl as soon as it is measured, and the output of the stages goes to DIR/log. So
a run that is cut off keeps its results so far, and a stage that fails does not stop the next ones.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from ..system.errors import require
from ..system.machine import versions
from ..system.supported import installed_fairseq
from .results import STAGE_LOG, record

# Logging is set up before fairseq is imported, one of whose modules would set DEBUG for all loggers.
START = ("import logging; logging.basicConfig(level=logging.WARNING); logging.disable(logging.WARNING); "
         "from entropy_mask_plugin import register; register(); "
         "from entropy_mask_plugin.benchmark.stages import main; main()")
LEAST_SECONDS = 15  # no stage starts with less of the budget left


class Stage(NamedTuple):
    """A stage.

    summary: the question it answers, one line; seconds: time limit; module, function: what runs; interpreted: on a CPU,
    Triton's kernels run in its interpreter.
    """

    summary: str
    seconds: int
    module: str
    function: str = "run"
    interpreted: bool = False


STAGES = {
    "machine": Stage("card, driver and versions", 60, "stages", "describe_machine"),
    "sanity": Stage("does a step on the GPU compute what a CPU does? 13 ways to train", 120, "sanity"),
    "sanity_compiled": Stage("the same with --compile", 150, "sanity", "run_compiled"),
    "kernels": Stage("are the kernels right, and how fast?", 90, "kernels", interpreted=True),
    "step": Stage("whole steps: tokens/s, MFU, memory, kernels by time, lines that wait", 130, "steps", "run_step"),
    "prototypes": Stage("changes that may make a step faster, one on top of the other", 130, "steps", "run_prototypes"),
    "end_to_end": Stage("fairseq-train as a user types it: teacher, student, resumed", 90, "end_to_end"),
    "parts": Stage("masking, refinement, attention, data workers, one by one", 70, "parts"),
    "host": Stage("host overhead of an update, with next to nothing to compute; also on a CPU", 300, "host"),
    "masks": Stage("of a trained --checkpoint on --data: which masks are those of exact entropies", 300, "masks"),
    "compile": Stage("kernels compiled ahead for three kinds of GPU: registers, spills; needs none", 300, "compiling"),
}


class StageOptions(NamedTuple):
    """Options of a stage.

    archs: names; seconds: start nothing new after this time; tiny: sizes for a dry run; checkpoint, data: of the stage
    `masks`.
    """

    archs: Tuple[str, ...]
    seconds: float
    tiny: bool = False
    checkpoint: Optional[str] = None
    data: Optional[str] = None


def run_benchmark_stages(names: Sequence[str], out: str, options: StageOptions,
                         budget: Optional[float] = None) -> Dict[str, str]:
    """Run the stages in this order.

    Args:
        names: keys of STAGES.
        out: folder of the results, the log and the summary; made where it does not exist.
        options: `seconds` is set for each stage.
        budget: seconds for all stages; None = no limit.
    Returns:
        {name: "passed", "failed", "cut off" or "no time left"}.
    Raises:
        UsageError: an unknown stage or arch, a budget out of range.
    """
    from . import summary  # needs what --help does not
    from .variants import ARCH_SIZES

    for name in names:
        require("--stages", name, name in STAGES, "some of " + ", ".join(STAGES))
    for arch in options.archs:
        require("--archs", arch, arch in ARCH_SIZES, "some of " + ", ".join(ARCH_SIZES))
    require("--budget", budget, budget is None or budget > 0, "a number of seconds")
    os.makedirs(out, exist_ok=True)
    end = time.monotonic() + (budget or float("inf"))
    outcomes = {}
    for name in names:
        left = end - time.monotonic()
        outcomes[name] = "no time left" if left < LEAST_SECONDS else run_stage(name, out, options, left)
        log_line(out, f"== {name}: {outcomes[name]}")
    summary.write_summary(out)
    return outcomes


def run_stage(name: str, out: str, options: StageOptions, left: float) -> str:
    """Run one stage and return its outcome, as in `run_benchmark_stages`. left: seconds left of the budget."""
    limit = min(STAGES[name].seconds, left)
    log_line(out, f"== {name}: {STAGES[name].summary}; at most {limit:.0f} s")
    options = options._replace(seconds=0.8 * limit)
    command = [sys.executable, "-c", START, name, json.dumps(options._asdict())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               env=stage_environment(name, out), start_new_session=True)
    cut_off = threading.Event()
    timer = threading.Timer(limit, lambda: cut_off.set() or os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    try:
        for line in process.stdout:
            log_line(out, line.rstrip().split("\r")[-1])
        status = process.wait()
    finally:
        timer.cancel()
    return "cut off" if cut_off.is_set() else "failed" if status else "passed"


def stage_environment(name: str, out: str) -> Dict[str, str]:
    variables = {**os.environ, "BENCHMARK_OUT": os.path.abspath(out), "PYTHONWARNINGS": "ignore",
                 "PYTHONUNBUFFERED": "1"}
    variables.pop("TRITON_INTERPRET", None)
    import torch

    if STAGES[name].interpreted and not torch.cuda.is_available():
        variables["TRITON_INTERPRET"] = "1"
    return variables


def log_line(out, line):
    print(line, flush=True)
    with open(os.path.join(out, STAGE_LOG), "a", encoding="utf-8") as file:
        file.write(line + "\n")


def describe_machine(options):
    import torch

    packages = {**versions("torch", "triton", "transformers"), "fairseq": installed_fairseq()[1]}
    card = {"device": "cpu"}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        card = {"device": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda,
                "driver": driver()}
    record("machine", **card, cores=os.cpu_count(), **packages)
    return True


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main():
    """Run one stage in this process: its name and its options as JSON are the arguments."""
    name, options = sys.argv[1:]
    stage = STAGES[name]
    run = getattr(importlib.import_module(f"entropy_mask_plugin.benchmark.{stage.module}"), stage.function)
    raise SystemExit(not run(StageOptions(**json.loads(options))))
