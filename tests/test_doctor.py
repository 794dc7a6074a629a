"""The doctor finds what is wrong, says how to put it right, and has an exit status to rely on."""

import os
import shutil
import subprocess
import sys

import pytest
from builders.huggingface import SIZES, make_folder
from builders.training import ROOT

from entropy_mask_plugin import doctor
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.system.supported import installed_fairseq


def examined(*arguments, python=(), **environment):
    """(exit status, {kind: sentences}) of the command in a process of its own."""
    done = subprocess.run([sys.executable, *python, "-m", "entropy_mask_plugin.doctor", *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, **environment})
    assert "Traceback" not in done.stderr, done.stderr
    found = {doctor.OK: [], doctor.NOTE: [], doctor.ERROR: []}
    for line in done.stdout.splitlines():
        kind, sentence = line.strip().split("  ", 1)
        found[kind].append(sentence)
    return done.returncode, found


@pytest.mark.slow
def test_a_machine_that_can_train_is_well(data_bin, teacher):
    status, found = examined("--data", data_bin, "--teacher", teacher)
    assert status == 0 and not found[doctor.ERROR]
    said = "\n".join(found[doctor.OK])
    for what in ("python 3", "torch 2", "numpy", f"fairseq {installed_fairseq()[1]}", "pip", "fairseq knows the task",
                 "train", "valid"):
        assert what in said
    assert "the vocabulary of the data, for --tokens-per-sample up to 16" in said


def test_a_teacher_with_another_vocabulary_is_found(data_bin, tmp_path):
    make_folder(tmp_path / "hf", **SIZES["tiny"])
    import_bert(str(tmp_path / "hf"), str(tmp_path / "in"))
    for teacher in ("hf", "in/model.pt"):
        found = list(doctor.teacher_of(str(tmp_path / teacher), data_bin))
        assert [kind for kind, _ in found] == [doctor.ERROR]
        assert "has another vocabulary than the data" in found[0][1] and "--bert-vocab" in found[0][1]
        assert [kind for kind, _ in doctor.teacher_of(str(tmp_path / teacher), None)] == [doctor.NOTE]


def test_data_that_is_not_whole_is_found(data_bin, tmp_path):
    assert [kind for kind, _ in doctor.data_bins("/nowhere")] == [doctor.ERROR]
    (tmp_path / "dict.txt").write_bytes(open(f"{data_bin}/dict.txt", "rb").read())
    (tmp_path / "train.bin").write_bytes(b"")
    (tmp_path / "train.idx").write_bytes(b"damaged")
    found = [sentence for kind, sentence in doctor.data_bins(str(tmp_path)) if kind == doctor.ERROR]
    assert len(found) == 2 and "train.bin holds no sequences" in found[0] and "valid.bin and .idx not found" in found[1]


def test_data_that_a_training_would_refuse_is_found(data_bin, tmp_path):
    shutil.copytree(data_bin, tmp_path / "bin")
    os.truncate(tmp_path / "bin" / "train.bin", os.path.getsize(tmp_path / "bin" / "train.bin") - 2)
    (found,) = [sentence for kind, sentence in doctor.data_bins(str(tmp_path / "bin")) if kind == doctor.ERROR]
    assert found.startswith(f"data: {tmp_path}/bin/train.bin of ") and "create it again" in found


def test_the_folder_of_a_corpus_is_no_data_bin_and_what_is_meant_is_said(tmp_path):
    for shard in ("bin/shard0", "bin/shard1", "bin/shard10", "bin/shard2"):
        (tmp_path / "large" / shard).mkdir(parents=True)
    (tmp_path / "small" / "bin").mkdir(parents=True)
    (tmp_path / "small" / "bin" / "train.bin").touch()
    shards = ":".join(f"{tmp_path}/large/bin/shard{i}" for i in (0, 1, 2, 10))
    for given, meant in (("large", shards), ("large/bin", shards), ("small", f"{tmp_path}/small/bin")):
        (finding,) = doctor.data_bins(str(tmp_path / given))
        assert finding == (doctor.ERROR, f"data: {tmp_path / given} is not a data-bin: use {meant}")


def test_on_a_bare_python_everything_that_is_missing_is_named():
    status, found = examined(python=["-S"])  # without site-packages
    assert status == 1
    missing = [sentence.split()[0] for sentence in found[doctor.ERROR] if "is not installed" in sentence]
    assert missing == ["torch", "numpy", "fairseq", "sentencepiece", "tokenizers", "safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("broken, kind", [
    ("fairseq", doctor.ERROR), ("hydra", doctor.ERROR), ("numpy", doctor.ERROR), ("pip", doctor.NOTE)])
def test_a_package_that_cannot_be_imported_is_named_with_the_repair(broken, kind, tmp_path):
    (tmp_path / f"{broken}.py").write_text("raise ImportError('made for another machine')\n")
    status, found = examined(PYTHONPATH=str(tmp_path))
    assert status == (kind == doctor.ERROR)
    blamed = "fairseq" if broken == "hydra" else broken  # which needs it
    (sentence,) = [sentence for sentence in found[kind] if sentence.startswith(blamed)]
    assert "made for another machine" in sentence
    assert kind == doctor.NOTE or "scripts/install.sh" in sentence


def test_an_old_version_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "OLDEST", {"torch": (99, 0)})
    kind, sentence = doctor.package("torch", doctor.ERROR, "repair")
    assert kind == doctor.ERROR and "is too old, expected 99.0 or newer: repair" in sentence
