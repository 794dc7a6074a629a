"""Would training work here?   entropy-mask doctor, or python -m entropy_mask_plugin.doctor

One line per problem, with its fix. Exit status 1 if training would fail.
"""

import glob
import importlib
import importlib.metadata
import logging
import os
import sys
from types import ModuleType
from typing import Any, Iterator, Optional, Tuple

from .system import extras
from .system.errors import UsageError
from .system.supported import OLDEST, installed_fairseq, python_problem

OK, NOTE, ERROR = "ok", "note", "ERROR"
INSTALL = "run scripts/install.sh"
Finding = Tuple[str, str]  # OK, NOTE or ERROR; one line


def print_findings(data: Optional[str], teacher: Optional[str]) -> int:
    """Print a line for each check.

    Args:
        data: data-bin folder, or several separated by colons; None = not checked.
        teacher: checkpoint or Hugging Face folder; None = not checked.
    Returns:
        the exit status, 1 if training would fail.
    """
    logging.disable(logging.WARNING)  # fairseq's own messages while it is imported
    failed = False
    for kind, line in findings(data, teacher):
        print(f"{kind:>5}  {line}", flush=True)
        failed |= kind == ERROR
    return int(failed)


def findings(data: Optional[str], teacher: Optional[str]) -> Iterator[Finding]:
    """Yield the result of each check; arguments as for `print_findings`."""
    yield python()
    yield package("pip", NOTE, "only needed to install more packages")
    installed = [package(name, ERROR, INSTALL) for name in ("torch", "numpy", "fairseq", "sentencepiece", "tokenizers",
                                                            "safetensors")]
    yield from installed
    for extra in ("corpus", "glue", "report", "tracking", "atlas"):
        yield optional(extra)
    if any(kind == ERROR for kind, _ in installed):
        return
    yield plug_in()
    yield from devices()
    yield from torchaudio()
    data_findings = list(data_bins(data)) if data else []
    yield from data_findings
    if teacher:
        yield from teacher_of(teacher, data if OK in (kind for kind, _ in data_findings) else None)


def python() -> Finding:
    """Is it supported? A checkout also runs in a Python that pip would have refused."""
    problem = python_problem(sys.version_info[:2])
    return (ERROR, problem) if problem else (OK, "python {}.{}.{}".format(*sys.version_info))


def package(name: str, otherwise: str, fix: str) -> Finding:
    """Is it installed, can it be imported, is it recent enough? otherwise: the kind of finding if it cannot be
    imported; fix: what to do then."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        return otherwise, f"{name} is not installed ({error}): {fix}"
    except Exception as error:  # a wheel for another machine, numpy or python
        return otherwise, f"{name} cannot be imported ({type(error).__name__}: {first_line(error)}): {fix}"
    version = version_of(name, module)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST.get(name, ()):
        oldest = ".".join(map(str, OLDEST[name]))
        return ERROR, f"{name} {version} is too old, expected {oldest} or newer: {fix}"
    return OK, f"{name} {version}"


def optional(extra: str) -> Finding:
    """Are the packages of an extra installed, which only some commands need?"""
    missing = extras.missing_modules(extra)
    if missing:
        return NOTE, f"[{extra}] {', '.join(missing)} not installed: {extras.install(extra)} ({extras.PURPOSES[extra]})"
    return OK, f"[{extra}] {', '.join(extras.MODULES[extra])}"


def version_of(name: str, module: ModuleType) -> str:
    """The installed version of a module; fairseq's distribution has another name."""
    try:
        return importlib.metadata.version(installed_fairseq()[0] if name == "fairseq" else name)
    except importlib.metadata.PackageNotFoundError:
        return getattr(module, "__version__", "(unknown version)")


def plug_in() -> Finding:
    """Can the plug-in be registered, and is its task this one?"""
    try:
        importlib.import_module("entropy_mask_plugin").register()
    except Exception as error:
        if isinstance(error, UsageError):  # says itself what to do
            return ERROR, str(error)
        reason = f"{type(error).__name__}: {first_line(error)}"
        return ERROR, f"the plug-in cannot be registered with fairseq ({reason}): {INSTALL}"
    from fairseq.tasks import TASK_REGISTRY

    if TASK_REGISTRY["entropy_masked_lm"].__module__ != "entropy_mask_plugin.task":
        return ERROR, "another plug-in has registered a task named entropy_masked_lm: remove it"
    return OK, "fairseq knows the task, the criterion and the archs of this plug-in"


def devices() -> Iterator[Finding]:
    """Which devices are there, and do they have bf16 instructions?"""
    import torch

    if not torch.cuda.is_available():
        yield NOTE, "torch finds no GPU: train with --cpu, or install a CUDA build of torch"
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        yield (OK, "--precision bf16 works on this CPU") if fast else (
            NOTE, "--precision bf16 works on this CPU, but slowly: it has no bf16 instructions")
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        yield OK, f"GPU {i}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        yield (OK, f"--precision bf16 works on GPU {i}") if properties.major >= 8 else (
            NOTE, f"GPU {i} has no bf16 instructions: --precision fp32 is faster there")


