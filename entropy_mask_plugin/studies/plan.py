"""A study at a scale as the commands that will run, and where each leaves its files.

    RUN/teacher/                                its training, where --teacher names none
    RUN/entropies/                              the cache of its entropies
    RUN/glue/                                   binarised tasks
    RUN/ROW/CORRUPTION/seedN/pretraining/       checkpoints of fairseq-train, train.log
    RUN/ROW/CORRUPTION/seedN/fine-tuning/       the --out of `entropy-mask glue`
    RUN/ROW/CORRUPTION/seedN/record.json        when both are finished
"""

import functools
import os
import shlex
import sys
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from fairseq.data import data_utils

from ..config import flag_of, names_with
from ..system.processes import PACKAGE
from .conditions import CONDITIONS, CORRUPTIONS
from .options import TEACHER_SEED, StudyOptions, owned

CLI = ("python", "-m", "entropy_mask_plugin.cli")
FINISHED = "finished.json"  # of a step, in its folder


class Step(NamedTuple):
    """One command, which one trial needs or several do."""

    kind: str  # "teacher", "entropies", "pretraining", "fine-tuning"
    name: str
    command: Tuple[str, ...]  # "python" stands for this interpreter
    folder: str
    outputs: Tuple[str, ...] = (FINISHED,)  # files in the folder that are all there when it is finished

    @property
    def log(self) -> str:
        return os.path.join(self.folder, "train.log")

    def is_finished(self) -> bool:
        return all(os.path.exists(os.path.join(self.folder, name)) for name in self.outputs)

    def shell_line(self) -> str:
        """As one can type it."""
        return shlex.join(self.command)

    def argv(self) -> List[str]:
        return [sys.executable if argument == "python" else argument for argument in self.command]


class StudyTrial(NamedTuple):
    """A condition under one corruption and seed."""

    condition: str
    corruption: str
    seed: int

    def folder(self, options: StudyOptions) -> str:
        return options.path(self.condition, self.corruption, f"seed{self.seed}")

    def record(self, options: StudyOptions) -> str:
        """Path of its record.json."""
        return os.path.join(self.folder(options), "record.json")

    def __str__(self):
        return f"{self.condition}, {self.corruption}, seed {self.seed}"


def plan_of(options: StudyOptions) -> Dict[StudyTrial, Tuple[Step, ...]]:
    """The steps of every trial, seed by seed: the first seed of every condition before the second of any.

    Args:
        options: of `options.resolve`.
    """
    trials = [StudyTrial(condition, corruption, seed) for seed in options.seeds for corruption in options.corruptions
              for condition in options.conditions]
    return {trial: tuple(steps_of(options, trial)) for trial in trials}


def teacher_path(options: StudyOptions) -> str:
    """Path of the teacher's checkpoint, there or to come."""
    if options.teacher is None:
        return options.path("teacher", "checkpoint_last.pt")
    return options.path("teacher", "imported", "model.pt") if os.path.isdir(options.teacher) else options.teacher


def teacher_steps(options: StudyOptions) -> List[Step]:
    folder = options.path("teacher")
    if options.teacher is None:
        # 80/10/10: a model trained only on <mask> inputs never learns to predict visible tokens.
        flags = ["--mask-strategy", "random", *CORRUPTIONS["80-10-10"].split()]
        return [Step("teacher", "the teacher", pretraining_command(options, flags, 0, TEACHER_SEED, folder), folder)]
    if os.path.isdir(options.teacher):
        command = (*CLI, "import-hf-bert", "--hf", options.teacher, "--out", os.path.join(folder, "imported"))
        outputs = (os.path.join("imported", "model.pt"),)  # the import's folder appears whole or not at all
        return [Step("teacher", "the teacher, from Hugging Face's format", command, folder, outputs)]
    return []


def cache_step(options: StudyOptions, corpus: int, flags: Sequence[str]) -> Step:
    """flags: of the condition; some of them decide what the teacher's entropies are."""
    args = [*shlex.split(options.sizes.pretraining), *options.extra_args]
    decisive = [flag_of(name) for name in names_with("scores") if flag_of(name) not in owned()]
    of_condition = [arg for flag in decisive for arg in last_value(flags, flag)]
    values = [arg for flag in decisive for arg in last_value([*args, *flags], flag)]
    command = (*CLI, "build-entropy-cache", options.data[corpus], "--teacher", teacher_path(options), "--entropy-cache",
               options.path("entropies"), "--tokens-per-sample", str(options.sizes.length), *values,
               *cpu_flag(options))
    name = "the teacher's entropies" + (f" of corpus {corpus + 1}" if corpus else "")
    folder = "".join(f"-{arg.strip('-')}" for arg in (f"corpus{corpus + 1}", *of_condition)).strip("-")
    return Step("entropies", " ".join((name, *of_condition)), command, options.path("entropies", folder))


