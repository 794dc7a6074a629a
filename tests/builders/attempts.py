"""Commands that are started again and again, in forks of a process that has imported everything and computed nothing:
each begins at once. Their child processes are forks too.
"""

import importlib
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from builders.glue import write_glue
from builders.huggingface import make_folder
from builders.training import MODULES, OURS, TINY, TRAINING, docstrings, make_bert_vocabulary
from tqdm import tqdm

import entropy_mask_plugin
from entropy_mask_plugin.cli import main
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.system import processes
from entropy_mask_plugin.system.digests import digest

# tqdm's lock is shared by all forks: one that is killed while it draws a bar would hold it for ever.
os.register_at_fork(after_in_child=lambda: tqdm.set_lock(threading.RLock()))

UNFINISHED = (".partial", ".tmp")  # of names of files that are being written
WITHOUT_RESULTS = re.compile(r".*\.log|(table|report)\..*|.*\.png|claims")  # have times in them, or nothing
# Also the digest of a checkpoint, whose file has times in it.
TIMES = re.compile(r'"(seconds|last_call_seconds|peak_memory_bytes|hours|best_seconds|checkpoint_digest)": [^,}]*')

# name: words of a command; IN is the folder of `make_inputs`, {} the command's own.
TRAIN = ["fairseq-train", "IN/bin", *TRAINING, *OURS, *TINY, "--save-dir", "{}/run", "--save-interval-updates", "3",
         "--keep-interval-updates", "2", "--validate-interval-updates", "5"]
COMMANDS = {
    "prepare-corpus": ["prepare-corpus", "--text", "IN/text.txt", "--out", "{}/corpus", "--vocab-size", "200",
                       "--workers", "2", "--shards", "2"],
    "import-hf-bert": ["import-hf-bert", "--hf", "IN/hf", "--out", "{}/bert"],
    "export-hf-bert": ["export-hf-bert", "--checkpoint", "IN/bert/model.pt", "--out", "{}/hf"],
    "build-entropy-cache": ["build-entropy-cache", "IN/bin", "--teacher", "IN/teacher.pt", "--entropy-cache",
                            "{}/cache", "--tokens-per-sample", "16", "--cpu"],
    "glue": ["glue", "--checkpoint", "IN/bert/model.pt", "--glue", "IN/glue", "--tasks", "rte,sts-b", "--seeds", "1",
             "--lr", "0.001", "--batch-size", "16", "--max-epochs", "2", "--out", "{}/glue", "--", "--cpu"],
    "fairseq-train, cache and masks": [*TRAIN, "--mask-strategy", "high", "--teacher", "IN/teacher.pt",
                                       "--entropy-cache", "{}/cache", "--record-masks", "{}/masks", "--max-epoch", "1"],
    "fairseq-train, own entropies": [*TRAIN, "--mask-strategy", "high", "--self-mask-from-epoch", "1",
                                     "--self-entropy-every", "2", "--entropy-cache", "{}/cache", "--max-epoch", "2"],
    "studies": ["studies", "drift", "--scale", "smoke", "--data", "IN/corpus/bin", "--glue", "IN/glue", "--out",
                "{}/study", "--tasks", "rte", "--seeds", "1", "--rows", "high-init", "--", "--cpu"],
}


def get_ready():
    """Import what the commands import when they run, and compute nothing: a fork must not miss its parent's threads."""
    torch.set_num_threads(1)
    entropy_mask_plugin.register()
    for name in ("corpus.build", "glue.report", "glue.predict", "huggingface.exporting", "scoring.contextual",
                 "studies.run", "studies.report"):
        importlib.import_module(f"entropy_mask_plugin.{name}")


def make_inputs(folder: Path, data_bin: str, teacher: str) -> Path:
    """What the commands read: a data-bin, a teacher, a text, its corpus, a Hugging Face BERT, its import, GLUE."""
    shutil.copytree(data_bin, folder / "bin")
    shutil.copy(teacher, folder / "teacher.pt")
    lines = [" ".join(words) for name in MODULES for words in docstrings(name) if len(words) > 8][:150]
    (folder / "text.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    make_folder(folder / "hf", tokens=make_bert_vocabulary(), num_hidden_layers=1, hidden_size=16,
                intermediate_size=32, num_attention_heads=2, max_position_embeddings=64)
    import_bert(str(folder / "hf"), str(folder / "bert"))
    write_glue(folder / "glue")
    status = main(["prepare-corpus", "--text", str(folder / "text.txt"), "--out", str(folder / "corpus"),
                   "--bert-vocab", str(folder / "hf"), "--valid-fraction", "0.2"])
    assert status is None
    return folder


