"""fairseq-hydra-train, torchrun: processes of their own."""

import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from builders.masks import read_batches, read_masks, record_masks
from builders.processes import torchrun
from builders.training import PLUGIN, ROOT, run, same_weights, train, weights
from omegaconf import OmegaConf

from entropy_mask_plugin.config import names_with
from entropy_mask_plugin.fairseq_fixes.yaml_numbers import config_file, numbers_in_base_60

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


RAMPS = ["--guided-fraction", "0:0.5", "--mask-prob", "0.3:0.15"]


def shipped_with(folder, *settings):
    """The shipped YAML in a folder, with other settings of the task."""
    folder.mkdir()
    text = (RECIPES / "bertlet.yaml").read_text(encoding="utf-8").replace("  mask_prob: 0.15\n", "").replace(
        "  precision: bf16\n", "".join(f"  {setting}\n" for setting in settings))
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return ["--config-dir", folder, "--config-name", "mine", f"common.user_dir={PLUGIN}", "common.cpu=true"]


def test_the_flags_of_a_policy_are_settings_under_hydra(data_bin, tmp_path):
    """A ramp in the YAML, another one on the command line, fairseq's average in a section of its own."""
    done = run(
        "fairseq_cli.hydra_train", *shipped_with(tmp_path / "yaml", "guided_fraction: '0:0.5'", "mask_score: surprisal",
                                                 "guided_by: sequences"),
        f"task.data={data_bin}", "task.teacher=null", "task.tokens_per_sample=16", "+task.mask_prob=0.3:0.15",
        "task.self_mask_from_epoch=1", "+task.self_mask_model=ema", "ema.store_ema=true", "ema.ema_decay=0.9",
        "task.mask_strategy=gumbel", "+task.gumbel_temperature=0.5", "+model.encoder_layers=2",
        "+model.encoder_embed_dim=32", "+model.encoder_ffn_embed_dim=64", "+model.encoder_attention_heads=2",
        "+model.max_positions=16", "dataset.batch_size=64", "dataset.num_workers=0", "optimization.max_epoch=2",
        f"checkpoint.save_dir={tmp_path}/hydra", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    flags = ["--mask-strategy", "gumbel", "--gumbel-temperature", "0.5", "--mask-score", "surprisal", *RAMPS,
             "--guided-by", "sequences", "--self-mask-from-epoch", "1", "--self-mask-model", "ema", "--store-ema",
             "--ema-decay", "0.9", "--lr", "0.0001", "--lr-scheduler", "polynomial_decay", "--warmup-updates", "10000",
             "--total-num-update", "28600", "--clip-norm", "1.0", "--adam-betas", "(0.9,0.999)", "--max-epoch", "2",
             "--optimizer", "fused_adamw"]
    assert same_weights(f"{tmp_path}/hydra/checkpoint_last.pt", train(data_bin, str(tmp_path / "flags"), *flags))
    of_hydra, of_flags = (torch.load(tmp_path / run / "checkpoint_last.pt", weights_only=True)["cfg"]["task"]
                          for run in ("hydra", "flags"))
    names = names_with("policy")
    assert {name: of_hydra[name] for name in names} == {name: of_flags[name] for name in names}


def test_a_ramp_without_quotes_in_yaml_is_refused_as_the_number_that_it_is(data_bin, tmp_path):
    done = run("fairseq_cli.hydra_train", *shipped_with(tmp_path / "yaml", "guided_fraction: 0:0.5"),
               f"task.data={data_bin}", "task.teacher=null", "task.self_mask_from_epoch=1", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (f"guided_fraction: 0:0.5 without quotes found in {tmp_path}/yaml/mine.yaml, where YAML reads it as a "
            "number in base 60, expected guided_fraction: '0:0.5'") in done.stderr.splitlines()


@pytest.mark.parametrize("text, number", [
    ("0:0.5", 0.5), ("1:0.5", 60.5), ("0:0.75", 0.75), ("1:1", 61), ("0.3:0.15", None), ("'0:0.5'", None),
    ("linear:0:0.5", None), ("0.5", None), ("0.0:1.0", None),
])
def test_numbers_in_base_60_are_those_of_hydras_own_reader(text, number, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"task:\n  mask_strategy: high\n  guided_fraction: {text}\n")
    value = OmegaConf.load(file).task.guided_fraction
    assert value == (text.strip("'") if number is None and ":" in text else number or float(text))
    assert config_file(["--config-dir", str(tmp_path), "--config-name", "a", "task.data=x"]) == str(file)
    numbers = list(numbers_in_base_60(yaml.compose(file.read_text(), yaml.SafeLoader)))
    assert numbers == ([] if number is None else [("guided_fraction", text)])


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


RECORDING = [ROOT / "tests" / "builders" / "masks.py"]


def test_two_ranks_make_the_masks_of_one_while_rates_change(data_bin, teacher, tmp_path, monkeypatch):
    flags = ["--mask-strategy", "gumbel", "--mask-score", "surprisal", "--mask-unit", "span", "--teacher", teacher,
             "--guided-fraction", "0:0.8", "--guided-by", "sequences", "--mask-prob", "0.5:0.2", "--max-epoch", "2",
             "--batch-size", "32"]
    record_masks(tmp_path / "one.masks", monkeypatch.setattr)
    train(data_bin, str(tmp_path / "one"), *flags, "--update-freq", "2")
    torchrun(2, data_bin, tmp_path / "two", *flags, "--ddp-backend", "c10d", cwd=tmp_path, program=RECORDING)
    ranks = [tmp_path / f"two.rank{rank}" for rank in range(2)]
    assert read_masks(*ranks) == read_masks(tmp_path / "one.masks")
    assert all(read_batches(file) for file in ranks)


def test_an_average_guides_two_ranks_of_which_one_has_no_guided_sentence_and_resumes_bit_for_bit(data_bin, tmp_path):
    flags = ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--self-mask-model", "ema", "--store-ema",
             "--ema-decay", "0.9", "--guided-fraction", "0.1", "--guided-by", "sequences", "--batch-size", "8",
             "--ddp-backend", "c10d", "--max-update", "40", "--save-interval-updates", "33"]
    straight = torchrun(2, data_bin, tmp_path / "straight", *flags, cwd=tmp_path, program=RECORDING)
    scored = [[batch["is_scored"] for batch in read_batches(tmp_path / f"straight.rank{rank}")] for rank in range(2)]
    assert {(True, False), (False, True), (True, True), (False, False)} <= set(zip(*scored))
    (kept,) = (tmp_path / "straight").glob("*_33.pt")
    resumed = torchrun(2, data_bin, tmp_path / "resumed", *flags, "--restore-file", str(kept), cwd=tmp_path)
    assert same_weights(straight, resumed)
    one, other = (torch.load(file, weights_only=True)["extra_state"]["ema"] for file in (straight, resumed))
    assert all(torch.equal(one[key], other[key]) for key in one)
