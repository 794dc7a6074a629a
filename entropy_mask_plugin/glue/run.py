"""All units of a fine-tuning: prepared, run several at once, reported. What is finished is never repeated."""

import itertools
import json
import os
from dataclasses import dataclass
from typing import List, Optional

from tqdm import tqdm

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.vocabulary import symbols_of_checkpoint
from ..corpus.wordpiece import WordPieceTokenizer
from ..huggingface.sentencepiece_model import read_tokenizer
from ..huggingface.tokenizer_files import find_tokenizer
from ..system.atomic_files import atomic_path, read_json, remove_leftovers, write_bytes, write_json
from ..system.digests import digest, digest_of_file
from ..system.errors import UsageError, require
from ..system.locks import exclusive_lock, wait_for_lock
from ..system.processes import all_of, describe_error, gpus, threads_of_each
from .binarize import binarize_task
from .cells import read_settings
from .protocols import Protocol, check_protocol, model_settings, optimizer_for
from .reading import missing_files, read_from_hub, read_task
from .tasks import TASKS
from .unit import Unit, run_unit

FLAG = "--checkpoint"


@dataclass
class Settings:
    """The flags of the command `glue`."""

    checkpoint: str
    out: str
    protocol: Protocol
    tasks: List[str]
    seeds: List[int]
    glue: Optional[str] = None  # None = from the hub
    data: Optional[str] = None  # binarised tasks; None = in `out`
    tokenizer: Optional[str] = None
    freeze_encoder: bool = False
    limit: Optional[int] = None
    jobs: int = 1
    more: tuple = ()  # further words for fairseq-train

    def __post_init__(self):
        require("--jobs", self.jobs, self.jobs >= 1, "1 or more")
        require("--limit", self.limit, self.limit is None or self.limit >= 1, "1 or more")
        require("--seeds", self.seeds, self.seeds and len(set(self.seeds)) == len(self.seeds), "different numbers")
        require("--out", self.out, not set(self.out) & set(",:"), "no comma or colon, where fairseq splits paths")
        for name in self.tasks:
            require("--tasks", name, name in TASKS and self.tasks.count(name) == 1, "all or some of " + ",".join(TASKS))
        check_protocol(self.protocol)
        missing = missing_files(self.tasks, self.glue) if self.glue else []
        if missing:
            raise UsageError(f"--glue: {len(missing)} files are missing, expected {', '.join(missing)}")

    def record(self):
        """What makes two runs the same; tasks and seeds may be added later."""
        return {"checkpoint": os.path.abspath(self.checkpoint),
                "content of the checkpoint": digest_of_file(self.checkpoint),
                "protocol": json.loads(json.dumps(self.protocol._asdict())), "freeze encoder": self.freeze_encoder,
                "limit": self.limit, "more flags": list(self.more), "optimizer": optimizer_for(self.more)}


def fine_tune(settings):
    """Run every (task, seed) that is not finished.

    Returns:
        how many are finished now, and the failures: [(task, seed, sentence)].

    Raises:
        UsageError: the checkpoint, its tokenizer or GLUE's files are not as they must be; `out` is of another run, or
            another run is at work there.
    """
    with exclusive_lock(settings.out):
        return fine_tune_alone(settings)


def fine_tune_alone(settings):
    state = read_checkpoint(settings.checkpoint, FLAG)
    model = {**model_settings(state, settings.checkpoint, FLAG), "freeze_encoder": settings.freeze_encoder}
    symbols = symbols_of_checkpoint(state, settings.checkpoint)
    if symbols is None:
        raise UsageError(f"{FLAG}: {settings.checkpoint} does not say its vocabulary, expected a dict.txt beside it")
    tokenizer = tokenizer_of(settings, state, symbols)
    refuse_another_run(settings)
    rows = {name: prepared(settings, name, tokenizer, symbols, state) for name in settings.tasks}
    write_json(os.path.join(settings.out, "settings.json"), settings.record())
    threads = threads_of_each(settings.jobs)
    devices = itertools.cycle(gpus() or [None])
    units = [Unit(name, seed, rows[name], settings.protocol, settings.out, data_folder(settings, name),
                  os.path.abspath(settings.checkpoint), model, threads, next(devices), settings.more)
             for name in settings.tasks for seed in settings.seeds]
    failures = run_units(units, settings.jobs)
    return len(units) - len(failures), failures


