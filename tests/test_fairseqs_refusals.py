"""What fairseq refuses, or should have refused, by itself ends in one line; its accidents keep their traceback."""

import logging
import os
import sys
from argparse import Namespace

import hydra._internal.utils as hydra_utils
import pytest
import torch
from builders.training import OURS, TINY, TRAINING, parse, train
from fairseq import options
from fairseq.data import data_utils, data_utils_fast
from omegaconf import MISSING, OmegaConf

from entropy_mask_plugin.fairseq_fixes.refusals import refusal
from entropy_mask_plugin.system.errors import UsageError

WRONG_NUMBERS = {
    "--seed": ["-1", "4294967296"],
    "--batch-size": ["0", "-3"],
    "--max-tokens": ["0"],
    "--update-freq": ["0", "2,-1"],
    "--log-interval": ["0"],
    "--save-interval": ["0"],
    "--validate-interval": ["0"],
    "--required-batch-size-multiple": ["0"],
    "--distributed-world-size": ["-2"],
    "--num-workers": ["-1"],
    "--max-update": ["-4"],
    "--max-epoch": ["-1"],
    "--save-interval-updates": ["-3"],
    "--lr": ["-1", "1e400", "()", "0.1,-0.1"],
    "--clip-norm": ["nan", "-1"],
    "--stop-time-hours": ["nan"],
    "--weight-decay": ["nan", "-0.1", "inf"],
    "--ema-decay": ["nan", "2"],
    "--adam-betas": ["(0.9", "(0.9, 2)", "print(1)"],
}
SCHEDULED = {"--total-num-update": ["0", "nan"], "--warmup-updates": ["-5"]}


@pytest.mark.parametrize("flag", [*WRONG_NUMBERS, *SCHEDULED])
def test_a_number_of_fairseqs_out_of_range_is_named(flag):
    scheduler = ["--lr-scheduler", "polynomial_decay", "--total-num-update", "10"] if flag in SCHEDULED else []
    for value in (WRONG_NUMBERS | SCHEDULED)[flag]:
        with pytest.raises(UsageError) as caught:
            parse(["bin", *TRAINING, *OURS, *TINY, *scheduler, f"{flag}={value}"])
        assert str(caught.value).startswith(f"{flag}: ") and "expected" in str(caught.value)


def test_the_numbers_of_hydra_are_checked_before_training(data_bin, tmp_path):
    from fairseq.trainer import Trainer

    cfg = parse([data_bin, *TRAINING, *OURS, *TINY])
    cfg.optimization.clip_norm = float("nan")
    with pytest.raises(UsageError, match="^--clip-norm: nan found, expected a finite number, 0 or more"):
        Trainer(cfg, None, None, None)


@pytest.mark.parametrize("flags, line", [
    (["--lr", "fast"], "--lr: fast found, expected a number, or several separated by commas"),
    (["--valid-subset", ""], "--valid-subset: an empty text found, expected a value"),
    (["--log-file", ""], "--log-file: an empty text found, expected a value"),
])
def test_a_flag_of_fairseqs_that_cannot_be_parsed_is_named(flags, line, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fairseq-train", "bin", *TRAINING, *OURS, *TINY, *flags])
    with pytest.raises(SystemExit) as ended:
        options.parse_args_and_arch(options.get_training_parser())
    assert ended.value.code == 2 and capsys.readouterr().err == f"error: {line}\n"


def test_a_missing_arch_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["bin", *TRAINING, *OURS])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: --arch: none found, expected one")


def raised_by(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (of any type)
        function(*arguments)
    return caught.value


def test_a_check_of_fairseqs_is_one_line_and_an_accident_is_not():
    empty = raised_by(data_utils.collate_tokens, [], 0)  # ValueError of max()
    assert refusal(empty) is None
    assert refusal(raised_by(lambda: {}["x"])) is None
    lengths = torch.tensor([20, 20]).numpy()
    too_long = raised_by(data_utils_fast.batch_by_size_vec, lengths.argsort(), lengths, 10, -1, 1)
    assert refusal(too_long) == "Sentences lengths should not exceed max_tokens=10"


def test_an_assertion_without_words_shows_its_condition():
    from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRSchedule

    cfg = Namespace(_name="polynomial_decay", total_num_update=0, lr=[0.1], warmup_updates=0)
    error = raised_by(PolynomialDecayLRSchedule, cfg, None)
    assert refusal(error) == "AssertionError: assert cfg.total_num_update > 0"


def test_a_setting_that_hydra_refuses_is_named_as_a_flag(capsys):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        parse(["bin", *TRAINING, *OURS, *TINY, "--lr-scheduler", "polynomial_decay"])
    assert refusal(caught.value).startswith("--total-num-update: null found, expected another value")
    sys.excepthook(type(caught.value), caught.value, caught.value.__traceback__)
    assert capsys.readouterr().err.startswith("error: --total-num-update: null found")
    assert isinstance(caught.value, hydra_utils.CompactHydraException)  # it prints no traceback either
    assert not isinstance(KeyError("x"), hydra_utils.CompactHydraException)
    assert isinstance(UsageError("x"), hydra_utils.CompactHydraException)


def test_a_setting_that_hydra_misses_is_named():
    cfg = OmegaConf.structured({"data": MISSING})
    assert refusal(raised_by(lambda: cfg.data)) == "data: Missing mandatory value: data"


def test_a_log_line_whose_reader_has_gone_is_dropped(capsys):
    logger = logging.Logger("a test")
    with open(os.devnull) as unwritable:
        logger.addHandler(logging.StreamHandler(unwritable))
        logger.warning("x")
    assert capsys.readouterr().err == ""


def test_a_scheduler_that_cannot_be_built_is_named(data_bin, tmp_path):
    with pytest.raises(UsageError, match=r"^--lr-scheduler: inverse_sqrt cannot be built .*division by zero"):
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--lr-scheduler", "inverse_sqrt",
              "--warmup-updates", "0", "--max-update", "1")
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("flags, line", [
    (["--restore-file", "{teacher}"], "--finetune-from-model together with --restore-file found, expected one of them"),
    (["--reset-meters"], "--finetune-from-model together with --reset-meters found, expected one of them"),
    (["--optimizer-overrides", "{{"], "--optimizer-overrides: { found, expected a dict"),
    (["--optimizer-overrides", "3"], "--optimizer-overrides: 3 found, expected a dict"),
])
def test_what_a_checkpoint_is_reset_to_is_checked(flags, line, data_bin, teacher, tmp_path):
    flags = [flag.format(teacher=teacher) for flag in flags]
    start = ["--finetune-from-model", teacher] if "--optimizer-overrides" not in flags else []
    with pytest.raises(UsageError) as caught:
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "1", *start, *flags)
    assert str(caught.value).startswith(line)
    assert not list(tmp_path.glob("*.pt"))


def test_a_metric_that_validation_does_not_have_is_named(data_bin, tmp_path):
    with pytest.raises(UsageError, match="^--best-checkpoint-metric: bleu found, expected one of accuracy, .*, loss, "):
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "1", "--best-checkpoint-metric",
              "bleu")
    assert not list(tmp_path.glob("*.pt"))
