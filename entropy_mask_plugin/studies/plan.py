"""A study at a scale as the commands that will run, and where each leaves its files.

    RUN/teacher/                                its training, where --teacher names none
    RUN/entropies/                              the cache of its entropies
    RUN/glue/                                   binarised tasks
    RUN/ROW/CORRUPTION/seedN/pretraining/       what fairseq-train leaves, train.log
    RUN/ROW/CORRUPTION/seedN/fine-tuning/       what the command `glue` leaves
    RUN/ROW/CORRUPTION/seedN/record.json        when both are finished
"""

import functools
import os
import shlex
import sys
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from fairseq.data import Dictionary, data_utils

from ..checkpoints.reading import file_or_huggingface_folder, read_checkpoint
from ..glue.protocols import model_settings
from ..glue.reading import missing_files
from ..glue.tasks import GLUE
from ..system.errors import UsageError, require
from ..system.processes import PACKAGE
from .rows import CORRUPTIONS, ROWS, STUDIES, rows_of
from .scales import SCALES

CLI = ("python", "-m", "entropy_mask_plugin.cli")
FINISHED = "finished.json"  # of a step, in its folder
TEACHER_SEED = 1000  # no student's: they would share its first weights
OWNED = {  # flags that the plan goes by, and what to use instead
    "--max-epoch": "--epochs", "--max-update": "--epochs", "--total-num-update": "--epochs", "--seed": "--seeds",
    **dict.fromkeys(("--batch-size", "--max-sentences", "--max-tokens", "--update-freq", "--tokens-per-sample",
                     "--sample-break-mode"), "another scale"),
    "--arch": "--arch before the --", "--teacher": "--teacher before the --", "--save-dir": "--out",
    "--leave-unmasked-prob": "--corruption", "--random-token-prob": "--corruption",
    **dict.fromkeys(("--mask-strategy", "--static-masks", "--mask-count", "--self-mask-from-epoch", "--kd-weight",
                     "--kd-start-epoch", "--entropy-cache"), "--rows, which differ in it"),
}


@dataclass
class Options:
    """The flags of the command `studies`."""

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
        require("--seeds", self.seeds, all(0 <= seed < 2**32 for seed in self.seeds), "0 to 2^32 - 1")
        require("--seeds", self.seeds, self.teacher or TEACHER_SEED not in self.seeds,
                f"others than {TEACHER_SEED}, the teacher's")
        require("--out", self.out, not set(self.out) & set(",:"), "no comma or colon, where fairseq splits paths")
        for flag, values in (("STUDY", self.studies), ("--corruption", self.corruptions), ("--rows", self.only or ())):
            require(flag, " ".join(values), len(set(values)) == len(values), "each once")
        for word in self.more:
            owned = [flag for flag in OWNED if word.startswith("--") and flag.startswith(word.split("=")[0])]
            require("--", word, not owned, f"{OWNED[owned[0]]}: the plan goes by it" if owned else "")
        self.sizes = SCALES[self.scale]
        self.tasks = list(self.tasks or self.sizes.tasks)
        for task in self.tasks:
            require("--tasks", task, task in GLUE and self.tasks.count(task) == 1, "some of " + ",".join(GLUE))
        missing = missing_files(self.tasks, self.glue)
        if missing:
            raise UsageError(f"--glue: {len(missing)} files are missing, expected {', '.join(missing)}, or --tasks "
                             "without them")
        self.data = [":".join(os.path.abspath(part) for part in corpus.split(":")) for corpus in self.data]
        needed = 1 + max(ROWS[name].corpus for name in self.rows())
        require("--data", f"{len(self.data)} data-bins", len(self.data) == needed,
                f"{needed} for these rows (shards are one, joined by colons)")
        for corpus in self.data:
            for number, folder in enumerate(corpus.split(":")):
                valid = () if number else ("valid.bin", "valid.idx")  # fairseq validates on the first shard's
                missing = [name for name in ("dict.txt", "train.bin", "train.idx", *valid)
                           if not os.path.exists(os.path.join(folder, name))]
                shards = " or one of its shards" if os.path.exists(os.path.join(folder, "shard0")) else ""
                require("--data", f"no {', '.join(missing)} in {folder}", not missing, f"a data-bin{shards}")
        symbols = [Dictionary.load(os.path.join(corpus.split(":")[0], "dict.txt")).symbols for corpus in self.data]
        require("--data", "corpora of different vocabularies", all(each == symbols[0] for each in symbols),
                "one dict.txt for all: prepare the second with the --tokenizer of the first")
        if self.teacher is not None:
            require("--teacher", self.teacher, os.path.exists(self.teacher), "a checkpoint or a Hugging Face folder")
            self.teacher = os.path.abspath(file_or_huggingface_folder(self.teacher, "--teacher"))
            if not os.path.isdir(self.teacher):  # its FLOPs are counted and it is fine-tuned: it has to be of our archs
                model_settings(read_checkpoint(self.teacher, "--teacher"), self.teacher, "--teacher")
        self.glue, self.out = os.path.abspath(self.glue), os.path.abspath(self.out)
        self.epochs = self.epochs or self.sizes.epochs

    def rows(self):
        return [name for name in rows_of(self.studies) if not self.only or name in self.only]

    def path(self, *parts):
        return os.path.join(self.out, *parts)


