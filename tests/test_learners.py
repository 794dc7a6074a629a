"""Scores that learn from the training's own answers, against plain references, and in whole trainings."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from builders.processes import Killed, kill_before_update, torchrun
from builders.training import (
    PLUGIN,
    TINY,
    batch_of,
    binarise_task,
    masked_by_policy,
    run,
    same_weights,
    train,
    weights,
)
from torch import nn

from entropy_mask_plugin.checkpoints.reading import read_checkpoint
from entropy_mask_plugin.config import source_schedule
from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.masking import SCORES, Answers, projected
from entropy_mask_plugin.masking.noise import TIES, uniform
from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.scores.accuracy import NOISE, Accuracy
from entropy_mask_plugin.masking.scores.predicted_loss import PredictedLoss, predicted_loss, ranking_loss
from entropy_mask_plugin.models.positions import SelectedPositions
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.training.cross_entropy import inplace_cross_entropy, inplace_cross_entropy_by_row

V, C = 30, 8
LEARNED = ["accuracy", "predicted-loss"]
OPTIONS = {"accuracy": ["--accuracy-window", "3"], "predicted-loss": []}
ALONE = lambda tensor: None  # noqa: E731  (all_reduce of a single rank)


def flags_of(score, *more):
    return ["--mask-strategy", "high", "--mask-score", score, *OPTIONS[score], *more]


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
    def sources(strategy, first):
        task = {"mask_strategy": strategy, "mask_score": "accuracy", "teacher": "T", "self_mask_from_epoch": first}
        return [source_schedule(task).at(epoch) for epoch in (1, 2, 3)]

    assert sources("high", None) == sources("high", 1) == ["self"] * 3 and sources("high", 3) == [None, None, "self"]
    assert sources("random", 1) == [None] * 3


@pytest.mark.parametrize("flags, message", [
    (["--entropy-cache", "cache"], "--entropy-cache: cache with --mask-score accuracy found, expected none"),
    (["--entropy-cache", "", "--self-entropy-every", "2"], "--self-entropy-every: expected --entropy-cache"),
    (["--criterion", "masked_lm"], "--criterion: masked_lm with --mask-score accuracy found, expected entropy_masked"),
    (["--accuracy-window", "0"], "--accuracy-window: 0 found, expected 1 or more"),
    (["--accuracy-mix", "0"], r"--accuracy-mix: 0.0 found, expected a weight in \(0, 1\]"),
    (["--accuracy-floor", "2"], r"--accuracy-floor: 2.0 found, expected a rate in \(0, 1\]"),
])
def test_what_a_learned_score_cannot_do_is_refused_in_a_line(flags, message, make_task):
    with pytest.raises(UsageError, match=f"^{message}"):
        make_task(*flags_of("accuracy"), *flags)


def test_features_are_asked_of_archs_that_have_them(make_task):
    roberta = ["--arch", "roberta_base", *TINY[2:]]
    message = "^--mask-score: predicted-loss with --arch roberta_base found, expected one of this plug-in's archs"
    with pytest.raises(UsageError, match=message):
        make_task(*flags_of("predicted-loss"), model=roberta)
    assert make_task(*flags_of("accuracy"), model=roberta)[0].learner is not None


def test_a_learned_score_is_no_function_of_logits():
    with pytest.raises(ValueError, match="--mask-score accuracy: a score that learns found, expected one of logits"):
        projected("accuracy", torch.zeros(2, C), torch.zeros(V, C), torch.zeros(V), None)


def test_no_learner_where_no_score_is_learned(make_task, teacher):
    assert make_task("--mask-strategy", "random", "--mask-score", "accuracy")[0].learner is None
    assert make_task("--mask-strategy", "high", "--teacher", teacher)[0].learner is None


def test_the_hardest_types_of_a_sentence_are_masked(make_task):
    task, model, _ = make_task(*flags_of("accuracy"))
    task.learner.rates.copy_(torch.rand(len(task.dictionary), generator=torch.Generator().manual_seed(0)))
    sample = batch_of(task, range(30))
    masked = masked_by_policy(task, sample, model, 0)[0]
    rates = task.learner.rates.log()[sample["net_input"]["src_tokens"]]
    for row, target, maskable in zip(rates, masked["target"], sample["maskable"]):
        chosen = target != 1
        assert row[chosen].min() >= row[maskable & ~chosen].max() - NOISE


def test_predicted_losses_are_those_of_the_features_of_the_clean_text(make_task):
    task, model, _ = make_task(*flags_of("predicted-loss"))
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


# ---- in trainings

def learned_state(checkpoint):
    return torch.load(checkpoint, weights_only=True)["extra_state"]["learned_state"]


def same_state(one, other):
    one, other = (learned_state(checkpoint)["state"] for checkpoint in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_learning_changes_neither_masks_nor_weights_before_its_scores_are_used(score, data_bin, tmp_path):
    random = train(data_bin, str(tmp_path / "random"), "--mask-strategy", "random", "--max-epoch", "1")
    learning = train(data_bin, str(tmp_path / score), *flags_of(score), "--self-mask-from-epoch", "2", "--max-epoch",
                     "1")
    assert same_weights(random, learning) and learned_state(learning)["score"] == score
    following = train(data_bin, str(tmp_path / "following"), *flags_of(score), "--max-epoch", "1")
    assert not same_weights(random, following)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--kd-weight", "0.5", "--kd-positions", "all", "--update-freq", "2"]],
                         ids=["mlm", "kd"])
@pytest.mark.parametrize("score", LEARNED)
def test_a_run_killed_and_resumed_has_learned_what_a_straight_run_has(
    score, more, data_bin, teacher, tmp_path, monkeypatch
):
    flags = flags_of(score, "--teacher", teacher, *more, "--max-epoch", "2", "--save-interval-updates", "4")
    straight = train(data_bin, str(tmp_path / "straight"), *flags)
    updates = torch.load(straight, weights_only=True)["optimizer_history"][-1]["num_updates"]
    with monkeypatch.context() as patch:
        kill_before_update(patch, updates - 1)
        with pytest.raises(Killed):
            train(data_bin, str(tmp_path / "killed"), *flags)
    resumed = train(data_bin, str(tmp_path / "killed"), *flags)
    assert same_weights(straight, resumed) and same_state(straight, resumed)


@pytest.mark.slow
def test_only_masked_tokens_of_training_are_counted(data_bin, tmp_path, caplog):
    with caplog.at_level("INFO"):
        checkpoint = train(data_bin, str(tmp_path), *flags_of("accuracy"), "--accuracy-window", "1000", "--max-epoch",
                           "2", "--log-format", "json")  # validates twice
    seen, correct = learned_state(checkpoint)["state"]["seen_and_correct"]
    assert seen[:4].sum() == 0 and (correct <= seen).all()  # <s> <pad> </s> <unk>
    assert seen[-1] == 0  # <mask>
    text = " ".join(record.message for record in caplog.records)
    rates = [float(rate) for rate in re.findall(r'"train_mask_rate": "([\d.]+)"', text)]
    assert len(rates) == 2 and '"train_score_masked"' in text and "train_entropy" not in text
    updates = torch.load(checkpoint, weights_only=True)["optimizer_history"][-1]["num_updates"]
    assert 0.1 * 64 * 14 * updates < seen.sum() < 0.2 * 64 * 16 * updates


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_checkpoints_load_for_everything_else(score, data_bin, make_task, tmp_path, caplog):
    checkpoint = train(data_bin, str(tmp_path / "run"), *flags_of(score), "--max-update", "7")
    done = run("fairseq_cli.validate", data_bin, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--path",
               checkpoint, "--batch-size", "64", "--cpu")
    assert done.returncode == 0, done.stderr
    task, _, _ = make_task(*flags_of(score), "--kd-weight", "0.5", "--teacher", checkpoint)
    assert same_as_new(task.learner, score)
    with caplog.at_level("WARNING"):
        tuned = train(data_bin, str(tmp_path / "adapted"), *flags_of(score), "--finetune-from-model", checkpoint,
                      "--max-update", "1")
        assert not caplog.records or "learned" not in caplog.text
    assert learned_state(tuned)["state"].keys() == learned_state(checkpoint)["state"].keys()
    binarise_task(data_bin, tmp_path / "glue")
    tuned = train(
        str(tmp_path / "glue"), str(tmp_path / "tuned"), "--restore-file", checkpoint, "--reset-optimizer",
        "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler", "--num-classes", "2", "--init-token", "0",
        "--max-epoch", "1", task=["--task", "sentence_prediction", "--criterion", "sentence_prediction"])
    assert torch.equal(weights(tuned)["lm_head.bias"], weights(checkpoint)["lm_head.bias"])


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_a_model_is_exported_without_what_was_learned(score, like_data, data_bin, tmp_path):
    pytest.importorskip("transformers")
    import_bert(str(like_data[0]), str(tmp_path / "in"))
    checkpoint = train(data_bin, str(tmp_path / "run"), "--restore-file", tmp_path / "in" / "model.pt", "--max-update",
                       "2", *flags_of(score), model=["--arch", "bert_base", *TINY[2:]])
    assert export_bert(checkpoint, str(tmp_path / "out"), str(tmp_path / "in")) == "BertForMaskedLM"
    import_bert(str(tmp_path / "out"), str(tmp_path / "back"))
    back = read_checkpoint(str(tmp_path / "back" / "model.pt"), "--restore-file")
    assert "learned_state" not in back["extra_state"]
    assert back["model"].keys() == weights(checkpoint).keys()


def same_as_new(learner, score):
    new = SCORES[score].fn(V, C, **SCORES[score].chosen({})).state_dict()
    state = learner.state_dict()
    return all(state[key].numel() != new[key].numel() or torch.equal(state[key], new[key]) for key in new)


@pytest.mark.slow
def test_another_score_is_learned_from_scratch(data_bin, tmp_path, caplog):
    train(data_bin, str(tmp_path), *flags_of("accuracy"), "--max-update", "4")
    with caplog.at_level("WARNING"):
        checkpoint = train(data_bin, str(tmp_path), *flags_of("predicted-loss"), "--max-update", "6")
    assert "--mask-score predicted-loss: not in the checkpoint, it is learned from scratch" in caplog.text
    assert learned_state(checkpoint)["state"]["steps"] == 2


@pytest.mark.slow
def test_a_score_of_ones_own_may_learn(data_bin, tmp_path, monkeypatch):
    class Count(Accuracy):
        def __init__(self, vocabulary_size, width):
            super().__init__(vocabulary_size, width, 1, 1.0, 0.5)

    monkeypatch.setitem(SCORES._entries, "count", Entry(Count, {**SCORES.defaults, "needs": "history"}))
    checkpoint = train(data_bin, str(tmp_path), "--mask-score", "count", "--max-update", "3")
    assert learned_state(checkpoint)["state"]["rates"].min() == 0.5


EQUAL_STATES = """
import torch
from fairseq.trainer import Trainer
from fairseq_cli.train import cli_main

