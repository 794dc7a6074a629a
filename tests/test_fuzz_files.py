"""Files at random: mutated ones of every kind are read or refused in one line, and none runs code.

A hundred mutations of each kind here, a thousand each night (MUTATIONS=1000).
"""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import mutations
from builders.file_formats import FORMATS, make_originals

from entropy_mask_plugin.system.errors import UsageError, message_of

NIGHTLY = int(os.environ.get("MUTATIONS", "0"))
CHECKPOINTS = [name for name, kind in FORMATS.items() if kind.file.endswith((".pt", ".bin")) and "bin/" not in kind.file
               or kind.file.startswith("hf-bin/pytorch")]
BUILT = ["teacher", "minimal-pairs, checkpoint", "init-from", "export-hf-bert", "glue, checkpoint",
         "atlas, cross, restored average"]


@pytest.mark.slow
def test_mutated_files_are_read_or_refused_in_one_line():
    command = [sys.executable, Path(__file__).parent / "fuzz_files.py", "--mutations", str(NIGHTLY or 100)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count(", 0 findings; ") == len(FORMATS)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    make_originals(folder)
    return folder


@pytest.fixture
def files(originals, tmp_path):
    return Path(shutil.copytree(originals, tmp_path / "files"))


def refusal(name, files):
    """The lines with which a file is refused; none where it is read."""
    try:
        FORMATS[name].read(files)
    except UsageError as error:
        return message_of(error).splitlines()
    return []


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def old_tar(value):
    """torch.save before torch 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(value, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def object_array(value):
    file = io.BytesIO()
    np.save(file, np.array([value], dtype=object), allow_pickle=True)
    return file.getvalue()


def object_archive(value):
    file = io.BytesIO()
    np.savez(file, model=np.array([value], dtype=object))
    return file.getvalue()


def script(value):
    """An archive that looks like TorchScript's."""
    content = pickle.dumps(value, protocol=2)
    return mutations.zipped([(f"archive/{name}", content) for name in ("data.pkl", "constants.pkl", "version")])


PICKLES = {  # function of an object: the file
    "torch.save": lambda value: mutations.saved({"model": value, "cfg": {}}),
    "torch.save, deep in it": lambda value: mutations.saved({"model": {"w": torch.zeros(1)}, "cfg": {}, "extra_state":
                                                             {"a": [{"b": (value,)}]}}),
    "torch.save, old format": lambda value: mutations.saved([value], _use_new_zipfile_serialization=False),
    "tar": old_tar,
    "TorchScript": script,
    "numpy array of objects": object_array,
    "numpy archive of objects": object_archive,
    **{f"pickle, protocol {number}": lambda value, number=number: pickle.dumps({"model": value}, protocol=number)
       for number in (0, 2, 4, 5)},
}


@pytest.mark.parametrize("how", PICKLES)
def test_the_pickles_of_these_tests_would_run_code(how, tmp_path):
    """So that the test below can fail."""
    content = PICKLES[how](Touch(tmp_path / "canary"))
    file = io.BytesIO(content)
    if how == "numpy archive of objects":
        np.load(file, allow_pickle=True)["model"]
    elif how == "numpy array of objects":
        np.load(file, allow_pickle=True)
    elif how.startswith("torch"):
        torch.load(file, weights_only=False)
    elif how == "tar":
        pickle.load(tarfile.open(fileobj=file).extractfile("pickle"))
    elif how == "TorchScript":
        import zipfile

        pickle.loads(zipfile.ZipFile(file).read("archive/data.pkl"))
    else:
        pickle.load(file)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_no_pickle_is_run_in_place_of_any_file(name, files, tmp_path):
    for how, make in PICKLES.items():
        (files / FORMATS[name].file).write_bytes(make(Touch(tmp_path / "canary")))
        assert refusal(name, files) or name not in CHECKPOINTS, how
        assert not (tmp_path / "canary").exists(), how


def settings_that_run(code):
    """{description: settings of a model} that fairseq evaluates as it builds the model."""
    return {
        "fconv_lm": {"_name": "fconv_lm", "decoder_embed_dim": 16, "decoder_layers": code, "decoder_attention": code},
        "wav2vec2": {"_name": "wav2vec2", "conv_feature_layers": code},
        "roberta": {"_name": "roberta", "encoder_xformers_att_config": code},
        "roberta, nested": {"_name": "roberta", "encoder": {"xformers_att_config": code, "embed_dim": 16, "layers": 1}},
    }


@pytest.mark.parametrize("old", [False, True], ids=["cfg", "args"])
@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("arch", settings_that_run(""))
def test_a_setting_that_fairseq_would_evaluate_is_refused(arch, name, old, files, tmp_path):
    import argparse

    path, canary = files / FORMATS[name].file, tmp_path / "canary"
    settings = settings_that_run(f"open({str(canary)!r}, 'w').close()")[arch]
    state = torch.load(path, weights_only=True)
    if old:
        state["args"] = argparse.Namespace(**{**settings, "arch": settings["_name"], "task": "entropy_masked_lm"})
    else:
        state["cfg"]["model"] = {**settings, "max_positions": 16}
    torch.save(state, path)
    assert refusal(name, files) or old  # what builds nothing of `args` may read `cfg`
    assert not canary.exists()


def test_an_index_of_more_than_its_bin_holds_is_refused(files):
    content = bytearray((files / "bin/train.idx").read_bytes())
    content[26:30] = (np.frombuffer(content, "<i4", 1, 26) + 1000).tobytes()
    (files / "bin/train.idx").write_bytes(content)
    with pytest.raises(UsageError, match="^data: .*/train"):
        FORMATS["train.idx"].read(files)


def test_a_small_checkpoint_with_huge_sizes_is_refused_before_memory_is_allocated(files):
    state = torch.load(files / "teacher.pt", weights_only=True)
    state["cfg"]["model"]["encoder_ffn_embed_dim"] = 10**12
    torch.save(state, files / "teacher.pt")
    for name in ("teacher", "init-from", "export-hf-bert", "minimal-pairs, checkpoint"):
        with pytest.raises(UsageError, match="weights found, expected at least"):
            FORMATS[name].read(files)


@pytest.mark.parametrize("part", ["cfg", "model", "extra_state", "task_state", "optimizer_history"])
def test_a_part_of_a_checkpoint_that_is_a_tensor_is_refused_before_it_is_walked(part, files):
    """A million rows, each a tensor of its own once they are walked, in a few bytes."""
    state = torch.load(files / "teacher.pt", weights_only=True)
    state[part] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, files / "teacher.pt")
    (line,) = refusal("teacher", files)
    assert line.startswith("--teacher: ") and ("is damaged" in line or "is not a fairseq checkpoint" in line), line
