"""One file outside of the package is enough for a part of one's own: those of docs/policies.md, and a mixer."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from builders.training import OURS, PLUGIN, ROOT, TINY, TRAINING, run
from fairseq import checkpoint_utils

from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.reporting.training_log import read_pretraining_run
from entropy_mask_plugin.scoring.sources import SOURCES, Source
from entropy_mask_plugin.studies.record import flops_per_token

PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8").split("## Add a part")[1]
PARTS = {
    **dict(zip(("strategy", "score", "source", "unit", "learner", "rate"),
               re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))),
    "mixer": (ROOT / "tests" / "builders" / "mean_mixer.py").read_text(encoding="utf-8") + """

from entropy_mask_plugin.models.mixers import MIXERS

MIXERS.add("mean")(Mean)
""",
}


@pytest.fixture
def train_with(data_bin, tmp_path):
    """Run fairseq-train with a part of PARTS in a --user-dir of its own, and flags."""

    def start(part, *flags, save_dir="run"):
        mine = tmp_path / part
        mine.mkdir(exist_ok=True)
        (mine / "__init__.py").write_text(PARTS[part])
        training = [str(mine) if flag == PLUGIN else flag for flag in TRAINING]
        return run("fairseq_cli.train", data_bin, *training, *OURS, *flags, "--max-epoch", "1",
                   "--save-dir", tmp_path / save_dir)

    return start


def succeeded(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def error_of(done):
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def settings_of(folder):
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["cfg"]["task"]


@pytest.mark.slow
def test_a_strategy_brings_its_flag(train_with, tmp_path):
    own = ["--mask-strategy", "blurred", "--self-mask-from-epoch", "1"]
    assert "entropy_masked" in succeeded(train_with("strategy", *TINY, *own, "--blur", "2.5"))
    assert settings_of(tmp_path / "run")["blur"] == 2.5
    resumed = succeeded(train_with("strategy", *TINY, *own, "--max-epoch", "2"))
    assert "was trained with --blur 2.5 and resumes with 0.5" in resumed
    assert error_of(train_with("strategy", *TINY, *own, "--blur", "-1")) == (
        "error: --blur: -1.0 found, expected 0 or more")


@pytest.mark.slow
def test_a_checkpoint_loads_without_its_strategy_which_training_asks_for(train_with, tmp_path):
    succeeded(train_with("strategy", *TINY, "--mask-strategy", "blurred", "--self-mask-from-epoch", "1"))
    checkpoint = str(tmp_path / "run" / "checkpoint_last.pt")
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([checkpoint])  # this process does not have it
    assert model.eval()(torch.arange(4, 14)[None])[0].isfinite().all()
    assert error_of(train_with("strategy", *TINY, "--mask-strategy", "blured")) == (
        "error: --mask-strategy: blured found, expected one of high, low, mid, marginal, random, alternating, gumbel, "
        "blurred (did you mean blurred?)")


@pytest.mark.slow
def test_a_curve_of_a_rate_is_typed_before_its_ends(train_with, tmp_path):
    flags = [*TINY, "--mask-strategy", "random", "--mask-prob", "late:0.5:0.1", "--max-update", "9"]
    log = succeeded(train_with("rate", *flags))
    assert settings_of(tmp_path / "run")["mask_prob"] == "late:0.5:0.1"
    rates = [float(rate) for rate in re.findall(r"mask_rate=([\d.]+)", log)]
    assert [round(rate, 1) for rate in rates] == [0.5] * 8 + [0.1]


@pytest.mark.slow
def test_a_strategys_flag_is_a_setting_under_hydra_too(data_bin, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "__init__.py").write_text(PARTS["strategy"])
    done = run(
        "fairseq_cli.hydra_train", "--config-dir", ROOT / "examples" / "paper", "--config-name", "bertlet",
        f"common.user_dir={mine}", "common.cpu=true", f"task.data={data_bin}", "task.tokens_per_sample=16",
        "task.mask_strategy=blurred", "+task.blur=1.5", "task.self_mask_from_epoch=1", "task.teacher=null",
        "criterion.kd_weight=0", "task.precision=fp32", "+model.encoder_layers=1", "+model.encoder_embed_dim=16",
        "+model.encoder_ffn_embed_dim=16", "+model.encoder_attention_heads=2", "+model.max_positions=16",
        "dataset.batch_size=64", "dataset.num_workers=0", "optimization.max_update=2",
        f"checkpoint.save_dir={tmp_path}/run", cwd=tmp_path)
    succeeded(done)
    assert settings_of(tmp_path / "run")["blur"] == 1.5


@pytest.mark.slow
def test_a_score_is_logged_and_cached_under_its_own_name(train_with, teacher, tmp_path):
    flags = [*TINY, "--teacher", teacher, "--entropy-cache", tmp_path / "cache"]
    log = succeeded(train_with("score", *flags, "--mask-score", "doubt"))
    assert "| score_masked 0." in log and "entropy_masked 0" not in log
    log = succeeded(train_with("score", *flags, save_dir="entropy"))
    assert "| entropy_masked " in log and "score_masked" not in log
    facts = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/facts.json")]
    assert sorted(fact.get("score", "") for fact in facts) == ["", "doubt"]
    assert {fact.get("version of the score") for fact in facts} == {None, 1}


@pytest.mark.slow
def test_a_source_needs_no_teacher_and_costs_no_pass(train_with, data_bin, tmp_path, monkeypatch):
    log = succeeded(train_with("source", *TINY, "--mask-source", "rarity"))
    assert "| score_masked -" in log
    (tmp_path / "run" / "train.log").write_text(log)
    of_run = read_pretraining_run(str(tmp_path / "run"))
    monkeypatch.setitem(SOURCES._entries, "rarity", Entry(Source, {"reads": None}))
    (own,) = flops_per_token(of_run)
    of_run.flags["task"]["mask_strategy"] = "random"
    assert [own] == list(flops_per_token(of_run))
    of_run.flags["task"].update(mask_strategy="high", self_mask_from_epoch=1)
    assert own < next(flops_per_token(of_run))
    done = run("fairseq_cli.validate", data_bin, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--cpu",
               "--path", tmp_path / "run" / "checkpoint_last.pt", "--valid-subset", "valid", "--batch-size", "64")
    assert "loss" in succeeded(done)  # without the source
    assert error_of(train_with("source", *TINY, "--mask-source", "rarety")) == (
        "error: --mask-source: rarety found, expected one of teacher, self, ema, rarity (did you mean rarity?)")


@pytest.mark.slow
def test_a_unit_is_masked_as_a_whole(train_with, tmp_path):
    rates = {}
    for name, flags in (("pair", ["--mask-unit", "pair"]), ("token", [])):
        log = succeeded(train_with("unit", *TINY, *flags, "--mask-prob", "0.3", "--self-mask-from-epoch", "1",
                                   save_dir=name))
        rates[name] = float(re.search(r"\| mask_rate ([\d.]+)", log)[1])
    assert settings_of(tmp_path / "pair")["mask_unit"] == "pair"
    assert 0.2 < rates["pair"] < rates["token"]  # what does not fit into k is left out


@pytest.mark.slow
def test_a_mixer_trains_in_a_pattern(train_with):
    sizes = ["--arch", "hbertlet", *TINY[2:]]
    succeeded(train_with("mixer", *sizes, "--mixer-pattern", "mean,self", "--mask-strategy", "random"))


@pytest.mark.slow
def test_a_score_that_learns_is_kept_in_the_checkpoint(train_with, tmp_path):
    assert "| score_masked " in succeeded(train_with("learner", *TINY, "--mask-score", "recent-loss"))
    learned = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)["extra_state"]["learned_state"]
    assert learned["score"] == "recent-loss" and learned["state"].keys() == {"mean"} and learned["state"]["mean"].max()
    assert "expected one of entropy, surprisal, margin, accuracy, predicted-loss, recent-loss (did" in error_of(
        train_with("learner", *TINY, "--mask-score", "recent-los"))


def install(folder, name, text):
    """A package with an extension, as pip leaves it."""
    (folder / f"{name}.py").write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[entry_points]\n[entropy_mask_plugin.extensions]\n{name} = {name}\n")


@pytest.mark.slow
def test_an_installed_package_adds_parts_by_its_entry_point(data_bin, tmp_path):
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "blurring", PARTS["strategy"])
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "site")]), "OMP_NUM_THREADS": "1"}

    def python(*words):
        return subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, env=path)

    assert "  blurred       The most uncertain tokens, but for noise. [needs_scores]\n    --blur 0.5: how" in succeeded(
        python("entropy_mask_plugin.policies"))
    succeeded(python("fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, "--mask-strategy", "blurred", "--blur",
                     "1", "--self-mask-from-epoch", "1", "--max-update", "2", "--save-dir", tmp_path / "run"))
    install(tmp_path / "site", "broken", "import no_such_module\n")
    assert error_of(python("entropy_mask_plugin.policies")) == (
        "error: broken: its extension broken cannot be loaded (ModuleNotFoundError: No module named 'no_such_module'); "
        "repair or uninstall it")
