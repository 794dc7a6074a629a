"""Scores that learn from the training's own answers, against plain references."""

import math

import pytest
import torch
import torch.nn.functional as F
from builders.learners import learned_flags
from builders.training import TINY, batch_of, masked_by_policy
from torch import nn

from entropy_mask_plugin.config import source_schedule
from entropy_mask_plugin.masking import Answers, projected
from entropy_mask_plugin.masking.noise import TIES, uniform
from entropy_mask_plugin.masking.scores.accuracy import NOISE, Accuracy
from entropy_mask_plugin.masking.scores.predicted_loss import PredictedLoss, predicted_loss, ranking_loss
from entropy_mask_plugin.models.positions import SelectedPositions
from entropy_mask_plugin.scoring.schedule import SourceSchedule
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.training.cross_entropy import inplace_cross_entropy, inplace_cross_entropy_by_row

V, C = 30, 8
ALONE = lambda tensor: None  # noqa: E731  (all_reduce of a single rank)


def answers(number, seed=0, sentences=5):
    """Random answers to a batch of `number` masked positions."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(sentences, (number,), generator=generator).sort().values
    return Answers(torch.randint(5, V - 3, (number,), generator=generator),  # some types are never seen
                   torch.rand(number, generator=generator) < 0.4,
                   torch.rand(number, generator=generator), rows, torch.randn(number, C, generator=generator))


def accuracy(window=3, mix=0.8, floor=0.005):
    return Accuracy(V, C, accuracy_window=window, accuracy_mix=mix, accuracy_floor=floor)


# ---- accuracy

@pytest.mark.parametrize("window, mix, floor", [(1, 0.8, 0.005), (3, 0.8, 0.005), (4, 1.0, 0.3), (5, 0.1, 0.001)])
def test_error_rates_are_those_of_a_dictionary_of_counts(window, mix, floor):
    learner, rates, seen, correct = accuracy(window, mix, floor), dict.fromkeys(range(V), 1.0), {}, {}
    for update in range(17):
        for batch in range(2):  # --update-freq 2
            of_batch = answers(23, seed=2 * update + batch)
            learner.observe(of_batch)
            for token, is_right in zip(of_batch.target.tolist(), of_batch.correct.tolist()):
                seen[token] = seen.get(token, 0) + 1
                correct[token] = correct.get(token, 0) + is_right
        learner.update(update, ALONE)
        if (update + 1) % window == 0:
            for token in rates:
                error = 1 - (correct.get(token, 0) + 0.5) / (seen.get(token, 0) + 1)
                rates[token] = max(floor, (1 - mix) * rates[token] + mix * error)
            seen, correct = {}, {}
        counted = learner.seen_and_correct.tolist()
        assert counted == [[counts.get(token, 0) for token in rates] for counts in (seen, correct)]
    assert learner.rates.tolist() == pytest.approx(list(rates.values()), rel=1e-5)
    assert learner.rates[0] == pytest.approx(max(floor, 0.5 + 0.5 * (1 - mix) ** (17 // window)))  # never seen


def test_without_a_window_that_ended_masks_are_random():
    tokens, noise = torch.arange(V).view(3, 10), torch.rand(3, 10)
    assert torch.equal(accuracy().scores(tokens, None, noise), NOISE * noise)


def test_the_score_is_ln_of_the_rate_and_ties_do_not_go_to_the_left():
    learner, tokens = accuracy(window=1), torch.tensor([[7, 9, 7, 7, 9, 7]] * 200)
    learner.observe(answers(100))
    learner.update(0, ALONE)
    scores = learner.scores(tokens, None, uniform(1, 1, torch.arange(200), 6, TIES))
    above = scores - learner.rates.log()[tokens]
    assert above.min() > -1e-6 and above.max() < NOISE + 1e-6
    first = scores.masked_fill(tokens != 7, -math.inf).argmax(1).bincount(minlength=6)
    assert first[tokens[0] == 7].min() > 30 and first[tokens[0] != 7].sum() == 0  # 50 of 200 each


# ---- predicted loss

@pytest.mark.parametrize("number", [0, 1, 5, 8, 9, 40])
def test_the_ranking_loss_and_its_gradient_are_those_of_a_double_loop(number):
    batch = answers(number)
    losses = (batch.losses * 10).round()  # with ties
    predicted = torch.randn(number, generator=torch.Generator().manual_seed(1)).requires_grad_()
    expected, pairs = 0 * predicted.sum(), 0
    for i in range(number):
        for j in range(i + 1, min(i + 9, number)):
            if batch.rows[i] == batch.rows[j]:
                sign = 1 if losses[i] > losses[j] else -1
                expected, pairs = expected + F.softplus(-sign * (predicted[i] - predicted[j])), pairs + 1
    loss, counted = ranking_loss(predicted, losses, batch.rows)
    assert counted == pairs and torch.allclose(loss, expected, rtol=1e-5)
    one, other = (torch.autograd.grad(x, predicted, retain_graph=True)[0] for x in (loss, expected))
    assert torch.allclose(one, other, atol=1e-5)


def test_the_head_learns_by_adam_from_the_mean_of_all_pairs():
    learner, head = PredictedLoss(V, C), nn.Sequential(nn.Linear(C, C), nn.GELU(), nn.Linear(C, 1, bias=False))
    initial = learner.weights.clone().split([C * C, C, C])
    for parameter, value in zip(head.parameters(), initial):
        parameter.data = value.view(parameter.shape).clone()
    adam = torch.optim.Adam(head.parameters(), lr=1e-3)
    for update in range(20):
        sums = torch.zeros(2)
        for batch in (answers(30, seed=2 * update), answers(20, seed=2 * update + 1)):
            learner.observe(batch)
            sums = sums + ranking_loss(head(batch.features)[:, 0], batch.losses, batch.rows)
        learner.update(update, ALONE)
        adam.zero_grad()
        (sums[0] / sums[1].detach()).backward()
        adam.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in head.parameters()])
    assert torch.allclose(learner.weights, expected, atol=1e-5)
    features = torch.randn(2, 6, C)
    assert torch.allclose(learner.scores(None, features, None), head(features)[..., 0], atol=1e-5)


def test_the_head_learns_a_planted_ranking():
    torch.manual_seed(0)
    learner = PredictedLoss(V, C)
    for update in range(300):
        features = torch.randn(60, C)
        learner.observe(Answers(None, None, features[:, 0].exp(), torch.arange(60) // 12, features))
        learner.update(update, ALONE)
    features = torch.randn(1, 500, C)
    ranks = [x.argsort().argsort().double() for x in (learner.scores(None, features, None)[0], features[0, :, 0])]
    assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.9  # Spearman's


def test_an_update_without_answers_is_finite():
    learner = PredictedLoss(V, C)
    learner.observe(answers(0))
    learner.update(0, ALONE)
    assert learner.weights.isfinite().all()


# ---- both

@pytest.mark.parametrize("make, summed", [(accuracy, "latest"), (lambda: PredictedLoss(V, C), "gradient")])
def test_two_ranks_learn_what_one_does(make, summed):
    alone, *ranks = make(), make(), make()
    for update in range(8):
        for rank, learner in enumerate(ranks):
            batch = answers(20 + rank, seed=2 * update + rank)
            alone.observe(batch), learner.observe(batch)
        total = sum(getattr(learner, summed).clone() for learner in ranks)
        alone.update(update, ALONE)
        for learner in ranks:
            learner.update(update, lambda tensor: tensor.copy_(total))  # noqa: B023
    one, *others = (learner.state_dict() for learner in (alone, *ranks))
    assert all(torch.equal(others[0][key], others[1][key]) for key in one)
    assert all(torch.allclose(one[key], others[0][key], atol=1e-5) for key in one)


@pytest.mark.parametrize("make", [accuracy, lambda: PredictedLoss(V, C)])
def test_the_state_is_all_that_a_learner_knows(make):
    straight, first, second = make(), make(), make()
    state = torch.get_rng_state()
    for update in range(10):
        straight.observe(answers(30, seed=update))
        straight.update(update, ALONE)
        learner = first if update < 5 else second
        learner.observe(answers(30, seed=update))
        learner.update(update, ALONE)
        if update == 4:
            second.load_state_dict(first.state_dict())
    one, other = straight.state_dict(), second.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    make()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rows", [0, 1, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_losses_of_rows_come_with_the_same_bits_of_the_loss(rows, dtype):
    generator = torch.Generator().manual_seed(rows)
    logits = (4 * torch.randn(rows, V, generator=generator)).to(dtype)
    target = torch.randint(V, (rows,), generator=generator)
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    loss, n_correct = inplace_cross_entropy(one * 1, target)
    again, n_again, losses, correct = inplace_cross_entropy_by_row(other * 1, target)
    assert torch.equal(loss, again) and n_correct == n_again == correct.sum() and not losses.requires_grad
    assert torch.allclose(losses, F.cross_entropy(logits.float(), target, reduction="none"), atol=1e-6)
    assert torch.equal(correct, logits.argmax(-1).eq(target))
    assert torch.equal(*(torch.autograd.grad(x, leaf)[0] for x, leaf in ((loss, one), (again, other))))


class Recorder(nn.Module):
    """A learner that keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def observe(self, answers):
        assert not torch.is_autocast_enabled("cpu")
        self.shown.append(answers)