def tokenizer_of(settings, state, symbols):
    """With `encode` and `names`, checked against the checkpoint's vocabulary."""
    path = find_tokenizer(settings.tokenizer, settings.checkpoint, state)
    is_bert = os.path.isdir(path) or path.endswith(".txt")
    tokenizer = WordPieceTokenizer(path) if is_bert else read_tokenizer(path)
    unknown = sorted({line.rsplit(" ", 1)[0] for line in tokenizer.dictionary({}).splitlines()} - set(symbols))
    if unknown:
        raise UsageError(f"--tokenizer: {path} has pieces that the checkpoint does not know, {unknown[0]!r} for one; "
                         "expected the tokenizer that it was trained with")
    return tokenizer


def refuse_another_run(settings):
    before, now = read_settings(settings.out), settings.record()
    for name, value in now.items() if before else ():
        was = before.get(name, "adam" if name == "optimizer" else None)  # which once was not recorded
        if was != value:
            raise UsageError(f"--out: {settings.out} is a run with {name} {was}, now {value}; "
                             "expected the same settings or a new folder")


def data_folder(settings, name):
    return os.path.abspath(os.path.join(settings.data or os.path.join(settings.out, "data"), name))


def prepared(settings, name, tokenizer, symbols, state):
    """Binarise a task where that is not done yet. Returns its number of training examples.

    Raises:
        UsageError: the folder holds the task for another vocabulary, length or limit, or from another source.
    """
    folder, dictionary = data_folder(settings, name), "".join(f"{symbol} 1\n" for symbol in symbols[4:-1])
    record = os.path.join(folder, "made_for.json")
    made_for = {"dictionary": digest(dictionary.encode()), "tokenizer": digest(tokenizer.content),
                "source": source_of(settings, name), "positions": state["cfg"]["model"]["max_positions"],
                "limit": settings.limit}
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with wait_for_lock(os.path.dirname(folder)):  # several runs may share it
        remove_leftovers(os.path.dirname(folder))
        if not os.path.exists(folder):
            if settings.glue:
                splits, malformed = read_task(name, settings.glue, settings.limit)
            else:
                splits, malformed = read_from_hub(name, settings.limit), {}
            with atomic_path(folder) as tmp:
                shortened = binarize_task(name, splits, tokenizer, dictionary, made_for["positions"], tmp,
                                          len(os.sched_getaffinity(0)))
                for file, content in tokenizer.files.items():  # for the export of the fine-tuned model
                    write_bytes(os.path.join(tmp, file), content)
                write_json(os.path.join(tmp, "made_for.json"), {
                    "examples": {split: len(examples) for split, examples in splits.items()}, "shortened": shortened,
                    "malformed rows left out": malformed, "made for": made_for})
    require("--data", f"{folder} without made_for.json", os.path.exists(record), "a folder that this command made")
    found = read_json(record)
    for part, value in made_for.items():
        if found["made for"].get(part) != value:
            raise UsageError(f"--data: {folder} was made for another {part} ({found['made for'].get(part)}), expected "
                             f"{value}, or another folder")
    return found["examples"]["train"]


def source_of(settings, name):
    """What identifies the examples."""
    if not settings.glue:
        return "the hub"
    files = [os.path.join(settings.glue, TASKS[name].folder, file) for file in ("train.tsv", *TASKS[name].dev.values())]
    return digest(b"".join(open(path, "rb").read() for path in files))


def run_units(units, jobs):
    """Bring all units to their end. Failures, in words; one that fails does not stop the others.

    The bar counts training examples: MNLI's unit has 160 times those of RTE.
    """
    failures, finished = [], [unit for unit in units if unit.is_finished()]
    initial, total = (sum(unit.rows for unit in part) for part in (finished, units))
    with tqdm(total=total, initial=initial, unit_scale=True, unit=" examples",
              desc=f"{len(units)} fine-tunings") as bar:
        for unit, error in all_of([unit for unit in units if unit not in finished], run_unit, jobs):
            if error is not None:
                failures.append((unit.task, unit.seed, describe_error(error)))
                tqdm.write(f"failed: {unit.task}, seed {unit.seed}: {describe_error(error)}")
            bar.set_postfix_str(f"{unit.task}, seed {unit.seed}")
            bar.update(unit.rows)
    return failures