def last_value(args: Sequence[str], flag: str) -> List[str]:
    """[flag, value] where it is given last, as `FLAG VALUE` or `FLAG=VALUE`; [] where it is not given."""
    pair = []
    for argument, value in zip(args, [*args[1:], ""]):
        if argument == flag:
            pair = [flag, value]
        elif argument.startswith(flag + "="):
            pair = [flag, argument.split("=", 1)[1]]
    return pair


def steps_of(options: StudyOptions, trial: StudyTrial) -> Iterator[Step]:
    """In their order. Steps that several trials share are the same in each."""
    condition = CONDITIONS[trial.condition]
    source = trial._replace(condition=condition.pretraining or trial.condition)  # of the pretrained model
    flags, corpus = CONDITIONS[source.condition].flags, CONDITIONS[source.condition].corpus
    if flags is None or "{teacher}" in flags:
        yield from teacher_steps(options)
    if flags is not None and "{cache}" in flags:
        yield cache_step(options, corpus, shlex.split(flags))
    folder = os.path.join(source.folder(options), "pretraining")
    checkpoint = os.path.join(folder, "checkpoint_last.pt")
    if flags is None:
        checkpoint = teacher_path(options)
    else:
        filled = [flag.format(teacher=teacher_path(options), cache=options.path("entropies"))
                  for flag in shlex.split(flags)]
        yield Step("pretraining", f"{source}: pretraining", pretraining_command(
            options, [*CORRUPTIONS[trial.corruption].split(), *filled], corpus, trial.seed, folder), folder)
    folder = os.path.join(trial.folder(options), "fine-tuning")
    data = options.path("glue", "teacher" if flags is None else "data")  # a given teacher may be of another length
    yield Step("fine-tuning", f"{trial}: fine-tuning", (
        *CLI, "glue", "--checkpoint", checkpoint, "--glue", options.glue,
        "--tasks", ",".join(options.tasks), "--seeds", str(trial.seed), "--data", data, "--out", folder,
        *shlex.split(options.sizes.tuning), *shlex.split(condition.tuning), "--",
        *shlex.split(options.sizes.tuning_training), *cpu_flag(options)), folder,
        (FINISHED, *(f"{task}/seed{trial.seed}/result.json" for task in options.tasks)))


def cpu_flag(options: StudyOptions) -> List[str]:
    return ["--cpu"] if "--cpu" in options.extra_args else []


def pretraining_command(options: StudyOptions, flags: Sequence[str], corpus: int, seed: int,
                        folder: str) -> Tuple[str, ...]:
    sizes = options.sizes
    updates = total_updates(options, corpus)
    ends = ["--max-epoch", str(options.epochs)]
    ends += ["--max-update", str(sizes.max_updates)] if sizes.max_updates else []
    filled = [flag.format(updates=updates) for flag in shlex.split(sizes.pretraining)]
    return ("python", "-m", "fairseq_cli.train", options.data[corpus], "--user-dir", PACKAGE,
            "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--arch", options.arch,
            *shlex.split(sizes.archs[options.arch]), "--tokens-per-sample", str(sizes.length),
            "--batch-size", str(sizes.batch[options.arch]), *ends, *filled, "--seed", str(seed),
            "--distributed-world-size", "1", "--num-workers", "0" if "--cpu" in options.extra_args else "4",
            "--no-epoch-checkpoints", "--keep-interval-updates", "1", "--log-format", "simple",
            "--save-dir", folder, *options.extra_args, *flags)


@functools.cache
def tokens_of(folder: str) -> int:
    """Number of tokens of the training text of a data-bin."""
    lines = data_utils.load_indexed_dataset(os.path.join(folder, "train"))  # `sizes` is read from its open file
    return int(lines.sizes.sum())


def total_updates(options: StudyOptions, corpus: int) -> int:
    """Of all epochs of a pretraining. fairseq makes a further batch of the remainder modulo 8 at an epoch's end."""
    tokens = (options.sizes.length - 1) * options.sizes.batch[options.arch]
    batches = [-(-tokens_of(shard) // tokens) + 1 for shard in options.data[corpus].split(":")]
    updates = sum(batches[epoch % len(batches)] for epoch in range(options.epochs))
    return min(updates, options.sizes.max_updates or updates)