def torchaudio() -> Iterator[Finding]:
    """fairseq requires it and this plug-in never imports it, but transformers does wherever it is installed."""
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError:
        pass
    except Exception:
        yield NOTE, ("torchaudio was built for another torch, so that transformers cannot be imported: "
                     "pip uninstall torchaudio")


def data_bins(data: str) -> Iterator[Finding]:
    """Are the dictionary and the splits of each shard there and complete? data: folders separated by colons."""
    from fairseq import utils

    from .checkpoints.vocabulary import read_dictionary_of_shards

    folders = utils.split_paths(data)
    for folder in folders:
        data_bin = shards_in(folder)
        if data_bin:
            yield ERROR, f"data: {folder} is not a data-bin: use {data_bin}"
            return
    try:
        dictionary = read_dictionary_of_shards(folders)
    except UsageError as error:
        yield ERROR, f"{error}: create it with entropy-mask prepare-corpus"
        return
    yield OK, f"data: {len(dictionary) + 1:,} symbols, <mask> included"
    for i, folder in enumerate(folders):
        for split in ("train", "valid") if i == 0 else ("train",):
            yield split_of(folder, split, dictionary)


def split_of(folder: str, split: str, dictionary: Any) -> Finding:
    """Is a split of a data-bin complete? The checks are those of a training."""
    from .training.data_files import load_lines

    try:
        lines = load_lines(os.path.join(folder, split), dictionary, combine=split == "train")
    except UsageError as error:
        return ERROR, f"{error}: create it again with entropy-mask prepare-corpus"
    return OK, f"data: {folder}: {len(lines):,} lines of {split}, {int(lines.sizes.sum()):,} tokens"


def shards_in(folder: str) -> Optional[str]:
    """The data-bins in the folder of a corpus, separated by colons; None if the folder is a data-bin, or has none."""
    if os.path.exists(os.path.join(folder, "train.bin")):
        return None
    for place in (folder, os.path.join(folder, "bin")):
        shards = sorted(glob.glob(os.path.join(glob.escape(place), "shard*")), key=lambda path: (len(path), path))
        if shards or os.path.exists(os.path.join(place, "train.bin")):
            return ":".join(shards or [place])
    return None


def teacher_of(path: str, data: Optional[str]) -> Iterator[Finding]:
    """Can it be loaded, and does its vocabulary match the data? data: None = not compared."""
    try:
        yield teacher_for(path, data) if data else teacher_alone(path)
    except UsageError as error:
        fix = ": prepare the data with its tokenizer (prepare-corpus --tokenizer or --bert-vocab)"
        yield ERROR, f"{error}{fix if 'another vocabulary' in str(error) else ''}"


def teacher_for(path: str, data: str) -> Finding:
    """The teacher of a run on this data.

    Raises:
        UsageError: it cannot be used.
    """
    from .config import EntropyMaskedLMConfig
    from .pretrained.teacher import load_teacher
    from .task import EntropyMaskedLMTask

    cfg = EntropyMaskedLMConfig(data=data, tokens_per_sample=2, mask_strategy="random", seed=1, tpu=False)
    model = load_teacher(path, EntropyMaskedLMTask.setup_task(cfg, from_checkpoint=True))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return OK, (f"teacher: {path}, {parameters:,} parameters, the vocabulary of the data, for --tokens-per-sample up "
                f"to {model.max_positions()}")


def teacher_alone(path: str) -> Finding:
    """The teacher, without data to compare its vocabulary with.

    Raises:
        UsageError: it cannot be read, or has no LM head.
    """
    from .checkpoints.reading import NO_HEAD, file_or_huggingface_folder, read_checkpoint
    from .checkpoints.vocabulary import symbols_of_checkpoint
    from .huggingface.importing import read_bert
    from .pretrained.teacher import refuse_headless

    path = file_or_huggingface_folder(path, "--teacher")
    if os.path.isdir(path):
        bert = read_bert(path, "--teacher")
        refuse_headless(bert.has_head, path)
        symbols = bert.vocabulary.symbols()
    else:
        state = read_checkpoint(path, "--teacher")
        refuse_headless(NO_HEAD not in (state.get("extra_state") or {}), path)
        symbols = symbols_of_checkpoint(state, path)
    vocabulary = f"has {len(symbols):,} symbols" if symbols else "does not contain its vocabulary"
    return NOTE, f"teacher: {path} {vocabulary}; give --data to compare it with the data's"


def first_line(error: Exception) -> str:
    """The first line of its message, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"


if __name__ == "__main__":
    from .cli import run_command

    sys.exit(run_command("doctor", prog="python -m entropy_mask_plugin.doctor"))
