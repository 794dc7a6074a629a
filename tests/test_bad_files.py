"""Files that are damaged, belong to something else, or are in the way: one line says which, before any harm is done."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from builders.training import OURS, ROOT, TINY, TRAINING, train
from fairseq.data import indexed_dataset
from fairseq.trainer import Trainer

from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.system.locks import exclusive_lock, lock_while_alive

RANDOM = ["--mask-strategy", "random", "--max-update", "2"]


@pytest.fixture
def own_data(data_bin, tmp_path):
    """A copy of the data-bin that may be damaged."""
    shutil.copytree(data_bin, tmp_path / "bin")
    return tmp_path / "bin"


def refusal(tmp_path, data, *flags):
    """The line that ends a training, which has left nothing."""
    with pytest.raises(UsageError) as caught:
        train(str(data), str(tmp_path / "run"), *flags)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").glob("*.pt"))
    return str(caught.value)


# ---- data

def test_a_bin_that_is_cut_is_refused_with_its_size_and_the_expected_one(own_data, tmp_path):
    size = os.path.getsize(own_data / "train.bin")
    os.truncate(own_data / "train.bin", size // 2)
    message = refusal(tmp_path, own_data, *RANDOM)
    assert message == (f"data: {own_data}/train.bin of {size // 2:,} bytes found, expected {size:,}, as "
                       f"{own_data}/train.idx says")


@pytest.mark.parametrize("at", [-8, -40_000])
def test_an_index_that_is_damaged_is_refused(at, own_data, tmp_path):
    content = bytearray((own_data / "train.idx").read_bytes())
    content[max(at, 60 - len(content))] ^= 255
    (own_data / "train.idx").write_bytes(content)
    assert refusal(tmp_path, own_data, *RANDOM).startswith(f"data: {own_data}/train")


def test_a_second_part_of_the_split_is_checked_too(own_data, tmp_path):
    for end in ("bin", "idx"):
        shutil.copy(own_data / f"train.{end}", own_data / f"train1.{end}")
    os.truncate(own_data / "train1.bin", 10)
    assert refusal(tmp_path, own_data, *RANDOM).startswith(f"data: {own_data}/train1.bin of 10 bytes found, expected")


def test_a_dictionary_that_is_too_short_is_refused_with_the_symbol(own_data, tmp_path):
    lines = (own_data / "dict.txt").read_text().splitlines(keepends=True)
    (own_data / "dict.txt").write_text("".join(lines[:10]))
    message = refusal(tmp_path, own_data, *RANDOM)
    assert message.startswith(f"data: {own_data}/valid.bin with symbol ")
    assert message.endswith("a dict.txt of 15 symbols found, expected the dict.txt with which it was preprocessed")


@pytest.fixture
def long_data(own_data):
    """3,000 lines, of which the last has a symbol that is not in dict.txt: the first 1,000 are read at the start."""
    builder = indexed_dataset.make_builder(str(own_data / "train.bin"), "mmap", 400)
    for number in range(3000):
        builder.add_item(torch.tensor([10, 11, 12, 60_000 if number == 2999 else 13, 2]))
    builder.finalize(str(own_data / "train.idx"))
    return own_data


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unknown_symbol_far_into_the_data_ends_the_run_in_one_line(workers, long_data, tmp_path):
    done = fairseq_train(long_data, tmp_path / "run", "--mask-strategy", "random", "--max-epoch", "1", "--num-workers",
                         workers)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: data: {long_data}/train.bin with symbol 60,000 and ")


# ---- teachers

@pytest.fixture
def spoilt_teacher(teacher, tmp_path):
    """value -> the teacher with one weight that has this value."""
    def spoil(value):
        state = torch.load(teacher, weights_only=True)
        state["model"]["encoder.layers.0.ffn.fc1.weight"][0, 0] = value
        torch.save(state, tmp_path / "spoilt.pt")
        return str(tmp_path / "spoilt.pt")
    return spoil


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("cache", [False, True])
def test_a_teacher_with_a_weight_that_is_no_number_is_refused(value, cache, spoilt_teacher, data_bin, tmp_path):
    path, flags = spoilt_teacher(value), ["--entropy-cache", str(tmp_path / "cache")] if cache else []
    message = refusal(tmp_path, data_bin, "--teacher", path, "--mask-strategy", "high", "--max-update", "1", *flags)
    assert message == (f"--teacher: {path} with nan or inf in encoder.layers.0.ffn.fc1.weight found, expected finite "
                       "numbers")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cache", [False, True])
def test_a_teacher_that_predicts_nan_with_finite_weights_is_refused(cache, spoilt_teacher, data_bin, tmp_path):
    flags = ["--entropy-cache", str(tmp_path / "cache")] if cache else []
    message = refusal(tmp_path, data_bin, "--teacher", spoilt_teacher(3e38), "--mask-strategy", "high", "--max-update",
                      "1", *flags)
    assert "nan" in message and "teacher" in message
    assert not list(tmp_path.glob("cache/*/*.entropies"))


def test_a_model_that_scores_itself_with_nan_is_refused_in_its_first_update(make_task):
    task, model, criterion = make_task("--mask-strategy", "high", "--self-mask-from-epoch", "1")
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    sample = task.datasets["train"].collater([task.datasets["train"][0]])
    with pytest.raises(UsageError, match="^--mask-source: self with scores that are nan found, expected numbers"):
        task.score(sample, model, task.when(0))


# ---- checkpoints to resume from

def test_a_checkpoint_of_another_criterion_is_named_with_its_flag(data_bin, tmp_path):
    path = train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "1")
    state = torch.load(path, weights_only=True)
    state["optimizer_history"][-1]["criterion_name"] = "Another"
    torch.save(state, path)
    with pytest.raises(UsageError, match=rf"^--save-dir: {path} cannot be resumed from \(AssertionError: Criterion"):
        train(data_bin, str(tmp_path), *RANDOM)


def test_what_goes_wrong_without_a_checkpoint_is_not_said_to_be_the_fault_of_one(data_bin, tmp_path, monkeypatch):
    def broken(*arguments, **named):
        raise IndexError("no batches")

    monkeypatch.setattr(Trainer, "get_train_iterator", broken)
    with pytest.raises(IndexError, match="no batches"):
        train(data_bin, str(tmp_path), *RANDOM)


# ---- files in the way

@pytest.mark.parametrize("flag", ["--save-dir", "--entropy-cache"])
@pytest.mark.parametrize("kind", ["file", "below a file", "dangling link"])
def test_a_folder_that_cannot_be_one_is_named(flag, kind, data_bin, teacher, tmp_path):
    path = tmp_path / "there"
    if kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere" / "else")
    else:
        path.write_text("mine")
    path = path / "below" if kind == "below a file" else path
    save_dir = path if flag == "--save-dir" else tmp_path / "run"
    with pytest.raises(UsageError, match=f"^{flag}: {path}") as caught:
        train(data_bin, str(save_dir), "--mask-strategy", "high", "--teacher", teacher, "--max-update", "1",
              *([flag, str(path)] if flag == "--entropy-cache" else []))
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("run/*.pt"))


# ---- two runs in one place

def fairseq_train(data, save_dir, *flags, wait=True):
    command = [sys.executable, "-m", "fairseq_cli.train", str(data), *TRAINING, *OURS, *TINY, "--save-dir",
               str(save_dir), *map(str, flags)]
    if wait:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


@pytest.mark.slow
def test_a_second_run_in_a_save_dir_is_refused_until_the_first_is_killed(data_bin, tmp_path):
    first = fairseq_train(data_bin, tmp_path, "--mask-strategy", "random", "--max-update", "100000", "--num-workers",
                          "1", "--save-interval-updates", "5", wait=False)
    try:
        while not list(tmp_path.glob("checkpoint*.pt")):
            assert first.poll() is None
            time.sleep(0.2)
        second = fairseq_train(data_bin, tmp_path, *RANDOM)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1] == (
            f"error: --save-dir: {tmp_path}: another run is writing there: wait for it to end, or stop it")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    third = fairseq_train(data_bin, tmp_path, "--mask-strategy", "random", "--max-update", "1")  # its worker lives on
    assert third.returncode == 0, third.stderr


def test_a_forked_process_closes_its_copy_of_a_lock_once(tmp_path):
    with exclusive_lock(str(tmp_path)):
        child = os.fork()
        if child == 0:  # another file now has the number of the copy, which no grandchild may close
            file = os.open(os.devnull, os.O_RDONLY)
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if os.path.exists(f"/proc/self/fd/{file}") else 1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_locks_a_folder_once_and_only_while_the_lock_is_used(tmp_path):
    held = lock_while_alive(str(tmp_path), "--save-dir")
    assert lock_while_alive(str(tmp_path / "."), "--save-dir") is held
    with pytest.raises(UsageError, match="another run is writing there"), exclusive_lock(str(tmp_path)):
        pass
    del held
    with exclusive_lock(str(tmp_path)):
        pass


def test_runs_that_save_nothing_may_share_a_folder(data_bin, tmp_path):
    with exclusive_lock(str(tmp_path)):
        train(data_bin, str(tmp_path), *RANDOM, "--no-save")