def words_of(command, inputs, own):
    """The words with their folders in place."""
    return [str(word).replace("IN/", f"{inputs}/").replace("{}", str(own)) for word in command]


def fork(work, log, **environment) -> int:
    """Call `work()` in a fork, its output appended to a log. Returns the fork's process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1), os.dup2(handle, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # not those that pytest reads
        logging.getLogger().handlers.clear()  # fairseq's programs set the log up where nothing else has
        os.environ.update(environment)
        status = status_of(work)
    finally:
        os._exit(status)


def status_of(work) -> int:
    """The exit status of a process that does this work: 0 where it returns None."""
    try:
        try:
            sys.exit(work())
        finally:
            sys.stdout.flush(), sys.stderr.flush()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr, flush=True)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        return 1


def perform(words):
    """Run fairseq-train or a command of entropy-mask in this process."""
    if words[0] != "fairseq-train":
        processes.subprocess = QuickChildren
        return main(words)
    sys.argv = words
    runpy.run_module("fairseq_cli.train", run_name="__main__", alter_sys=True)


class QuickChild:
    """What subprocess.Popen is for `python -m MODULE …` and `python -c CODE …`: a fork."""

    def __init__(self, command, stdout, stderr, start_new_session, preexec_fn, env=None, cwd=None):
        def work():
            preexec_fn()
            os.dup2(stdout.fileno(), 1), os.dup2(stdout.fileno(), 2)
            os.environ.update(env or {})
            os.chdir(cwd or os.getcwd())
            kind, name, *sys.argv[1:] = command[1:]
            if name == "fairseq_cli.preprocess":
                sys.excepthook = sys.__excepthook__  # it does not know the plug-in
            sys.argv[0] = name
            if kind == "-m":
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            else:
                exec(compile(name, "-c", "exec"), {"__name__": "__main__"})

        self.returncode, self.pid = None, fork(work, os.devnull)

    def poll(self):
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout=float("inf")):
        begin = time.monotonic()
        while self.poll() is None:
            if time.monotonic() - begin > timeout:
                raise subprocess.TimeoutExpired("", timeout)
            time.sleep(0.005)
        return self.returncode


class QuickChildren:
    """Stands in for the module subprocess."""

    Popen, STDOUT, TimeoutExpired = QuickChild, subprocess.STDOUT, subprocess.TimeoutExpired


def paths_in(folder: Path):
    """Of files and folders, at any depth. Path.rglob would raise an error where a folder vanishes meanwhile."""
    return [Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)]


def unfinished_files(folder: Path):
    """Files and folders that have a temporary name."""
    return [path for path in paths_in(folder) if path.suffix in UNFINISHED]


def results(folder: Path):
    """{file under a final name: digest of what two equal runs share of it}."""
    found = {}
    for path in sorted(paths_in(folder)):
        name = str(path.relative_to(folder))
        if path.is_file() and not WITHOUT_RESULTS.fullmatch(path.name) and ".partial" not in name:
            found[name] = digest_of_result(path, str(folder))
    return found


def differences(one, other):
    """The names under which two results are not the same."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def is_replaced(name) -> bool:
    """Whether a command replaces this file while it runs."""
    return name.endswith(("checkpoint_last.pt", "checkpoint_best.pt", "unfinished.json", "/values", "/epochs"))


def digest_of_result(path: Path, folder: str) -> str:
    """Of a checkpoint its weights; of text, without the folder's name and without times."""
    if path.suffix == ".pt":
        tensors = torch.load(path, weights_only=True)["model"]
        return digest(b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(tensors.items())))
    content = path.read_bytes()
    if path.suffix in (".json", ".md", ".csv"):
        content = TIMES.sub("", content.decode().replace(folder, "{}")).encode()
    return digest(content)
