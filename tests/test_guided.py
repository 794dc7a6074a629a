"""A fraction of the masks follows the scores, the rest is random; rates that change over a run."""

import logging
import math
import re

import pytest
import torch
from builders.training import OURS, TINY, TRAINING, batch_of, masked_by_policy, parse, same_weights, train
from fairseq import tasks
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema.ema import EMA

from entropy_mask_plugin.masking import Masker, Policy, Scores, Vocabulary, When, noise
from entropy_mask_plugin.masking.rates import RATES, Ramp, mean_over, parse_rate, rate_at
from entropy_mask_plugin.system.errors import UsageError

COLD = ["--mask-strategy", "high", "--self-mask-from-epoch", "1"]
FIRST = When(1, 0)


def batch(rows, length=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 50, (rows, length), generator=generator)
    maskable = torch.rand(rows, length, generator=generator) < 0.8
    return tokens, torch.arange(rows) * 7 + seed, maskable, torch.randn(rows, length, generator=generator)


SYMBOLS = [*"abcd", *(f"{'' if i % 3 else '##'}w{i}" for i in range(46))]


def mask(policy, rows=30, when=FIRST, scores=True, only=None):
    """Mask a batch, or one of its sentences alone."""
    tokens, ids, maskable, values = (x if only is None else x[only : only + 1] for x in batch(rows))
    masker = Masker(policy, Vocabulary(3, 1, torch.arange(4, 50), SYMBOLS), 5)
    part = masker.guided_rows(ids.tolist(), when)
    if part is not None and not len(part):
        scores = False
    of = Scores(values if part is None else values[part], rows=part) if scores else None
    return masker(tokens, ids, maskable, of, when)


def largest(values, positions, k):
    return sorted(positions, key=lambda j: (-float(values[j]), j))[:k]


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("mask_prob", [0.15, 0.4, 1.0])
def test_by_tokens_g_follow_the_scores_and_the_rest_is_drawn_from_what_is_left(fraction, mask_prob):
    masked = mask(Policy(mask_prob=mask_prob, guided_fraction=fraction))
    tokens, ids, maskable, values = batch(30)
    u = noise.uniform(5, 1, ids, 1, noise.GUIDED)[:, 0]
    random = noise.uniform(5, 1, ids, 40, noise.SELECTION)
    for row in range(30):
        candidates = maskable[row].nonzero().flatten().tolist()
        k = min(len(candidates), max(1, math.floor(mask_prob * len(candidates) + 0.5)))
        guided = largest(values[row], candidates, math.floor(fraction * k + float(u[row])))
        rest = largest(random[row], [j for j in candidates if j not in guided], k - len(guided))
        assert masked.guided[row].nonzero().flatten().tolist() == sorted(guided)
        assert masked.selected[row].nonzero().flatten().tolist() == sorted(guided + rest)


@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.77])
def test_the_expected_fraction_is_exact(guided_by, fraction):
    masked = mask(Policy(guided_fraction=fraction, guided_by=guided_by), rows=6000)
    number = int(masked.selected.sum())
    sigma = math.sqrt(fraction * (1 - fraction) / (6000 if guided_by == "sequences" else number))
    assert abs(int(masked.guided.sum()) / number - fraction) < 4 * sigma


@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("strategy", ["high", "low", "mid", "gumbel"])
def test_1_is_the_strategy_and_0_is_random_bit_for_bit(strategy, unit, guided_by):
    policy = Policy(strategy, unit=unit, guided_by=guided_by)
    assert torch.equal(mask(policy._replace(guided_fraction="1")).selected, mask(policy).selected)
    random = mask(Policy("random", unit=unit)).selected
    assert torch.equal(mask(policy._replace(guided_fraction=0.0)).selected, random)
    assert torch.equal(mask(policy, scores=False).selected, random)  # as in epochs without a source


@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("strategy", ["low", "gumbel"])
def test_a_sentence_has_the_same_masks_alone(strategy, unit, guided_by):
    policy = Policy(strategy, unit=unit, guided_by=guided_by, guided_fraction=0.5)
    together = mask(policy).selected
    for row in range(30):
        assert torch.equal(mask(policy, only=row).selected[0], together[row])


def test_by_sequences_a_sentence_has_the_masks_of_the_strategy_or_random_ones():
    policy = Policy(guided_fraction=0.4, guided_by="sequences")
    masked, high, random = mask(policy), mask(Policy()).selected, mask(Policy("random")).selected
    u = noise.uniform(5, 1, batch(30)[1], 1, noise.GUIDED)[:, 0]
    assert 0 < int((u < 0.4).sum()) < 30
    for row in range(30):
        assert torch.equal(masked.selected[row], (high if u[row] < 0.4 else random)[row])
        assert masked.guided[row].any() == bool(u[row] < 0.4) == bool(masked.is_scored[row])


