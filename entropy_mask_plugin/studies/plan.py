"""A study at a scale as the commands that will run, and where each leaves its files.

    RUN/teacher/                                its training, where --teacher names none
    RUN/entropies/                              the cache of its entropies
    RUN/glue/                                   binarised tasks
    RUN/ROW/CORRUPTION/seedN/pretraining/       what fairseq-train leaves, train.log
    RUN/ROW/CORRUPTION/seedN/fine-tuning/       what finetune_glue.py leaves
    RUN/ROW/CORRUPTION/seedN/record.json        when both are finished
"""

import os
import shlex
import sys
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from fairseq.data import data_utils

from ..errors import UsageError, require
from ..glue.reading import missing_files
from ..glue.tasks import GLUE
from .rows import CORRUPTIONS, ROWS, STUDIES, TEACHER, rows_of
from .scales import SCALES

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = os.path.join(os.path.dirname(PACKAGE), "scripts")
FINISHED = "finished.json"  # of a step, in its folder


@dataclass
class Options:
    """The flags of scripts/reproduce.py."""

    studies: list
    scale: str
    data: list  # data-bin folders, one for each corpus
    glue: str
    out: str
    seeds: list
    arch: str = "bertlet"
    corruptions: Tuple[str, ...] = ("all-mask",)
    teacher: Optional[str] = None
    tasks: Optional[list] = None
    only: Optional[list] = None  # names of rows; None = all rows of the studies
    epochs: Optional[int] = None
    jobs: int = 1
    more: tuple = ()  # further words for every fairseq-train that pretrains

    def __post_init__(self):
        for flag, values, known in (("STUDY", self.studies, STUDIES), ("--scale", [self.scale], SCALES),
                                    ("--corruption", self.corruptions, CORRUPTIONS)):
            for value in values:
                require(flag, value, value in known, "one of " + ", ".join(known))
        archs = SCALES[self.scale].archs
        require("--arch", self.arch, self.arch in archs, "one of " + ", ".join(archs))
        for row in self.only or ():
            require("--rows", row, row in rows_of(self.studies), "some of " + ", ".join(rows_of(self.studies)))
        require("--jobs", self.jobs, self.jobs >= 1, "1 or more")
        require("--epochs", self.epochs, self.epochs is None or self.epochs >= 1, "1 or more")
        require("--seeds", self.seeds, self.seeds and len(set(self.seeds)) == len(self.seeds), "different numbers")
        require("--out", self.out, not set(self.out) & set(",:"), "no comma or colon, where fairseq splits paths")
        self.scale_name, self.scale = self.scale, SCALES[self.scale]
        self.tasks = list(self.tasks or self.scale.tasks)
        for task in self.tasks:
            require("--tasks", task, task in GLUE and self.tasks.count(task) == 1, "some of " + ",".join(GLUE))
        missing = missing_files(self.tasks, self.glue)
        if missing:
            raise UsageError(f"--glue: {len(missing)} files are missing, expected {', '.join(missing)}, or --tasks "
                             "without them")
        self.data = [":".join(os.path.abspath(part) for part in corpus.split(":")) for corpus in self.data]
        needed = 1 + max(ROWS[name].corpus for name in self.rows())
        require("--data", f"{len(self.data)} corpora", len(self.data) >= needed, f"{needed}: the study compares them")
        for corpus in self.data:
            for folder in corpus.split(":"):
                require("--data", folder, os.path.exists(os.path.join(folder, "dict.txt")), "a data-bin with dict.txt")
        if self.teacher is not None:
            require("--teacher", self.teacher, os.path.exists(self.teacher), "a checkpoint or a Hugging Face folder")
            self.teacher = os.path.abspath(self.teacher)
        self.glue, self.out = os.path.abspath(self.glue), os.path.abspath(self.out)
        self.epochs = self.epochs or self.scale.epochs

    def rows(self):
        return [name for name in rows_of(self.studies) if not self.only or name in self.only]

    def path(self, *parts):
        return os.path.join(self.out, *parts)


class Step(NamedTuple):
    """One command. It is finished when FINISHED is in its folder."""

    name: str
    command: Tuple[str, ...]  # "python" stands for this interpreter
    folder: str

    @property
    def log(self):
        return os.path.join(self.folder, "train.log")

    def is_finished(self):
        return os.path.exists(os.path.join(self.folder, FINISHED))

    def line(self):
        return shlex.join(self.command)

    def words(self):
        return [sys.executable if word == "python" else word for word in self.command]


class Unit(NamedTuple):
    """A row of a table, under one corruption and seed."""

    row: str
    corruption: str
    seed: int

    def folder(self, options):
        return options.path(self.row, self.corruption, f"seed{self.seed}")

    def record(self, options):
        return os.path.join(self.folder(options), "record.json")

    def __str__(self):
        return f"{self.row}, {self.corruption}, seed {self.seed}"


class Plan(NamedTuple):
    shared: Tuple[Step, ...]  # in this order, before all units
    units: dict  # {Unit: (Step, …)}, the steps in their order; two units may share one


def plan_of(options):
    """All that `options` ask for, seed by seed: the first seed of every row before the second of any."""
    units = {Unit(row, corruption, seed): () for seed in options.seeds for corruption in options.corruptions
             for row in options.rows()}
    return Plan(shared_steps(options), {unit: tuple(steps_of(options, unit)) for unit in units})


