"""A time budget: fairseq ends the run, the learning rate follows its account, over interruptions too."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from builders.processes import Killed
from builders.training import train
from fairseq import trainer as fairseq_trainer

from entropy_mask_plugin.fairseq_fixes import clock as fairseq_clock
from entropy_mask_plugin.fairseq_fixes.clock import training_time
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.task import EntropyMaskedLMTask
from entropy_mask_plugin.training.budget_linear import learning_rate

pytestmark = pytest.mark.slow  # trainings from beginning to end

SECONDS = 36  # of an update, by the clock of these tests: a hundredth of an hour
FLAGS = ["--mask-strategy", "random", "--lr", "0.02", "--lr-scheduler", "budget_linear", "--stop-time-hours", "0.2",
         "--warmup-share", "0.25", "--end-learning-rate", "0.002", "--max-epoch", "100", "--log-format", "json"]


@pytest.mark.parametrize("share, expected", [
    (0.0, 0.0), (0.125, 0.5), (0.25, 1.0), (0.625, 0.55), (1.0, 0.1), (1.5, 0.1),
])
def test_the_learning_rate_rises_and_falls_in_straight_lines(share, expected):
    assert learning_rate(share, 1.0, 0.25, 0.1) == pytest.approx(expected)
    assert learning_rate(share, 1.0, 0.0, 0.1) == pytest.approx(1 - 0.9 * min(share, 1.0))


@pytest.fixture
def clock(monkeypatch):
    """Seconds pass in training steps, and nowhere else. `ends` = the number of steps after which the run is killed."""
    state = SimpleNamespace(now=1000.0, steps=0, ends=None)
    step = EntropyMaskedLMTask.train_step

    def timed_step(self, *args, **kwargs):
        if state.steps == state.ends:
            raise Killed
        state.steps += 1
        state.now += SECONDS
        return step(self, *args, **kwargs)

    monkeypatch.setattr(EntropyMaskedLMTask, "train_step", timed_step)
    for module in (fairseq_trainer, fairseq_clock):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: state.now))
    return state


def rates(caplog):
    """{update: learning rate after it}."""
    logs = [json.loads(record.message) for record in caplog.records if record.name == "train_inner"]
    return {int(log["num_updates"]): float(log["lr"]) for log in logs}


def expected_rate(update):
    return pytest.approx(learning_rate(update * SECONDS / 720, 0.02, 0.25, 0.002), rel=1e-3)


def test_fairseq_ends_the_run_with_a_validation_and_a_checkpoint(clock, data_bin, tmp_path, caplog):
    with caplog.at_level("INFO"):
        checkpoint = train(data_bin, str(tmp_path), *FLAGS)
    found = rates(caplog)
    assert len(found) == 21  # more than 0.2 hours: one update beyond twenty
    assert all(rate == expected_rate(update) for update, rate in found.items())
    state = torch.load(checkpoint, weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 21
    assert any(record.name == "valid" and '"valid_num_updates": "21"' in record.message for record in caplog.records)
    assert re.search("Stopping training due to cumulative_training_time: 0.21", caplog.text)


def test_a_killed_run_goes_on_where_the_account_stood(clock, data_bin, tmp_path, caplog):
    flags = [*FLAGS, "--save-interval-updates", "4"]
    clock.ends = 14
    with pytest.raises(Killed):
        train(data_bin, str(tmp_path), *flags)
    clock.ends, clock.now = None, 1e6  # a day later
    caplog.clear()
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path), *flags)
    found = rates(caplog)
    assert min(found) == 13 and max(found) == 21  # two updates were lost, and so was their time
    assert all(rate == expected_rate(update) for update, rate in found.items())


def test_a_run_whose_time_is_over_does_nothing_more(clock, data_bin, tmp_path, caplog):
    checkpoint = train(data_bin, str(tmp_path), *FLAGS)
    before, clock.now = open(checkpoint, "rb").read(), 1e6
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as ended:
        train(data_bin, str(tmp_path), *FLAGS)
    assert ended.value.code == 0 and "--stop-time-hours 0.2 is reached" in caplog.text
    assert open(checkpoint, "rb").read() == before


@pytest.mark.parametrize("flags", [["--finetune-from-model"], ["--reset-optimizer", "--reset-dataloader",
                                   "--reset-lr-scheduler", "--reset-meters", "--restore-file"]])
def test_another_run_begins_its_own_account(flags, clock, data_bin, tmp_path, caplog):
    checkpoint = train(data_bin, str(tmp_path / "one"), *FLAGS)
    with caplog.at_level("INFO"):
        caplog.clear()
        train(data_bin, str(tmp_path / "other"), *FLAGS, *flags, checkpoint)
    found = rates(caplog)
    assert len(found) == 21 and all(rate == expected_rate(update) for update, rate in found.items())


def test_the_start_up_is_not_counted(clock, data_bin, tmp_path, caplog, monkeypatch):
    load = EntropyMaskedLMTask.load_dataset

    def slow_load(self, *args, **kwargs):
        clock.now += 10_000  # an entropy cache, say
        return load(self, *args, **kwargs)

    monkeypatch.setattr(EntropyMaskedLMTask, "load_dataset", slow_load)
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path), *FLAGS)
    assert len(rates(caplog)) == 21


def test_ranks_agree_on_the_time():
    """Two clocks never do: learning rates that differ would make two models."""
    of = lambda ranks, agreed: SimpleNamespace(  # noqa: E731
        data_parallel_world_size=ranks, _cumulative_training_time=agreed, _previous_training_time=100.0,
        cumulative_training_time=lambda: 107.3 if agreed is None else agreed)
    assert training_time(of(2, None)) == 100.0  # what the checkpoint said
    assert training_time(of(2, 105.0)) == 105.0  # what all ranks have agreed on in a step
    assert training_time(of(1, None)) == 107.3


@pytest.mark.parametrize("flags, message", [
    (["--stop-time-hours", "0"], "--stop-time-hours: 0.0 found, expected the budget of --lr-scheduler budget_linear"),
    (["--warmup-share", "1"], "--warmup-share: 1.0 found, expected a fraction in"),
    (["--end-learning-rate", "-1"], "--end-learning-rate: -1.0 found"),
    (["--end-learning-rate", "0.5"], r"--end-learning-rate: 0.5 found, expected 0 to --lr \(0.02\)"),
    (["--lr", "0.1,0.2"], "--lr: 0.1, 0.2 found, expected one number"),
])
def test_values_out_of_range_are_named(flags, message, data_bin, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(data_bin, str(tmp_path), *FLAGS, *flags)