@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
def test_which_masks_are_guided_changes_with_the_epoch_unless_masks_are_static(guided_by):
    for static in (False, True):
        policy = Policy(guided_fraction=0.5, guided_by=guided_by, static_masks=static)
        one, other = (mask(policy, when=When(epoch, 0)).selected for epoch in (1, 2))
        assert torch.equal(one, other) == static


# ---- rates

@pytest.mark.parametrize("text, value, at_a_quarter", [
    ("0.15", 0.15, 0.15), (0.15, 0.15, 0.15), ("0.3:0.15", Ramp(0.3, 0.15), 0.2625), ("0:0.5", Ramp(0, 0.5), 0.125),
    ("0.4:0.4", 0.4, 0.4),
])
def test_a_rate_is_a_number_or_goes_linearly_over_the_run(text, value, at_a_quarter):
    assert parse_rate(text) == value and rate_at(value, 0.25) == pytest.approx(at_a_quarter)
    assert parse_rate(str(value)) == value
    assert mean_over(lambda progress: rate_at(value, progress)) == pytest.approx(rate_at(value, 0.5))


def test_a_curve_of_ones_own_is_typed_before_the_ends(monkeypatch):
    monkeypatch.setattr(RATES, "_entries", dict(RATES._entries))

    @RATES.add("late")
    def late(first, last, progress):
        return last if progress > 0.9 else first

    assert [rate_at(parse_rate("late:0.3:0.1"), progress) for progress in (0, 0.8, 1)] == [0.3, 0.3, 0.1]
    assert str(parse_rate("late:0.3:0.1")) == "late:0.3:0.1"
    with pytest.raises(ValueError, match="did you mean late"):
        parse_rate("lat:0.3:0.1")


def test_the_mean_over_a_part_of_the_run_is_exact_for_cubic_costs():
    mean = mean_over(lambda x: 4 * x**3 - x, 0.25, 0.75)
    assert mean == pytest.approx(((0.75**4 - 0.75**2 / 2) - (0.25**4 - 0.25**2 / 2)) / 0.5)


def test_the_masker_follows_a_ramp():
    numbers = [int(mask(Policy("random", mask_prob="0.4:0.1"), when=When(1, 0, progress)).selected.sum())
               for progress in (0.0, 0.5, 1.0)]
    assert numbers == [int(mask(Policy("random", mask_prob=rate)).selected.sum()) for rate in (0.4, 0.25, 0.1)]


@pytest.mark.parametrize("flags, expected", [
    (["--mask-prob", "0.3:1.5"], r"--mask-prob: 0.3:1.5 found, expected a fraction in \(0, 1\], or two of them"),
    (["--mask-prob", "0:0.5"], r"--mask-prob: 0:0.5 found"),
    (["--mask-prob", "a:b"], r"--mask-prob: a:b found .*expected a number, or FIRST:LAST"),
    (["--mask-prob", "1:2:3:4"], r"--mask-prob: 1:2:3:4 found \(1:2:3:4 has 4 parts\)"),
    (["--mask-prob", "cosine:0.3:0.1"], r"--mask-prob: cosine:0.3:0.1 found \(.*linear"),
    (["--guided-fraction", "1.1"], r"--guided-fraction: 1.1 found, expected a fraction in \[0, 1\]"),
    (["--guided-fraction", "half"], r"--guided-fraction: half found"),
    (["--guided-by", "words"], r"--guided-by: words found, expected tokens or sequences"),
    (["--guided-fraction", "0:0.5"], r"--guided-fraction 0:0.5 without an end of the run found, expected --max"),
    (["--mask-prob", "0.3:0.15"], r"--mask-prob 0.3:0.15 without an end of the run found, expected --max-update"),
    (["--mask-prob", "0.3:0.15", "--max-epoch", "2", "--update-freq", "1,2"],
     r"--mask-prob 0.3:0.15 with epochs of different numbers of updates .* found, expected --max-update"),
    (["--mask-source", "ema", "--self-mask-from-epoch", "2"], r"--mask-source: ema without --store-ema found"),
    (["--mask-score", "accuracy", "--fp16"], r"--fp16 or --amp: with --mask-score accuracy found, expected --prec"),
    (["--guided-fraction", "0:0.5", "--self-entropy-every", "2", "--entropy-cache", "x", "--max-epoch", "2"],
     r"--self-entropy-every together with --guided-fraction 0:0.5 found, expected a fraction that is never 0"),
    (["--self-mask-model", "ema"], r"--self-mask-model: ema without --store-ema found, expected --store-ema"),
    (["--self-mask-model", "slow"], r"--self-mask-model: slow found, expected current or ema"),
    (["--guided-fraction", "0.5", "--guided-by", "sequences", "--self-entropy-every", "2", "--entropy-cache", "x"],
     r"--self-entropy-every together with --guided-by sequences"),
])
def test_what_cannot_be_is_refused_in_one_line(flags, expected, data_bin, teacher):
    with pytest.raises(UsageError, match=expected) as error:
        tasks.setup_task(parse_task(data_bin, *COLD, *flags))
    assert "\n" not in str(error.value)


