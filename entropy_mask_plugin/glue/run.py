"""All trials of a fine-tuning: prepared, run several at once. What is finished is never repeated."""

import itertools
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from tqdm import tqdm

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.vocabulary import symbols_of_checkpoint
from ..corpus.matching import read_matching_tokenizer
from ..huggingface.tokenizer_files import find_tokenizer
from ..reporting.records import OBJECT, read_record
from ..system.atomic_files import atomic_path, read_bytes, remove_leftovers, write_bytes, write_json
from ..system.digests import digest, digest_of_file
from ..system.errors import UsageError, require
from ..system.finite import refuse_not_finite
from ..system.locks import exclusive_lock, wait_for_lock
from ..system.processes import all_of, describe_error, gpus, threads_of_each
from .binarize import binarize_task
from .cells import read_settings
from .protocols import MOST_JOBS, Protocol, check_protocol, check_seeds, model_settings, optimizer_for
from .reading import missing_files, read_from_hub, read_task
from .tasks import TASKS
from .trial import GlueTrial, run_trial

CHECKPOINT_FLAG = "--checkpoint"
OLD_SETTINGS = {"optimizer": "adam"}  # what settings.json of older versions leaves out


@dataclass
class FineTuningSettings:
    """The flags of `entropy-mask glue`.

    Raises:
        UsageError: names the first flag out of its range, or the files that are missing.
    """

    checkpoint: str
    out: str
    protocol: Protocol
    tasks: List[str]
    seeds: List[int]
    glue: Optional[str] = None  # None = from the hub
    data: Optional[str] = None  # binarised tasks; None = in `out`
    tokenizer: Optional[str] = None
    freeze_encoder: bool = False
    limit: Optional[int] = None  # examples of each split
    jobs: int = 1
    extra_args: Tuple[str, ...] = ()  # for fairseq-train

    def __post_init__(self):
        require("--jobs", self.jobs, 1 <= self.jobs <= MOST_JOBS, f"1 to {MOST_JOBS}")
        require("--limit", self.limit, self.limit is None or self.limit >= 1, "1 or more")
        check_seeds(self.seeds)
        require("--out", self.out, not set(self.out) & set(",:"), "no comma or colon, where fairseq splits paths")
        for name in self.tasks:
            require("--tasks", name, name in TASKS and self.tasks.count(name) == 1, "all or some of " + ",".join(TASKS))
            require("--tasks", f"f1 of {len(TASKS[name].labels)} labels in {name}",
                    "f1" not in TASKS[name].official or len(TASKS[name].labels) == 2, "two, the second of which counts")
        check_protocol(self.protocol)
        missing = missing_files(self.tasks, self.glue) if self.glue else []
        if missing:
            raise UsageError(f"--glue: {len(missing)} files are missing, expected {', '.join(missing)}")

    def record(self) -> Dict[str, Any]:
        """settings.json: what two calls must share to be one run; tasks and seeds may be added later."""
        return {"checkpoint": os.path.abspath(self.checkpoint), "checkpoint_digest": digest_of_file(self.checkpoint),
                "protocol": json.loads(json.dumps(self.protocol._asdict())), "freeze_encoder": self.freeze_encoder,
                "limit": self.limit, "extra_args": list(self.extra_args), "optimizer": optimizer_for(self.extra_args)}


def fine_tune(settings: FineTuningSettings) -> Tuple[int, List[Tuple[str, int, str]]]:
    """Run every (task, seed) that is not finished.

    Returns:
        how many are finished now, and the failures: [(task, seed, sentence)].

    Raises:
        UsageError: the checkpoint, its tokenizer or GLUE's files are not as they must be; `out` is of another run, or
            another run is at work there.
    """
    with exclusive_lock(settings.out):
        trials = prepare_trials(settings)
        failures = run_trials(trials, settings.jobs)
        return len(trials) - len(failures), failures


def prepare_trials(settings: FineTuningSettings) -> List[GlueTrial]:
    """Check the checkpoint and the folder, binarise the tasks and write settings.json."""
    state = read_checkpoint(settings.checkpoint, CHECKPOINT_FLAG)
    model = {**model_settings(state, settings.checkpoint, CHECKPOINT_FLAG), "freeze_encoder": settings.freeze_encoder}
    refuse_not_finite(state["model"], settings.checkpoint, CHECKPOINT_FLAG)
    symbols = symbols_of_checkpoint(state, settings.checkpoint)
    if symbols is None:
        raise UsageError(f"{CHECKPOINT_FLAG}: {settings.checkpoint} does not say its vocabulary, expected a dict.txt "
                         "beside it")
    tokenizer = matching_tokenizer(settings, state, symbols)
    refuse_other_settings(settings)
    n_examples = {name: prepare_task_data(settings, name, tokenizer, symbols, state) for name in settings.tasks}
    write_json(os.path.join(settings.out, "settings.json"), settings.record())
    threads = threads_of_each(settings.jobs)
    devices = itertools.cycle(gpus() or [None])
    return [GlueTrial(name, seed, n_examples[name], settings.protocol, settings.out, data_folder(settings, name),
                      os.path.abspath(settings.checkpoint), model, threads, next(devices), settings.extra_args)
            for name in settings.tasks for seed in settings.seeds]


