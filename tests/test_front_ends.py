"""fairseq-hydra-train, torchrun: processes of their own."""

import os
import re
import subprocess
import sys

import pytest
import torch
from builders.processes import torchrun
from builders.training import PLUGIN, ROOT, run, same_weights, train, weights

pytestmark = pytest.mark.slow  # all of them start processes

RECIPES = ROOT / "examples" / "paper"


def hydra(recipe, *overrides, cwd):
    return run("fairseq_cli.hydra_train", "--config-dir", RECIPES, "--config-name", recipe,
               f"common.user_dir={PLUGIN}", "common.cpu=true", *overrides, cwd=cwd)


def test_the_shipped_yaml_trains_and_equals_the_same_flags_under_fairseq_train(data_bin, teacher, tmp_path):
    done = hydra(
        "bertlet", f"task.data={data_bin}", f"task.teacher={teacher}", "task.tokens_per_sample=16",
        "task.precision=fp32", "+model.encoder_layers=2", "+model.encoder_embed_dim=32",
        "+model.encoder_ffn_embed_dim=64", "+model.encoder_attention_heads=2", "+model.max_positions=16",
        "dataset.batch_size=64", "dataset.num_workers=0", "lr_scheduler.warmup_updates=5", "optimization.max_epoch=2",
        "criterion.kd_weight=0.5", f"checkpoint.save_dir={tmp_path}/hydra", cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    by_flags = train(
        data_bin, str(tmp_path / "flags"), "--teacher", teacher, "--self-mask-from-epoch", "2", "--kd-weight", "0.5",
        "--lr", "0.0001", "--lr-scheduler", "polynomial_decay", "--warmup-updates", "5", "--total-num-update", "28600",
        "--clip-norm", "1.0", "--adam-betas", "(0.9,0.999)", "--max-epoch", "2", "--optimizer", "fused_adamw",
    )
    assert same_weights(f"{tmp_path}/hydra/checkpoint_last.pt", by_flags)


@pytest.mark.parametrize("folder, recipe, more", [
    ("hybridbert", "hbert_v1", ["optimization.stop_time_hours=0.001", "lr_scheduler.warmup_share=0.2"]),
    ("mask_later", "bertlet_3ml", ["optimization.max_update=5"]),
])
def test_the_yaml_of_the_siblings_trains(folder, recipe, more, data_bin, tmp_path):
    done = run(
        "fairseq_cli.hydra_train", "--config-dir", ROOT / "examples" / folder, "--config-name", recipe,
        f"common.user_dir={PLUGIN}", "common.cpu=true", f"task.data={data_bin}", "task.tokens_per_sample=16",
        "task.precision=fp32", "+model.encoder_layers=2", "+model.encoder_embed_dim=32",
        "+model.encoder_ffn_embed_dim=64", "+model.encoder_attention_heads=2", "+model.max_positions=16",
        "dataset.batch_size=64", "dataset.num_workers=0", f"checkpoint.save_dir={tmp_path}/run", *more, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(f"{tmp_path}/run/checkpoint_last.pt")


def test_a_budget_is_one_for_two_ranks(data_bin, tmp_path):
    checkpoint = torchrun(2, data_bin, tmp_path / "run", "--mask-strategy", "random", "--lr-scheduler", "budget_linear",
                          "--stop-time-hours", "0.001", "--ddp-backend", "c10d", "--log-format", "json", cwd=tmp_path)
    state = torch.load(checkpoint, weights_only=True)
    assert state["extra_state"]["previous_training_time"] > 3.6 and state["optimizer_history"][-1]["num_updates"] > 1


@pytest.mark.parametrize("recipe, parameters", [("bertlet", 28_794_170), ("bert_base", 109_512_762)])
def test_the_shipped_yaml_has_the_published_number_of_parameters(recipe, parameters, tmp_path):
    folder = tmp_path / "bin"  # a vocabulary of BERT's size, and text
    folder.mkdir()
    words = [f"w{i}" for i in range(30_522 - 5)]
    (folder / "dict.in").write_text("".join(f"{word} 1\n" for word in words))
    (folder / "text").write_text(" ".join(words[:600]) + "\n")
    done = run("fairseq_cli.preprocess", "--only-source", "--srcdict", folder / "dict.in", "--trainpref",
               folder / "text", "--validpref", folder / "text", "--destdir", folder)
    assert done.returncode == 0, done.stderr
    done = hydra(recipe, f"task.data={folder}", "task.teacher=null", "task.mask_strategy=random",
                 "optimization.stop_min_lr=1", "dataset.num_workers=0", "dataset.batch_size=2", cwd=tmp_path)
    printed = re.search(r"num. shared model params: ([\d,]+)", done.stdout + done.stderr)
    assert printed and int(printed.group(1).replace(",", "")) == parameters, done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["c10d", "legacy_ddp"])
def test_two_ranks_train_and_resume_like_one(backend, data_bin, teacher, tmp_path):
    """With dropout off, two ranks with batches of 32 make the steps of one rank with two such batches: they draw the
    same random masks for the same samples, and KD has the same balance."""
    flags = ["--mask-strategy", "random", "--teacher", teacher, "--kd-weight", "0.5", "--kd-positions", "all",
             "--dropout", "0", "--attention-dropout", "0", "--optimizer", "sgd", "--lr", "0.1", "--max-update", "12",
             "--batch-size", "32", "--ddp-backend", backend]
    one = weights(train(data_bin, str(tmp_path / "one"), *flags, "--update-freq", "2"))
    torchrun(2, data_bin, tmp_path / "two", *flags, "--max-update", "7", cwd=tmp_path)
    two = weights(torchrun(2, data_bin, tmp_path / "two", *flags, cwd=tmp_path))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5


READ_AHEAD = """
import torch
import fairseq
import entropy_mask_plugin
from fairseq.data.iterators import BufferedIterator

class Batches:
    def __len__(self):
        return 10**6

    def __iter__(self):
        while True:
            yield torch.arange(300_000).clone()

next(BufferedIterator(1000, Batches()))
"""


def test_python_can_end_while_batches_are_read_ahead():
    """It would be aborted inside torch otherwise, every time with batches of this size."""
    done = subprocess.run([sys.executable, "-c", READ_AHEAD], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


THREADS_AT_THE_END = """
import contextlib
import sys
from pathlib import Path
from fairseq_cli.train import cli_main

names = []
try:
    cli_main()
finally:  # also of SystemExit
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            names.append(task.joinpath("comm").read_text())
    sys.exit(any("gloo" in name for name in names))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads have names where there is /proc")
def test_no_thread_of_a_rank_outlives_its_training(data_bin, tmp_path):
    """A thread of gloo that lets go of a tensor while Python ends aborts the process, once in hundreds of runs."""
    script = tmp_path / "threads_at_the_end.py"
    script.write_text(THREADS_AT_THE_END)
    for _ in range(2):  # the second time there is nothing to do
        torchrun(2, data_bin, tmp_path / "run", "--mask-strategy", "random", "--ddp-backend", "c10d", "--max-update",
                 "2", cwd=tmp_path, program=[script])


def test_self_masking_on_two_ranks_resumes_bit_for_bit(data_bin, teacher, tmp_path):
    flags = ["--teacher", teacher, "--self-mask-from-epoch", "2", "--batch-size", "32", "--ddp-backend", "c10d",
             "--max-update", "15"]
    straight = torchrun(2, data_bin, tmp_path / "straight", *flags, cwd=tmp_path)
    torchrun(2, data_bin, tmp_path / "resumed", *flags, "--max-update", "12", cwd=tmp_path)
    assert same_weights(straight, torchrun(2, data_bin, tmp_path / "resumed", *flags, cwd=tmp_path))


def test_two_ranks_fill_one_cache_with_the_entropies_of_one(data_bin, teacher, tmp_path):
    flags = ["--mask-strategy", "high", "--teacher", teacher, "--max-update", "2", "--batch-size", "32"]
    train(data_bin, str(tmp_path / "alone"), *flags, "--entropy-cache", str(tmp_path / "one"))
    torchrun(2, data_bin, tmp_path / "together", *flags, "--ddp-backend", "c10d", "--entropy-cache",
             str(tmp_path / "two"), cwd=tmp_path)
    one, two = ({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*")
                 if path.is_file()} for name in ("one", "two"))
    assert len(one) > 1 and one == two