def parse_task(data, *flags):
    return parse([data, *TRAINING, *OURS, *TINY, *flags]).task


# ---- in a training

def test_progress_is_that_of_max_update_or_of_max_epoch(start_training):
    trainer, _ = start_training(*COLD, "--max-update", "40")
    assert [trainer.task.when(update).progress for update in (0, 10, 40, 50)] == [0, 0.25, 1, 1]
    trainer, _ = start_training(*COLD, "--max-epoch", "4", "--update-freq", "3")
    per_epoch = math.ceil(len(trainer.get_train_iterator(epoch=1)) / 3)
    assert trainer.task.when(per_epoch).progress == pytest.approx(0.25)
    trainer, _ = start_training(*COLD, "--max-epoch", "4", "--max-update", "10")
    assert trainer.task.when(5).progress == 0.5
    assert start_training(*COLD)[0].task.when(7).progress == 0


def test_progress_does_not_depend_on_where_a_run_resumes(start_training):
    progress = []
    for epochs in ([1, 2, 3], [3]):
        trainer, _ = start_training(*COLD, "--max-epoch", "4", "--update-freq", "3")
        for epoch in epochs:
            trainer.get_train_iterator(epoch=epoch)
            progress.append(trainer.task.when(9).progress)
            trainer.task.begin_epoch(epoch, trainer.model)
    assert len(set(progress)) == 1


@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
def test_guided_masks_do_not_depend_on_the_batch(guided_by, make_task):
    task, model, _ = make_task(*COLD, "--guided-fraction", "0.5", "--guided-by", guided_by)

    def masks(ids):
        sample = masked_by_policy(task, batch_of(task, ids), model, 0)[0]
        return {int(i): row.ne(1).nonzero().flatten().tolist() for i, row in zip(sample["id"], sample["target"])}

    together = masks(range(30))
    assert together == masks(reversed(range(30))) == {**masks(range(7)), **masks(range(7, 30))}


def test_by_sequences_only_the_guided_ones_pass_through_the_model(make_task, monkeypatch):
    task, model, _ = make_task(*COLD, "--guided-fraction", "0.5", "--guided-by", "sequences")
    seen, lm_hidden = [], model.lm_hidden
    monkeypatch.setattr(model, "lm_hidden", lambda tokens, has_padding: seen.append(tokens) or lm_hidden(
        tokens, has_padding=has_padding))
    sample = batch_of(task, range(30))
    _, log = masked_by_policy(task, sample, model, 0)
    rows = task.masker.guided_rows(range(30), FIRST)
    assert 0 < len(rows) < 30 and torch.equal(seen[0], sample["net_input"]["src_tokens"][rows]) and len(seen) == 1
    assert int(log["n_scored"]) == sum(sample["n_maskable"][row] for row in rows)
    assert int(log["n_guided"]) == int(log["n_scored_selected"]) < log["n_selected"]


def test_without_guided_sentences_in_a_batch_nothing_is_scored(make_task):
    task, _, _ = make_task(*COLD, "--guided-fraction", "0.5", "--guided-by", "sequences")
    rows = set(task.masker.guided_rows(range(30), FIRST).tolist())
    sample = batch_of(task, [i for i in range(30) if i not in rows])
    masked, log = masked_by_policy(task, sample, None, 0)  # no model: it would fail
    assert int(log["n_guided"]) == int(log["n_scored"]) == 0 and log["n_selected"] == masked["selected"].number > 0
    assert all(torch.is_tensor(log[key]) for key in ("n_guided", "n_scored", "n_scored_selected"))  # as on other ranks


