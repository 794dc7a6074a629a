"""What a study is asked for: the flags of `entropy-mask studies`, checked, and what they leave open filled in."""

import os
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Sequence

from ..checkpoints.reading import file_or_huggingface_folder, read_checkpoint
from ..checkpoints.vocabulary import read_dictionary
from ..config import SCALE, flag_of, names_with
from ..criterion import EntropyMaskedLMCriterionConfig
from ..glue.protocols import MOST_JOBS, check_seeds, model_settings
from ..glue.reading import missing_files
from ..glue.tasks import TASKS
from ..system.errors import UsageError, require
from .conditions import CONDITIONS, CORRUPTIONS, STUDIES, condition_names
from .scales import SCALES, Scale

TEACHER_SEED = 1000  # no student's: they would share its first weights
SETTINGS_OF_FAIRSEQ = {  # flags of fairseq's own that the plan sets, and what to use instead
    "--max-epoch": "--epochs", "--max-update": "--epochs", "--total-num-update": "--epochs",
    **dict.fromkeys(("--batch-size", "--max-sentences", "--max-tokens", "--update-freq"), SCALE),
    "--arch": "--arch before the --",
}


def owned() -> Dict[str, str]:
    """{flag of fairseq-train that the plan sets: what to use instead}. Flags of the task and the criterion say it
    themselves."""
    set_by_study = {**names_with("study"), **names_with("study", EntropyMaskedLMCriterionConfig)}
    return {**SETTINGS_OF_FAIRSEQ, **{flag_of(name): instead for name, instead in set_by_study.items()}}


@dataclass(frozen=True)
class StudyOptions:
    """The flags of `entropy-mask studies`. `resolve` checks them and fills in what is None."""

    studies: Sequence[str]
    scale: str
    data: Sequence[str]  # data-bin folders, one for each corpus; shards are joined by colons
    glue: str
    out: str
    seeds: Sequence[int]
    arch: str = "bertlet"
    corruptions: Sequence[str] = ("all-mask",)
    teacher: Optional[str] = None  # checkpoint or Hugging Face folder; None = one is trained
    tasks: Optional[Sequence[str]] = None  # of GLUE; None = the scale's
    conditions: Optional[Sequence[str]] = None  # None = all of the studies
    epochs: Optional[int] = None  # of a pretraining; None = the scale's
    jobs: int = 1
    extra_args: Sequence[str] = ()  # for every fairseq-train that pretrains

    @property
    def sizes(self) -> Scale:
        return SCALES[self.scale]

    def path(self, *parts: str) -> str:
        """In the folder of the study."""
        return os.path.join(self.out, *parts)


def resolve(options: StudyOptions) -> StudyOptions:
    """The options as a plan needs them: checked, with absolute paths, nothing left open but the teacher.

    Raises:
        UsageError: names the first flag that cannot be used, or the files that are missing.
    """
    check_values(options)
    options = replace(
        options, tasks=tuple(options.tasks or options.sizes.tasks), epochs=options.epochs or options.sizes.epochs,
        conditions=tuple(name for name in condition_names(options.studies)
                         if not options.conditions or name in options.conditions),
        glue=os.path.abspath(options.glue), out=os.path.abspath(options.out),
        data=tuple(":".join(os.path.abspath(shard) for shard in corpus.split(":")) for corpus in options.data))
    check_tasks(options)
    check_data(options)
    return replace(options, teacher=resolved_teacher(options.teacher))


def check_values(options: StudyOptions) -> None:
    """What can be said without a look at the disk."""
    for flag, values, choices in (("STUDY", options.studies, STUDIES), ("--scale", [options.scale], SCALES),
                                  ("--corruption", options.corruptions, CORRUPTIONS)):
        for value in values:
            require(flag, value, value in choices, "one of " + ", ".join(choices))
    archs, names = SCALES[options.scale].archs, condition_names(options.studies)
    require("--arch", options.arch, options.arch in archs, "one of " + ", ".join(archs))
    for name in options.conditions or ():
        require("--rows", name, name in names, "some of " + ", ".join(names))
    require("--jobs", options.jobs, 1 <= options.jobs <= MOST_JOBS, f"1 to {MOST_JOBS}")
    require("--epochs", options.epochs, options.epochs is None or options.epochs >= 1, "1 or more")
    check_seeds_of(options)
    require("--out", options.out, not set(options.out) & set(",:"), "no comma or colon, where fairseq splits paths")
    for flag, values in (("STUDY", options.studies), ("--corruption", options.corruptions),
                         ("--rows", options.conditions or ())):
        require(flag, " ".join(values), len(set(values)) == len(values), "each once")
    for argument in options.extra_args:
        check_extra_argument(argument)


def check_seeds_of(options: StudyOptions) -> None:
    check_seeds(options.seeds)
    require("--seeds", options.seeds, options.teacher or TEACHER_SEED not in options.seeds,
            f"others than {TEACHER_SEED}, the teacher's")


def check_extra_argument(argument: str) -> None:
    """argparse takes the beginning of a flag for the flag, so that is refused too."""
    name = argument.split("=")[0]
    instead = next((instead for flag, instead in owned().items() if name.startswith("--") and flag.startswith(name)),
                   None)
    require("--", argument, instead is None, f"{instead}: the plan goes by it")


def check_tasks(options: StudyOptions) -> None:
    for task in options.tasks:
        require("--tasks", task, task in TASKS and options.tasks.count(task) == 1, "some of " + ",".join(TASKS))
    missing = missing_files(options.tasks, options.glue)
    if missing:
        raise UsageError(f"--glue: {len(missing)} files are missing, expected {', '.join(missing)}, or --tasks "
                         "without them")


def check_data(options: StudyOptions) -> None:
    """As many corpora as the conditions need, whole, and of one vocabulary."""
    needed = 1 + max(CONDITIONS[name].corpus for name in options.conditions)
    require("--data", f"{len(options.data)} data-bins", len(options.data) == needed,
            f"{needed} for these rows (shards are one, joined by colons)")
    for corpus in options.data:
        for number, folder in enumerate(corpus.split(":")):
            missing = missing_parts(folder, with_valid=number == 0)  # fairseq validates on the first shard's
            shards = " or one of its shards" if os.path.exists(os.path.join(folder, "shard0")) else ""
            require("--data", f"no {', '.join(missing)} in {folder}", not missing, f"a data-bin{shards}")
    symbols = [read_dictionary(corpus.split(":")[0]).symbols for corpus in options.data]
    require("--data", "corpora of different vocabularies", all(each == symbols[0] for each in symbols),
            "one dict.txt for all: prepare the second with the --tokenizer of the first")


def missing_parts(folder: str, with_valid: bool) -> List[str]:
    """Names of the files of a data-bin that are not there."""
    valid = ("valid.bin", "valid.idx") if with_valid else ()
    return [name for name in ("dict.txt", "train.bin", "train.idx", *valid)
            if not os.path.exists(os.path.join(folder, name))]


def resolved_teacher(teacher: Optional[str]) -> Optional[str]:
    """Absolute path of a checkpoint or a Hugging Face folder."""
    if teacher is None:
        return None
    require("--teacher", teacher, os.path.exists(teacher), "a checkpoint or a Hugging Face folder")
    path = os.path.abspath(file_or_huggingface_folder(teacher, "--teacher"))
    if not os.path.isdir(path):  # its FLOPs are counted and it is fine-tuned: it has to be of our archs
        model_settings(read_checkpoint(path, "--teacher"), path, "--teacher")
    return path