def matching_tokenizer(settings, state, symbols):
    """With `encode` and `names`, checked against the checkpoint's vocabulary."""
    return read_matching_tokenizer(find_tokenizer(settings.tokenizer, settings.checkpoint, state), symbols)


def refuse_other_settings(settings: FineTuningSettings) -> None:
    """
    Raises:
        UsageError: `out` has the settings.json of another run.
    """
    existing, now = read_settings(settings.out), settings.record()
    for name, value in now.items() if existing else ():
        old = existing.get(name, OLD_SETTINGS.get(name))
        if old != value:
            raise UsageError(f"--out: {settings.out} is a run with {name} {old}, now {value}; "
                             "expected the same settings or a new folder")


def data_folder(settings, name):
    return os.path.abspath(os.path.join(settings.data or os.path.join(settings.out, "data"), name))


def prepare_task_data(settings, name, tokenizer, symbols, state):
    """Binarise a task where that is not done yet. Returns its number of training examples.

    Raises:
        UsageError: the folder holds the task for another vocabulary, length or limit, or from another source.
    """
    folder, dictionary = data_folder(settings, name), "".join(f"{symbol} 1\n" for symbol in symbols[4:-1])
    made_for = {"dictionary": digest(dictionary.encode()), "tokenizer": digest(tokenizer.content),
                "source": digest_of_examples(settings, name), "positions": state["cfg"]["model"]["max_positions"],
                "limit": settings.limit}
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with wait_for_lock(os.path.dirname(folder)):  # several runs may share it
        remove_leftovers(os.path.dirname(folder))
        if not os.path.exists(folder):
            write_binarized(settings, name, tokenizer, dictionary, made_for, folder)
    return n_train_examples(folder, made_for)


def write_binarized(settings, name, tokenizer, dictionary, made_for, folder):
    """The whole folder at once, with the tokenizer's files and made_for.json."""
    if settings.glue:
        splits, malformed = read_task(name, settings.glue, settings.limit)
    else:
        splits, malformed = read_from_hub(name, settings.limit), {}
    with atomic_path(folder) as tmp:
        truncated = binarize_task(name, splits, tokenizer, dictionary, made_for["positions"], tmp,
                                  len(os.sched_getaffinity(0)))
        for file, content in tokenizer.files.items():  # for the export of the fine-tuned model
            write_bytes(os.path.join(tmp, file), content)
        write_json(os.path.join(tmp, "made_for.json"), {
            "n_examples": {split: len(examples) for split, examples in splits.items()}, "n_truncated": truncated,
            "n_malformed": malformed, "made_for": made_for})


def n_train_examples(folder, made_for):
    """From made_for.json, after checking it."""
    path = os.path.join(folder, "made_for.json")
    require("--data", f"{folder} without made_for.json", os.path.exists(path), "a folder that this command made")
    record = read_record(path, {"made_for": OBJECT, "n_examples": OBJECT})
    for part, value in made_for.items():
        old = record["made_for"].get(part)
        if old != value:
            raise UsageError(f"--data: {folder} was made for another {part} ({old}), expected {value}, or another "
                             "folder")
    return record["n_examples"]["train"]


def digest_of_examples(settings, name):
    """What identifies the examples."""
    if not settings.glue:
        return "the hub"
    files = [os.path.join(settings.glue, TASKS[name].folder, file) for file in ("train.tsv", *TASKS[name].dev.values())]
    return digest(b"".join(map(read_bytes, files)))


def run_trials(trials: Sequence[GlueTrial], jobs: int) -> List[Tuple[str, int, str]]:
    """Bring all trials to their end. Returns the failures; one that fails does not stop the others.

    The bar counts training examples: a trial of MNLI has 160 times those of RTE.
    """
    failures, finished = [], [trial for trial in trials if trial.is_finished()]
    initial, total = (sum(trial.n_train_examples for trial in part) for part in (finished, trials))
    with tqdm(total=total, initial=initial, unit_scale=True, unit=" examples",
              desc=f"{len(trials)} fine-tunings") as bar:
        for trial, error in all_of([trial for trial in trials if trial not in finished], run_trial, jobs):
            if error is not None:
                failures.append((trial.task, trial.seed, describe_error(error)))
                tqdm.write(f"failed: {trial.task}, seed {trial.seed}: {describe_error(error)}")
            bar.set_postfix_str(f"{trial.task}, seed {trial.seed}")
            bar.update(trial.n_train_examples)
    return failures
