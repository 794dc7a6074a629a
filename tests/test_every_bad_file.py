"""Every kind of file that is read, spoilt in every way: one line names the file, at once, and nothing is left."""

import io
import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from builders.file_formats import FORMATS, make_originals
from builders.huggingface import make_folder
from builders.training import train

from entropy_mask_plugin.cli import run_command
from entropy_mask_plugin.evaluation.reading import read_pairs
from entropy_mask_plugin.glue.reading import read_task
from entropy_mask_plugin.huggingface.importing import read_bert
from entropy_mask_plugin.recording.reader import Recording
from entropy_mask_plugin.system.errors import UsageError, message_of

PART = "masks/rank0/00001-000000000-000000000.masks"
TRAINED_ON, TAUGHT = ["--mask-strategy", "random"], ["--mask-strategy", "high", "--teacher"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def originals(data_bin, teacher, tmp_path_factory):
    """A file of every kind."""
    folder = tmp_path_factory.mktemp("originals")
    shutil.copytree(data_bin, folder / "bin")
    shutil.copy(teacher, folder / "teacher.pt")
    (folder / "hf").mkdir()
    make_folder(folder / "hf", num_hidden_layers=1, hidden_size=16, intermediate_size=32, num_attention_heads=2,
                max_position_embeddings=16)
    (folder / "text.txt").write_text("\n\n".join(f"a quick brown fox, number {i}\nand a lazy dog" for i in range(200)))
    assert prepare(folder, "corpus") is None
    (folder / "SST-2").mkdir()
    for split in ("train", "dev"):
        rows = "".join(f"a good film {i}\t{i % 2}\n" for i in range(20))
        (folder / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\n" + rows)
    pair = json.dumps({"sentence_good": "a b", "sentence_bad": "b a"})
    (folder / "pairs.jsonl").write_text(f"{pair}\n" * 5)
    train(data_bin, str(folder / "run"), "--mask-strategy", "random", "--max-update", "1", "--record-masks",
          str(folder / "masks"))
    return folder


def prepare(folder, out, *flags):
    return run_command("prepare-corpus", ["--text", str(folder / "text.txt"), "--out", str(folder / out),
                                          "--vocab-size", "60", *flags])


def training(*flags):
    """A function of the folder: a training with these flags, paths relative to it."""
    return lambda folder: train(str(folder / "bin"), str(folder / "new"), "--max-update", "1",
                                *(str(folder / flag) if flag.endswith(".pt") else flag for flag in flags))


READERS = {  # file: function of the folder that reads it
    "bin/dict.txt": training(*TRAINED_ON),
    "bin/train.bin": training(*TRAINED_ON),
    "bin/train.idx": training(*TRAINED_ON),
    "bin/valid.idx": training(*TRAINED_ON),
    "teacher.pt": training(*TAUGHT, "teacher.pt"),
    "teacher.pt, --init-from": training(*TRAINED_ON, "--init-from", "teacher.pt"),
    "teacher.pt, --restore-file": training(*TRAINED_ON, "--restore-file", "teacher.pt"),
    "teacher.pt, --finetune-from-model": training(*TRAINED_ON, "--finetune-from-model", "teacher.pt"),
    "hf/config.json": lambda folder: read_bert(str(folder / "hf"), "--teacher").model(),
    "hf/model.safetensors": lambda folder: read_bert(str(folder / "hf"), "--teacher").model(),
    "hf/vocab.txt": lambda folder: read_bert(str(folder / "hf"), "--teacher").model(),
    "corpus/tokenizer.model": lambda folder: prepare(folder, "new", "--tokenizer",
                                                     str(folder / "corpus/tokenizer.model")),
    "corpus/corpus.json": lambda folder: prepare(folder, "corpus"),
    "SST-2/train.tsv": lambda folder: read_task("sst-2", str(folder)),
    "pairs.jsonl": lambda folder: read_pairs(str(folder / "pairs.jsonl")),
    "masks/facts.json": lambda folder: Recording(str(folder / "masks"), "--replay-masks").masks(1),
    PART: lambda folder: Recording(str(folder / "masks"), "--replay-masks").masks(1),
}
WAYS = {  # function of the path and its content, which has been removed
    "missing": lambda path, content: None,
    "empty": lambda path, content: path.touch(),
    "cut in half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "random bytes": lambda path, content: path.write_bytes(random.Random(1).randbytes(max(100, len(content)))),
    "zeros": lambda path, content: path.write_bytes(bytes(max(100, len(content)))),
    "a picture": lambda path, content: path.write_bytes(b"\x89PNG\r\n\x1a\n" + content),
    "an object": lambda path, content: path.write_text('{"a": [1, 2, {}]}'),
    "a list": lambda path, content: path.write_text("[1, 2]"),
    "a folder": lambda path, content: path.mkdir(),
    "a dangling link": lambda path, content: path.symlink_to("nowhere"),
    "not UTF-8": lambda path, content: path.write_bytes("é".encode("latin-1") + content),
    "unreadable": lambda path, content: path.symlink_to("/proc/self/mem"),  # for root too: its first byte is an EIO
}
PIPE = {"a pipe": lambda path, content: os.mkfifo(path)}  # opening it would wait for a writer


def write_untrained(path, content):
    """A checkpoint whose every prediction is the same."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    state["model"]["encoder.embed_tokens.weight"].zero_()
    torch.save(state, path)


MORE_WAYS = {  # of some files
    "bin/dict.txt": {
        "an editor's mark": lambda path, content: path.write_bytes(b"\xef\xbb\xbf" + content),
        "a negative count": lambda path, content: path.write_bytes(content.rpartition(b" ")[0] + b" -3\n"),
    },
    "teacher.pt": {**PIPE, "zeros": write_untrained},
    **dict.fromkeys((reader for reader in READERS if reader.startswith("teacher.pt, ")), PIPE),
}


@pytest.mark.parametrize("reader", READERS)
def test_one_line_names_the_file(reader, originals, tmp_path):
    for way, spoil in (WAYS | MORE_WAYS.get(reader, {})).items():
        folder = tmp_path / way.replace(" ", "-")
        shutil.copytree(originals, folder)
        path = folder / reader.split(",")[0]
        content = path.read_bytes()
        os.remove(path)
        spoil(path, content)
        begin = time.monotonic()
        with pytest.raises(UsageError) as caught:
            READERS[reader](folder)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 1000, f"{way}: {message}"
        assert str(folder) in message, f"{way}: {message}"
        assert time.monotonic() - begin < 10, way
        assert not [file for file in folder.glob("new/**/*") if file.is_file()], way
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    make_originals(folder)
    return folder


def line_of(read, folder):
    """What the user sees; "" where the file is read."""
    try:
        read(folder)
    except UsageError as error:
        return message_of(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_any_format_is_read_or_ends_in_one_line(name, formats, tmp_path):
    """Some may be missing, and a cache computes damaged parts again."""
    for way, spoil in WAYS.items():
        folder = Path(shutil.copytree(formats, tmp_path / "files"))
        path = folder / FORMATS[name].file
        content = path.read_bytes()
        path.unlink()
        spoil(path, content)
        line = line_of(FORMATS[name].read, folder)
        assert not line or str(folder) in line and len(line) < 1000, f"{way}: {line}"
        shutil.rmtree(folder)