class Step(NamedTuple):
    """One command, which one row needs or several do."""

    kind: str  # "teacher", "entropies", "pretraining", "fine-tuning"
    name: str
    command: Tuple[str, ...]  # "python" stands for this interpreter
    folder: str
    marks: Tuple[str, ...] = (FINISHED,)  # files in the folder that are all there when it is finished

    @property
    def log(self):
        return os.path.join(self.folder, "train.log")

    def is_finished(self):
        return all(os.path.exists(os.path.join(self.folder, name)) for name in self.marks)

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


def plan_of(options):
    """{Unit: (Step, …)} of all that `options` ask for, seed by seed: the first seed of every row before the second of
    any."""
    units = [Unit(row, corruption, seed) for seed in options.seeds for corruption in options.corruptions
             for row in options.rows()]
    return {unit: tuple(steps_of(options, unit)) for unit in units}


def teacher_of(options):
    """Path of the teacher's checkpoint, there or to come."""
    if options.teacher is None:
        return options.path("teacher", "checkpoint_last.pt")
    return options.path("teacher", "imported", "model.pt") if os.path.isdir(options.teacher) else options.teacher


def teacher_steps(options):
    folder = options.path("teacher")
    if options.teacher is None:
        # 80/10/10: a teacher that saw <mask> alone was never asked what stands at a visible token.
        flags = ["--mask-strategy", "random", *CORRUPTIONS["80-10-10"].split()]
        return [Step("teacher", "the teacher", training_command(options, flags, 0, TEACHER_SEED, folder), folder)]
    if os.path.isdir(options.teacher):
        command = (*CLI, "import-hf-bert", "--hf", options.teacher, "--out", os.path.join(folder, "imported"))
        marks = (os.path.join("imported", "model.pt"),)  # the import's folder appears whole or not at all
        return [Step("teacher", "the teacher, from Hugging Face's format", command, folder, marks)]
    return []


def cache_step(options, corpus):
    words = [*shlex.split(options.sizes.pretraining), *options.more]
    precisions = [word for flag in ("--precision", "--entropy-precision") for word in last_value(words, flag)]
    command = (*CLI, "build-entropy-cache", options.data[corpus], "--teacher",
               teacher_of(options), "--entropy-cache", options.path("entropies"), "--tokens-per-sample",
               str(options.sizes.length), *precisions, *cpu(options))
    name = "the teacher's entropies" + (f" of corpus {corpus + 1}" if corpus else "")
    return Step("entropies", name, command, options.path("entropies", f"corpus{corpus + 1}"))