@pytest.mark.parametrize("more", [[], ["--kd-weight", "0.5"], ["--kd-weight", "0.5", "--kd-positions", "all"]])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_answers_are_those_at_the_masked_positions(more, precision, make_task, teacher):
    task, model, criterion = make_task("--mask-strategy", "random", "--teacher", teacher, "--precision", precision,
                                       *more)
    sample = masked_by_policy(task, batch_of(task, range(20)), model.eval(), 0)[0]
    criterion.train()
    recorder = Recorder()
    plain = task.in_precision(criterion)(model, sample)
    observed = task.in_precision(criterion)(model, {**sample, "learner": recorder})
    assert torch.equal(plain[0], observed[0]) and plain[2] == observed[2]
    (shown,) = recorder.shown
    tokens, mask = sample["net_input"]["src_tokens"], sample["target"] != 1
    assert torch.equal(shown.target, sample["target"][mask]) and torch.equal(shown.rows, mask.nonzero()[:, 0])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        positions = SelectedPositions(mask)
        features, logits = model.decode(tokens, positions), model(tokens, masked_tokens=positions)[0]
    close = dict(atol=1e-5) if precision == "fp32" else dict(atol=0.1)
    assert not shown.features.requires_grad and torch.allclose(shown.features.float(), features.float(), **close)
    assert shown.losses.dtype == torch.float32
    assert torch.allclose(shown.losses, F.cross_entropy(logits.float(), shown.target, reduction="none"), **close)
    assert shown.correct.eq(logits.argmax(-1).eq(shown.target)).float().mean() > 0.9


