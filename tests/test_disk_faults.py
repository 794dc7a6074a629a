"""Disks that are full, read-only or broken, and files that vanish: one line, nothing half-written, and a second call
that ends as if nothing had been. A brief choice here, everything each night (KILLS=100)."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.training import ROOT
from fairseq.data import indexed_dataset

from entropy_mask_plugin.checkpoints import writing
from entropy_mask_plugin.checkpoints.reading import load_safely
from entropy_mask_plugin.scoring.cache.self_store import SelfEntropyStore
from entropy_mask_plugin.system import atomic_files, processes
from entropy_mask_plugin.system.atomic_files import atomic_path, write_bytes, write_text
from entropy_mask_plugin.system.errors import UsageError, naming

NIGHTLY = bool(os.environ.get("KILLS"))
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """The library that plants the faults, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here, which the planted faults need")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "builders" / "faults.c", "-ldl"], check=True)
    return library


@pytest.mark.slow
def test_a_command_on_a_failing_disk_says_so_in_one_line_and_ends_well_when_run_again(faults, inputs):
    done = subprocess.run([sys.executable, HERE / "disk_faults.py", "--inputs", inputs,
                           *(["--points", "3"] if NIGHTLY else [])],
                          capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": str(faults)})
    assert done.returncode == 0, re.findall("WRONG.*", done.stdout) or done.stderr[-3000:]
    met = [line for line in done.stdout.splitlines() if line.startswith("fine ")]
    assert len(met) > 20 and sum("free some space" in line for line in met) >= 8  # the faults were planted


# ---- writing


class FullDisk:
    """A file on a disk with room for the first writes. Later ones fail, the first of them after its first half."""

    def __init__(self, file, room, code=errno.ENOSPC):
        self.file, self.room, self.code = file, room, code

    def write(self, content):
        self.room -= 1
        if self.room < 0:
            self.file.write(bytes(content)[: len(content) // 2])
            raise OSError(self.code, os.strerror(self.code))
        return self.file.write(content)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize("room", [0, 1, 5, 20])
def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_disk(room, tmp_path, monkeypatch):
    """torch would say "unexpected pos 768 vs 662"."""
    monkeypatch.setattr(writing, "open", lambda path, mode: FullDisk(open(path, mode), room), raising=False)
    with pytest.raises(OSError, match="No space left on device") as caught:
        writing.write_checkpoint(str(tmp_path / "a.pt"), {"model": {"weight": torch.ones(1000)}})
    assert caught.value.errno == errno.ENOSPC


def test_fairseq_saves_whole_checkpoints_or_none_although_it_would_try_again(tmp_path, monkeypatch):
    from fairseq import checkpoint_utils

    path, tries, state = str(tmp_path / "checkpoint1.pt"), [], {"model": {"weight": torch.ones(1000)}}

    def once_broken(path, mode):
        tries.append(path)
        return FullDisk(open(path, mode), 3, errno.EIO) if len(tries) == 1 else open(path, mode)

    monkeypatch.setattr(writing, "open", once_broken, raising=False)
    with pytest.raises(UsageError, match=f"^--save-dir: {path}: cannot be written .Input/output error., check the"):
        checkpoint_utils.torch_persistent_save(state, path)
    assert not list(tmp_path.iterdir())
    checkpoint_utils.torch_persistent_save(state, path)
    assert load_safely(path, "--save-dir")["model"]["weight"].sum() == 1000
    assert os.listdir(tmp_path) == ["checkpoint1.pt"]


@pytest.mark.parametrize("content", ["a file", "a folder"])
def test_what_a_disk_refuses_only_when_it_is_synchronized_gets_no_final_name(content, tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def write():
        with atomic_path(str(tmp_path / "new")) as tmp:
            if content == "a folder":
                os.makedirs(os.path.join(tmp, "inner"))
            write_bytes(os.path.join(tmp, "inner", "x") if content == "a folder" else tmp, b"content")

    monkeypatch.setattr(atomic_files.os, "fsync", fsync)
    with pytest.raises(UsageError, match="free some space and rerun"):
        write()
    assert not list(tmp_path.iterdir())


def test_an_error_of_what_is_read_meanwhile_is_not_said_to_be_of_what_is_written(tmp_path):
    def write():
        with atomic_path(str(tmp_path / "new")) as tmp:
            write_bytes(tmp, b"half")
            with naming("text.txt"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output") as caught:
        write()
    assert caught.value.filename == "text.txt" and not list(tmp_path.iterdir())


def test_what_ended_processes_left_for_a_name_goes_when_it_is_written_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, file = atomic_files.MACHINE, tmp_path / "a.json"
    left, running, elsewhere, other = (tmp_path / name for name in (
        f"a.json.{here}.{ended.pid}.partial", f"a.json.{here}.{os.getppid()}.partial",
        f"a.json.elsewhere.{ended.pid}.partial", f"b.json.{here}.{ended.pid}.partial"))
    for path in (left, running, elsewhere, other):
        path.touch()
    write_text(str(file), "{}")
    assert sorted(tmp_path.iterdir()) == sorted([file, running, elsewhere, other])


def test_room_for_a_model_s_own_entropies_is_taken_at_the_start(tmp_path, monkeypatch):
    """A map of a sparse file: without room, the first write to it would kill the training with SIGBUS."""
    SelfEntropyStore(str(tmp_path / "store"), {}, [40_000, 50_000])
    assert os.stat(tmp_path / "store" / "values").st_blocks * 512 >= 4 * 90_000

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("entropy_mask_plugin.scoring.cache.self_store.os.posix_fallocate", full)
    with pytest.raises(UsageError, match="values: cannot be written .No space left on device., free some space"):
        SelfEntropyStore(str(tmp_path / "full"), {}, [40_000, 50_000])
    assert os.listdir(tmp_path / "full") == ["facts.json"]


def test_where_the_log_is_on_the_full_disk_too_that_is_the_reason(tmp_path, monkeypatch):
    log = tmp_path / "train.log"
    log.write_text("epoch 001\n")
    assert processes.last_line(str(log)) == "epoch 001"
    monkeypatch.setattr(processes, "open", lambda *arguments, **named: (_ for _ in ()).throw(
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), raising=False)
    assert processes.last_line(str(log)).startswith("cannot be written (No space left on device), free some space")


# ---- reading


@pytest.mark.parametrize("error, line", [
    ("FileNotFoundError(2, 'No such file', 'bin/train.bin')", "error: bin/train.bin: No such file"),
    ("OSError('of no file')", None)])
def test_an_error_that_names_a_file_is_one_line_and_others_keep_their_traceback(error, line):
    code = f"from entropy_mask_plugin.system.errors import show_usage_errors_as_one_line as show; show(); raise {error}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [line] if line else "Traceback" in done.stderr


@pytest.mark.parametrize("ending", [".idx", ".bin"])
def test_data_that_the_disk_does_not_return_are_named(ending, data_bin, monkeypatch):
    def warm_up(path):
        if path.endswith(ending):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(indexed_dataset, "_warmup_mmap_file", warm_up)
    with pytest.raises(OSError, match=re.escape(f"Input/output error: '{data_bin}/train{ending}'")):
        indexed_dataset.MMapIndexedDataset(f"{data_bin}/train")