def teacher_of(options):
    """Path of the teacher's checkpoint, there or to come."""
    if options.teacher is None:
        return options.path("teacher", "checkpoint_last.pt")
    return options.path("teacher", "model.pt") if os.path.isdir(options.teacher) else options.teacher


def shared_steps(options):
    rows = [ROWS[name] for name in options.rows()]
    asked = [row for row in rows if "{teacher}" in (flags_of(row) or "") or row.pretraining == TEACHER]
    cached = sorted({ROWS[row.pretraining or name].corpus for name, row in zip(options.rows(), rows)
                     if "{cache}" in (flags_of(row) or "")})
    return tuple([*(teacher_steps(options) if asked else []), *(cache_step(options, corpus) for corpus in cached)])


def flags_of(row):
    """Of the pretraining that a row needs; None for the teacher's."""
    return ROWS[row.pretraining].flags if row.pretraining in ROWS and row.flags is None else row.flags


def teacher_steps(options):
    folder = options.path("teacher")
    if options.teacher is None:
        # 80/10/10: a teacher that saw <mask> alone was never asked what stands at a visible token.
        flags = ["--mask-strategy", "random", *CORRUPTIONS["80-10-10"].split()]
        return [Step("the teacher", training_command(options, flags, 0, 1, folder), folder)]
    if os.path.isdir(options.teacher):
        command = ("python", os.path.join(SCRIPTS, "import_hf_bert.py"), "--hf", options.teacher, "--out", folder)
        return [Step("the teacher, from Hugging Face's format", command, folder)]
    return []


def cache_step(options, corpus):
    words = [*shlex.split(options.scale.pretraining), *options.more]
    precision = words[words.index("--precision") + 1] if "--precision" in words else "fp32"
    command = ("python", os.path.join(SCRIPTS, "build_entropy_cache.py"), options.data[corpus], "--teacher",
               teacher_of(options), "--entropy-cache", options.path("entropies"), "--tokens-per-sample",
               str(options.scale.length), "--precision", precision, *(["--cpu"] if "--cpu" in words else []))
    name = "the teacher's entropies" + (f" of corpus {corpus + 1}" if corpus else "")
    return Step(name, command, options.path("entropies", f"corpus{corpus + 1}"))


def steps_of(options, unit):
    row = ROWS[unit.row]
    begins = Unit(row.pretraining, *unit[1:]) if row.pretraining in ROWS else unit
    folder = os.path.join(begins.folder(options), "pretraining")
    checkpoint = os.path.join(folder, "checkpoint_last.pt")
    flags = flags_of(row)
    if flags is None:
        checkpoint = teacher_of(options)
    else:
        filled = [word.format(teacher=teacher_of(options), cache=options.path("entropies"))
                  for word in shlex.split(flags)]
        yield Step(f"{begins}: pretraining", training_command(
            options, [*CORRUPTIONS[unit.corruption].split(), *filled], row.corpus, unit.seed, folder), folder)
    folder = os.path.join(unit.folder(options), "fine-tuning")
    data = options.path("glue", "teacher" if flags is None else "data")  # a given teacher may be of another length
    yield Step(f"{unit}: fine-tuning", (
        "python", os.path.join(SCRIPTS, "finetune_glue.py"), "--checkpoint", checkpoint, "--glue", options.glue,
        "--tasks", ",".join(options.tasks), "--seeds", str(unit.seed), "--data", data, "--out", folder,
        *shlex.split(options.scale.tuning), *shlex.split(row.tuning), "--",
        *shlex.split(options.scale.tuning_training), *cpu(options)), folder)


def cpu(options):
    return ["--cpu"] if "--cpu" in options.more else []


def training_command(options, flags, corpus, seed, folder):
    scale = options.scale
    updates = total_updates(options, corpus)
    ends = ["--max-epoch", str(options.epochs)]
    ends += ["--max-update", str(scale.max_updates)] if scale.max_updates else []
    filled = [word.format(updates=updates) for word in shlex.split(scale.pretraining)]
    return ("python", "-m", "fairseq_cli.train", options.data[corpus], "--user-dir", PACKAGE,
            "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--arch", options.arch,
            *shlex.split(scale.archs[options.arch]), "--tokens-per-sample", str(scale.length),
            "--batch-size", str(scale.batch[options.arch]), *ends, *filled, "--seed", str(seed),
            "--distributed-world-size", "1", "--num-workers", "0" if "--cpu" in options.more else "2",
            "--no-epoch-checkpoints", "--keep-interval-updates", "1", "--log-format", "simple",
            "--save-dir", folder, *flags, *options.more)


def total_updates(options, corpus):
    """Of all epochs of a pretraining: fairseq makes a batch more of what is no multiple of 8 at an epoch's end."""
    lines = [data_utils.load_indexed_dataset(os.path.join(shard, "train")) for shard in options.data[corpus].split(":")]
    tokens = (options.scale.length - 1) * options.scale.batch[options.arch]
    batches = [-(-int(shard.sizes.sum()) // tokens) + 1 for shard in lines]
    updates = sum(batches[epoch % len(batches)] for epoch in range(options.epochs))
    return min(updates, options.scale.max_updates or updates)