# ---- where they are scored

def test_a_learned_score_follows_the_model_and_never_a_teacher():
    settings = {"mask_strategy": "high", "mask_score": "accuracy", "teacher": "teacher.pt"}
    for first in (None, 1, 3):
        assert source_schedule({**settings, "self_mask_from_epoch": first}) == SourceSchedule(None, "self", first or 1)
    by_ema = {**settings, "self_mask_from_epoch": None, "self_mask_model": "ema"}
    assert source_schedule(by_ema).at(1) == "ema"
    assert source_schedule({**settings, "mask_strategy": "random", "self_mask_from_epoch": 1}).at(1) is None


@pytest.mark.parametrize("flags, message", [
    (["--entropy-cache", "cache"], "--entropy-cache: cache with --mask-score accuracy found, expected none"),
    (["--self-entropy-every", "2"], "--self-entropy-every: 2 alone found, expected --entropy-cache"),
    (["--criterion", "masked_lm"], "--criterion: masked_lm with --mask-score accuracy found, expected entropy_masked"),
    (["--accuracy-window", "0"], "--accuracy-window: 0 found, expected 1 or more"),
    (["--accuracy-mix", "0"], r"--accuracy-mix: 0.0 found, expected a weight in \(0, 1\]"),
    (["--accuracy-floor", "2"], r"--accuracy-floor: 2.0 found, expected a rate in \(0, 1\]"),
])
def test_what_a_learned_score_cannot_do_is_refused_in_a_line(flags, message, make_task):
    with pytest.raises(UsageError, match=f"^{message}"):
        make_task(*learned_flags("accuracy"), *flags)


def test_features_are_asked_of_archs_that_have_them(make_task):
    roberta = ["--arch", "roberta_base", *TINY[2:]]
    message = "^--mask-score: predicted-loss with --arch roberta_base found, expected one of this plug-in's archs"
    with pytest.raises(UsageError, match=message):
        make_task(*learned_flags("predicted-loss"), model=roberta)
    assert make_task(*learned_flags("accuracy"), model=roberta)[0].learner is not None


def test_a_learned_score_is_no_function_of_logits():
    with pytest.raises(ValueError, match="--mask-score accuracy: a score that learns found, expected one of logits"):
        projected("accuracy", torch.zeros(2, C), torch.zeros(V, C), torch.zeros(V), None)


def test_no_learner_where_no_score_is_learned(make_task, teacher):
    assert make_task("--mask-strategy", "random", "--mask-score", "accuracy")[0].learner is None
    assert make_task("--mask-strategy", "high", "--teacher", teacher)[0].learner is None


def test_the_hardest_types_of_a_sentence_are_masked(make_task):
    task, model, _ = make_task(*learned_flags("accuracy"))
    task.learner.rates.copy_(torch.rand(len(task.dictionary), generator=torch.Generator().manual_seed(0)))
    sample = batch_of(task, range(30))
    masked = masked_by_policy(task, sample, model, 0)[0]
    rates = task.learner.rates.log()[sample["net_input"]["src_tokens"]]
    for row, target, maskable in zip(rates, masked["target"], sample["maskable"]):
        chosen = target != 1
        assert row[chosen].min() >= row[maskable & ~chosen].max() - NOISE


def test_predicted_losses_are_those_of_the_features_of_the_clean_text(make_task):
    task, model, _ = make_task(*learned_flags("predicted-loss"))
    model.train()
    sample = batch_of(task, range(30))
    masked, _ = masked_by_policy(task, sample, model, 0)
    assert model.training
    tokens = sample["net_input"]["src_tokens"]
    with torch.no_grad():
        scores = predicted_loss(model.eval().decode(tokens), task.learner.weights)
    for row, target, maskable in zip(scores, masked["target"], sample["maskable"]):
        chosen = target != 1
        assert row[chosen].min() >= row[maskable & ~chosen].max()
