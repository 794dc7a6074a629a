"""All units of a fine-tuning: prepared, run several at once, reported. What is finished is never repeated."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import List, Optional

from tqdm import tqdm

from ..checkpoints import read_checkpoint
from ..corpus.tokenizer import read_tokenizer
from ..corpus.wordpiece import WordPieceTokenizer
from ..errors import UsageError, require
from ..huggingface.tokenizer_files import find_tokenizer
from ..partial import remove, write_json
from ..vocabulary import symbols_of_checkpoint
from .binarize import binarize_task
from .protocols import Protocol
from .reading import missing_files, read_from_hub, read_task
from .tasks import TASKS
from .unit import Unit, UnitFailed, run_unit

FLAG = "--checkpoint"


@dataclass
class Settings:
    """The flags of scripts/finetune_glue.py."""

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
        for name in self.tasks:
            require("--tasks", name, name in TASKS, "all or some of " + ",".join(TASKS))
        missing = missing_files(self.tasks, self.glue) if self.glue else []
        if missing:
            raise UsageError(f"--glue: {len(missing)} files are missing, expected {', '.join(missing)}")

    def record(self):
        """What makes two runs the same; tasks and seeds may be added later."""
        with open(self.checkpoint, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return {"checkpoint": os.path.abspath(self.checkpoint), "content of the checkpoint": digest,
                "protocol": json.loads(json.dumps(self.protocol._asdict())), "freeze encoder": self.freeze_encoder,
                "limit": self.limit, "more flags": list(self.more)}


def fine_tune(settings):
    """Run every (task, seed) that is not finished.

    Returns:
        how many are finished now, and the failures: [(task, seed, sentence)].

    Raises:
        UsageError: the checkpoint, its tokenizer or GLUE's files are not as they must be; `out` is of another run.
    """
    state = read_checkpoint(settings.checkpoint, FLAG)
    symbols = symbols_of_checkpoint(state, settings.checkpoint)
    if symbols is None:
        raise UsageError(f"{FLAG}: {settings.checkpoint} does not say its vocabulary, expected a dict.txt beside it")
    tokenizer = tokenizer_of(settings, state, symbols)
    remember(settings)
    rows = {name: prepared(settings, name, tokenizer, symbols, state) for name in settings.tasks}
    model = {**state["cfg"]["model"], "freeze_encoder": settings.freeze_encoder}
    threads = max(1, len(os.sched_getaffinity(0)) // settings.jobs)
    units = [Unit(name, seed, rows[name], settings.protocol, settings.out, data_folder(settings, name),
                  os.path.abspath(settings.checkpoint), model, threads, settings.more)
             for name in settings.tasks for seed in settings.seeds]
    failures = run_units([unit for unit in units if not unit.is_finished()], len(units), settings.jobs)
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


def remember(settings):
    """settings.json of the run; a folder of other settings is refused."""
    os.makedirs(settings.out, exist_ok=True)
    path, now = os.path.join(settings.out, "settings.json"), settings.record()
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
        for name, value in now.items():
            if before.get(name) != value:
                raise UsageError(f"--out: {settings.out} is a run with {name} {before.get(name)}, now {value}; "
                                 "expected the same settings or a new folder")
    write_json(path, now)


def data_folder(settings, name):
    return os.path.abspath(os.path.join(settings.data or os.path.join(settings.out, "data"), name))


def prepared(settings, name, tokenizer, symbols, state):
    """Binarise a task where that is not done yet. Returns its number of training examples.

    Raises:
        UsageError: the folder holds the task for another vocabulary, length or limit.
    """
    folder, dictionary = data_folder(settings, name), "".join(f"{symbol} 1\n" for symbol in symbols[4:-1])
    record = folder + ".json"
    made_for = {"dictionary": hashlib.blake2b(dictionary.encode(), digest_size=16).hexdigest(),
                "positions": state["cfg"]["model"]["max_positions"], "limit": settings.limit}
    if not (os.path.exists(folder) and os.path.exists(record)):
        if settings.glue:
            splits, malformed = read_task(name, settings.glue, settings.limit)
        else:
            splits, malformed = read_from_hub(name, settings.limit), {}
        workers = len(os.sched_getaffinity(0))
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        remove(folder)  # complete, but without its record: killed between the two
        shortened = binarize_task(name, splits, tokenizer, dictionary, made_for["positions"], folder, workers)
        write_json(record, {"examples": {split: len(examples) for split, examples in splits.items()},
                            "shortened": shortened, "malformed rows left out": malformed, "made for": made_for})
    with open(record, encoding="utf-8") as file:
        found = json.load(file)
    if found["made for"] != made_for:
        raise UsageError(f"--data: {folder} was made for {found['made for']}, expected {made_for}")
    return found["examples"]["train"]


def run_units(units, total, jobs):
    """Failures, in words. One that fails does not stop the others."""
    failures = []
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=total, initial=total - len(units), unit="run",
                                                desc="Fine-tuning") as shown:
        running = {pool.submit(run_unit, unit): unit for unit in units}
        try:
            for done in as_completed(running):
                unit = running[done]
                try:
                    done.result()
                except Exception as error:  # one unit's trouble, whatever it is, is not the others'
                    reason = str(error) if isinstance(error, UnitFailed) else f"{type(error).__name__}: {error}"
                    failures.append((unit.task, unit.seed, reason))
                    tqdm.write(f"failed: {unit.task}, seed {unit.seed}: {reason}")
                shown.set_postfix_str(f"{unit.task}, seed {unit.seed}")
                shown.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures
