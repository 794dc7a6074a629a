"""Run a plan: what is finished is never repeated, what was interrupted resumes, what fails does not stop the rest."""

import contextlib
import glob
import itertools
import os
import queue
import re
import sys
import threading
import time
from typing import Dict, Iterator, List, Sequence, Tuple

from tqdm import tqdm

from ..reporting.training_log import CHECKPOINT
from ..system.atomic_files import write_json
from ..system.locks import exclusive_lock
from ..system.processes import ProcessFailed, all_of, describe_error, gpus, run_logged, threads_of_each
from .identity import identity, refuse_another, step_environment
from .options import StudyOptions
from .plan import FINISHED, Step, StudyTrial, plan_of
from .record import is_recorded, write_record

POSITION = re.compile(r"epoch (\d+):\s+(\d+) / (\d+)")
FINE_TUNING = 0.5  # of the time of a pretraining, for the bar alone
SHARED_KINDS = ("teacher", "entropies")  # what many trials need is made first: it fails before days of others
Plan = Dict[StudyTrial, Tuple[Step, ...]]


def all_steps(plan: Plan) -> List[Step]:
    """Every step of a plan, once, what is shared first."""
    steps = {step.folder: step for step in itertools.chain(*plan.values())}.values()
    return sorted(steps, key=lambda step: step.kind not in SHARED_KINDS)


def commands(plan: Plan) -> Iterator[str]:
    """Every command of a plan that is not finished, with its name as a comment."""
    for step in all_steps(plan):
        if step.is_finished():
            yield f"# {step.name}: finished"
        else:
            yield f"# {step.name}"
            yield step.shell_line()


def run_study(options: StudyOptions) -> List[Tuple[str, str]]:
    """
    Args:
        options: of `options.resolve`.
    Returns:
        the failures: [(trial, sentence)].
    Raises:
        UsageError: `out` holds records of another commit or of other data.
    """
    with exclusive_lock(options.out):
        now = identity(options)
        refuse_another(options.out, now)
        plan = plan_of(options)
        write_json(options.path("study.json"), now)
        return Runner(options, plan, now).run()


class Runner:
    def __init__(self, options, plan, now):
        self.options, self.plan, self.now = options, plan, now
        self.environment = step_environment(options)
        self.failed = {}  # folder of a step: its error, which no other trial that needs it has to run into again
        self.locks = {step.folder: threading.Lock() for step in all_steps(plan)}  # several trials may share a step
        self.recording = threading.Lock()  # fairseq parses flags with hydra, which is global
        self.progress = Progress(all_steps(plan), options)
        self.threads = threads_of_each(options.jobs)
        self.devices = queue.Queue()  # one for each job, to be taken and given back
        for _, device in zip(range(options.jobs), itertools.cycle(gpus() or [None])):
            self.devices.put(device)

    def run(self):
        failures = []
        with self.progress:
            trials = [trial for trial in self.plan if not self.is_finished(trial)]
            self.run_shared({trial: self.plan[trial] for trial in trials})
            for trial, error in all_of(trials, self.run_study_trial, self.options.jobs):
                if error is not None:
                    failures.append((str(trial), describe_error(error)))
                    tqdm.write(f"failed: {trial}: {describe_error(error)}", file=sys.stderr)
        return failures

    def run_shared(self, plan):
        for step in all_steps(plan):
            if step.kind in SHARED_KINDS:
                try:
                    with self.take_device() as device:
                        self.run_step(step, device, threads_of_each(1))
                except Exception as error:
                    tqdm.write(f"failed: {step.name}: {describe_error(error)}. The trials that need it are left out.",
                               file=sys.stderr)
                    return

    @contextlib.contextmanager
    def take_device(self):
        device = self.devices.get()
        try:
            yield device
        finally:
            self.devices.put(device)

    def is_finished(self, trial):
        return all(step.is_finished() for step in self.plan[trial]) and is_recorded(self.options, trial)

    def run_study_trial(self, trial):
        with self.take_device() as device:
            for step in self.plan[trial]:
                self.run_step(step, device, self.threads)
        with self.recording:
            write_record(self.options, trial, self.plan[trial], self.now)

    def run_step(self, step, device, threads):
        with self.locks[step.folder]:
            if step.folder in self.failed:
                raise self.failed[step.folder]
            if not step.is_finished():
                os.makedirs(step.folder, exist_ok=True)
                if step.kind == "pretraining" and not os.path.exists(os.path.join(step.folder, CHECKPOINT)):
                    with contextlib.suppress(FileNotFoundError):  # of a call that it cannot resume
                        os.remove(step.log)
                started = time.time()
                try:
                    peak = run_logged(step.argv(), step.log, threads, device, lambda: self.progress.look(step))
                except ProcessFailed as error:
                    self.failed[step.folder] = error
                    raise
                write_json(os.path.join(step.folder, FINISHED), {
                    "command": step.shell_line(), "last_call_seconds": round(time.time() - started, 1),
                    "peak_memory_bytes": peak, "threads": threads, **self.environment})
            self.progress.finish(step)


class Progress:
    """A bar over all steps. A step under way counts by the fraction that its log or its files show."""

    def __init__(self, steps: Sequence[Step], options: StudyOptions):
        self.options, self.lock = options, threading.Lock()
        self.weight = {step.folder: FINE_TUNING if step.kind == "fine-tuning" else 1.0 for step in steps}
        self.fraction = {step.folder: float(step.is_finished()) for step in steps}
        self.bar = tqdm(total=sum(self.weight.values()), initial=self.done(), desc=f"{len(self.weight)} steps",
                        bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def done(self):
        return sum(self.weight[folder] * fraction for folder, fraction in self.fraction.items())

    def look(self, step):
        if step.kind == "fine-tuning":
            finished = glob.glob(os.path.join(glob.escape(step.folder), "*", "seed*", "result.json"))
            self.set(step, len(finished) / len(self.options.tasks))
        else:
            self.set(step, trained_fraction(step.log, self.options.epochs))

    def finish(self, step):
        self.set(step, 1.0)

    def set(self, step, fraction):
        with self.lock:
            self.fraction[step.folder] = max(fraction, self.fraction[step.folder])
            self.bar.set_postfix_str(step.name, refresh=False)
            self.bar.n = self.done()
            self.bar.refresh()


def trained_fraction(log: str, epochs: int) -> float:
    """Of a pretraining, from the last lines of its log."""
    with open(log, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        positions = POSITION.findall(file.read().decode(errors="replace"))
    if not positions:
        return 0.0
    epoch, update, updates = map(int, positions[-1])
    return min(1.0, (epoch - 1 + update / updates) / epochs)