def last_value(words, flag):
    """[flag, value], the last word on it, given as one word or two; [] where there is none."""
    found = []
    for word, value in zip(words, [*words[1:], ""]):
        if word == flag:
            found = [flag, value]
        elif word.startswith(flag + "="):
            found = [flag, word.split("=", 1)[1]]
    return found


def steps_of(options, unit):
    """In their order. Steps that several rows share are the same in each."""
    row = ROWS[unit.row]
    begins = unit._replace(row=row.pretraining or unit.row)
    flags, corpus = ROWS[begins.row].flags, ROWS[begins.row].corpus
    if flags is None or "{teacher}" in flags:
        yield from teacher_steps(options)
    if flags is not None and "{cache}" in flags:
        yield cache_step(options, corpus)
    folder = os.path.join(begins.folder(options), "pretraining")
    checkpoint = os.path.join(folder, "checkpoint_last.pt")
    if flags is None:
        checkpoint = teacher_of(options)
    else:
        filled = [word.format(teacher=teacher_of(options), cache=options.path("entropies"))
                  for word in shlex.split(flags)]
        yield Step("pretraining", f"{begins}: pretraining", training_command(
            options, [*CORRUPTIONS[unit.corruption].split(), *filled], corpus, unit.seed, folder), folder)
    folder = os.path.join(unit.folder(options), "fine-tuning")
    data = options.path("glue", "teacher" if flags is None else "data")  # a given teacher may be of another length
    yield Step("fine-tuning", f"{unit}: fine-tuning", (
        *CLI, "glue", "--checkpoint", checkpoint, "--glue", options.glue,
        "--tasks", ",".join(options.tasks), "--seeds", str(unit.seed), "--data", data, "--out", folder,
        *shlex.split(options.sizes.tuning), *shlex.split(row.tuning), "--",
        *shlex.split(options.sizes.tuning_training), *cpu(options)), folder,
        (FINISHED, *(f"{task}/seed{unit.seed}/result.json" for task in options.tasks)))


def cpu(options):
    return ["--cpu"] if "--cpu" in options.more else []


def training_command(options, flags, corpus, seed, folder):
    sizes = options.sizes
    updates = total_updates(options, corpus)
    ends = ["--max-epoch", str(options.epochs)]
    ends += ["--max-update", str(sizes.max_updates)] if sizes.max_updates else []
    filled = [word.format(updates=updates) for word in shlex.split(sizes.pretraining)]
    return ("python", "-m", "fairseq_cli.train", options.data[corpus], "--user-dir", PACKAGE,
            "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--arch", options.arch,
            *shlex.split(sizes.archs[options.arch]), "--tokens-per-sample", str(sizes.length),
            "--batch-size", str(sizes.batch[options.arch]), *ends, *filled, "--seed", str(seed),
            "--distributed-world-size", "1", "--num-workers", "0" if "--cpu" in options.more else "4",
            "--no-epoch-checkpoints", "--keep-interval-updates", "1", "--log-format", "simple",
            "--save-dir", folder, *options.more, *flags)


@functools.cache
def tokens_of(folder):
    """Of the training text of a data-bin."""
    lines = data_utils.load_indexed_dataset(os.path.join(folder, "train"))  # `sizes` is read from its open file
    return int(lines.sizes.sum())


def total_updates(options, corpus):
    """Of all epochs of a pretraining: fairseq makes a batch more of what is no multiple of 8 at an epoch's end."""
    tokens = (options.sizes.length - 1) * options.sizes.batch[options.arch]
    batches = [-(-tokens_of(shard) // tokens) + 1 for shard in options.data[corpus].split(":")]
    updates = sum(batches[epoch % len(batches)] for epoch in range(options.epochs))
    return min(updates, options.sizes.max_updates or updates)