@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
def test_a_teachers_cache_and_its_scores_on_the_fly_guide_the_same_masks(guided_by, data_bin, teacher, tmp_path):
    flags = ["--mask-strategy", "high", "--teacher", teacher, "--guided-fraction", "0.5", "--guided-by", guided_by,
             "--max-update", "8", "--entropy-precision", "fp32"]
    one = train(data_bin, str(tmp_path / "fly"), *flags)
    other = train(data_bin, str(tmp_path / "cached"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert same_weights(one, other)


def test_the_log_says_how_many_masks_are_guided(data_bin, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(data_bin, str(tmp_path / "run"), *COLD, "--guided-fraction", "0:1", "--max-update", "10")
    lines = (re.search(r"guided=([\d.]+)", record.getMessage()) for record in caplog.records)
    guided = [float(line[1]) for line in lines if line]
    assert len(guided) == 10 and guided == pytest.approx([update / 10 for update in range(10)], abs=0.25)


# ---- the average, and no teacher

def test_masks_follow_the_average_and_not_the_model(make_task):
    task, model, _ = make_task(*COLD, "--self-mask-model", "ema", "--store-ema")
    _, ema, _ = make_task(*COLD, "--self-mask-model", "ema", "--store-ema", "--seed", "9")
    assert task.uses_ema and not make_task(*COLD, "--store-ema")[0].uses_ema
    sample = batch_of(task, range(20))
    by_ema = task.score(sample, model.train(), FIRST, ema.train()).values
    assert torch.equal(by_ema, make_task(*COLD)[0].score(sample, ema, FIRST).values)
    assert not torch.equal(by_ema, make_task(*COLD)[0].score(sample, model, FIRST).values)


def ema_of(model, **settings):
    config = EMAConfig(store_ema=True, **settings)
    return EMA(model, config)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9, "ema_start_update": 2}, {"ema_fp32": True}])
def test_the_average_is_that_of_a_plain_loop(make_task, settings):
    _, model, _ = make_task(*COLD)
    ema = ema_of(model, **settings)
    expected = {name: value.clone() for name, value in ema.get_model().state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    for update in range(1, 5):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator))
        ema.step(model, update)
        decay = 0.0 if update < settings.get("ema_start_update", 0) else settings.get("ema_decay", 0.9999)
        for name, value in model.state_dict().items():
            expected[name].mul_(decay).add_(value, alpha=1 - decay)
    assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in ema.get_model().state_dict().items())


def test_a_resumed_average_is_updated_after_the_same_updates(make_task):
    _, model, _ = make_task(*COLD)
    straight, resumed = ema_of(model, ema_update_freq=3), None
    changed = []
    for update in range(1, 10):
        if update == 5:
            resumed = ema_of(model, ema_update_freq=3)  # its counter begins at 0
        for parameter in model.parameters():
            parameter.data.add_(1.0)
        for ema in (straight, *([resumed] if resumed else [])):
            before = next(ema.get_model().parameters()).clone()
            ema.step(model, update)
            if not torch.equal(before, next(ema.get_model().parameters())):
                changed.append((update, ema is resumed))
    assert changed == [(3, False), (6, False), (6, True), (9, False), (9, True)]


@pytest.mark.slow
def test_an_average_changes_the_masks_of_a_training_and_resumes_bit_for_bit(data_bin, tmp_path):
    flags = [*COLD, "--store-ema", "--ema-decay", "0.9", "--guided-fraction", "0:0.5"]
    by_ema = [*flags, "--self-mask-model", "ema", "--max-update", "30"]
    straight = train(data_bin, str(tmp_path / "straight"), *by_ema, "--save-interval-updates", "13")
    for file in (tmp_path / "straight").glob("*_13.pt"):
        train(data_bin, str(tmp_path / "resumed"), *by_ema, "--restore-file", str(file))
    assert same_weights(straight, str(tmp_path / "resumed" / "checkpoint_last.pt"))
    assert not same_weights(straight, train(data_bin, str(tmp_path / "current"), *flags, "--max-update", "30"))


@pytest.mark.slow
def test_without_a_teacher_epochs_before_self_masking_are_random(data_bin, tmp_path, caplog):
    flags = ["--mask-strategy", "high", "--self-mask-from-epoch", "2"]
    with caplog.at_level(logging.INFO):
        init = train(data_bin, str(tmp_path / "init"), *flags, "--max-epoch", "1")
    assert any("masks are random before epoch 2" in record.getMessage() for record in caplog.records)
    random = train(data_bin, str(tmp_path / "random"), "--mask-strategy", "random", "--max-epoch", "1")
    assert same_weights(init, random)
    init = train(data_bin, str(tmp_path / "init"), *flags, "--max-epoch", "2")
    random = train(data_bin, str(tmp_path / "random"), "--mask-strategy", "random", "--max-epoch", "2")
    assert not same_weights(init, random)
