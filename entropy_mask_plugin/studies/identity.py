"""What makes two records parts of one study: the code, the data, the sizes."""

import glob
import os
import subprocess
from typing import Any, Dict, Optional

import torch

from ..glue.tasks import TASKS
from ..reporting.records import read_record
from ..system.digests import digest, digest_of_file
from ..system.errors import UsageError
from ..system.machine import cpu_name, versions
from ..system.processes import PACKAGE
from ..system.supported import installed_fairseq
from .options import StudyOptions
from .plan import FINISHED

PHRASES = {"extra_args": "other flags after --", "data": "other --data", "glue": "other --glue",
           "scale": "another --scale", "arch": "another --arch", "teacher": "another --teacher",
           "epochs": "another --epochs"}  # of a key, in an error


def identity(options: StudyOptions) -> Dict[str, Any]:
    """study.json; tasks, conditions, seeds and corruptions may be added to a study later."""
    return {
        "commit": commit(),
        "data": {f"corpus{i + 1}/{name}": value for i, corpus in enumerate(options.data)
                 for name, value in digests_of_corpus(corpus).items()},
        "glue": {task: digest_of_task(options.glue, task) for task in options.tasks},
        "scale": options.scale, "arch": options.arch, "epochs": options.epochs,
        "teacher": digest_of_teacher(options.teacher), "extra_args": list(options.extra_args),
    }


def step_environment(options: StudyOptions) -> Dict[str, Any]:
    """What a step runs on. A study may run on several machines, and the record of each step names its own."""
    fairseq, _ = installed_fairseq()
    return {"machine": describe_device(options),
            "versions": versions("torch", fairseq, "numpy", "scikit-learn", "entropy-mask-plugin")}


def commit() -> Optional[str]:
    """Of the plug-in's own repository, and whether its files differ from it; None where it is in none."""
    def git(*args):
        return subprocess.run(["git", "-C", PACKAGE, *args], capture_output=True, text=True)

    try:
        head = git("rev-parse", "HEAD")
    except OSError:  # no git
        return None
    if head.returncode or git("ls-files", "--error-unmatch", "__init__.py").returncode:
        return None
    places = ("--", PACKAGE)
    top = git("rev-parse", "--show-toplevel").stdout.strip()
    new = git("ls-files", "--others", "--exclude-standard", "--full-name", *places).stdout.splitlines()
    changes = git("diff", "HEAD", *places).stdout + " ".join(digest_of_file(os.path.join(top, name)) for name in new)
    return head.stdout.strip() + (f" with changes {digest(changes.encode())[:8]}" if changes else "")


def digests_of_corpus(corpus: str) -> Dict[str, str]:
    return {name: digest(" ".join(digest_of_file(path) for shard in corpus.split(":")
                                  for path in sorted(glob.glob(os.path.join(glob.escape(shard), name)))).encode())
            for name in ("dict.txt", "train.*", "valid.*")}


def digest_of_teacher(path: Optional[str]) -> Optional[str]:
    """Of a checkpoint or of all files of a folder; None for one that is trained here."""
    if path is None:
        return None
    files = sorted(glob.glob(os.path.join(glob.escape(path), "*"))) if os.path.isdir(path) else [path]
    return digest(" ".join(digest_of_file(file) for file in files if os.path.isfile(file)).encode())


def digest_of_task(folder: str, task: str) -> str:
    files = [os.path.join(folder, TASKS[task].folder, name) for name in ("train.tsv", *TASKS[task].dev.values())]
    return digest(" ".join(map(digest_of_file, files)).encode())


def describe_device(options: StudyOptions) -> str:
    """The GPUs, or the CPU and its cores."""
    if torch.cuda.is_available() and "--cpu" not in options.extra_args:
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{len(os.sched_getaffinity(0))} cores, {cpu_name()}"


def refuse_another(out: str, now: Dict[str, Any]) -> None:
    """
    Args:
        out: folder of the study.
        now: an `identity`, or a part of one.
    Raises:
        UsageError: the folder is of another commit, other data or sizes, which the message names; or a record cannot be
            read.
    """
    if not holds_work(out):  # a mistake in the flags of the first call leaves study.json and logs
        return
    places = [os.path.join(out, "study.json"),
              *sorted(glob.glob(os.path.join(glob.escape(out), "*", "*", "seed*", "record.json")))]
    for path in filter(os.path.exists, places):
        record = read_record(path)
        existing = record.get("identity", record)
        for name, value in now.items():
            mismatch = describe_mismatch(existing.get(name), value)
            if mismatch:
                raise UsageError(f"--out: {path} was made with {PHRASES.get(name, f'another {name}')} ({mismatch}, or "
                                 "a new folder")


def holds_work(out: str) -> bool:
    """Whether there is a record, a finished step, or a checkpoint to resume from."""
    return any(name in (FINISHED, "record.json") or name.endswith(".pt") for _, _, names in os.walk(out)
               for name in names)


def describe_mismatch(existing: Any, now: Any) -> Optional[str]:
    """None where they agree. Files that only one of them has may be added to a study."""
    if isinstance(existing, dict) and isinstance(now, dict):
        names = [name for name in existing if name in now and existing[name] != now[name]]
        return f"{', '.join(names)}), expected the same files" if names else None
    return None if existing == now else f"{existing}), expected {now}"