step = Trainer.train_step

def compared(self, samples, raise_oom=False):
    logs = step(self, samples, raise_oom)
    state = torch.cat([x.double().flatten() for x in self.task.learner.state_dict().values()])
    states = [torch.empty_like(state) for _ in range(2)]
    torch.distributed.all_gather(states, state)
    assert torch.equal(*states), "the ranks have learned differently"
    return logs

Trainer.train_step = compared
cli_main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_two_ranks_learn_the_same_and_resume_bit_for_bit(score, data_bin, tmp_path):
    script = tmp_path / "equal_states.py"
    script.write_text(EQUAL_STATES)
    flags = flags_of(score, "--batch-size", "48", "--ddp-backend", "c10d")
    straight = torchrun(2, data_bin, tmp_path / "straight", *flags, "--max-update", "11", cwd=tmp_path,
                        program=[script])
    torchrun(2, data_bin, tmp_path / "resumed", *flags, "--max-update", "7", cwd=tmp_path)
    resumed = torchrun(2, data_bin, tmp_path / "resumed", *flags, "--max-update", "11", cwd=tmp_path)
    assert same_weights(straight, resumed) and same_state(straight, resumed)


@pytest.mark.slow
def test_two_ranks_count_what_one_rank_counts(data_bin, tmp_path):
    flags = flags_of("accuracy", "--self-mask-from-epoch", "9", "--batch-size", "48", "--accuracy-window", "1000",
                     "--max-epoch", "2", "--dropout", "0", "--attention-dropout", "0", "--optimizer", "sgd")
    one = train(data_bin, str(tmp_path / "one"), *flags, "--update-freq", "2")
    two = torchrun(2, data_bin, tmp_path / "two", *flags, "--ddp-backend", "c10d", cwd=tmp_path)
    one, two = (learned_state(checkpoint)["state"]["seen_and_correct"] for checkpoint in (one, two))
    assert torch.equal(one[0], two[0]) and (one[1] - two[1]).abs().sum() <= 2
