"""Contextual scores: with --entropy-folds F, the score of a token is that of the pass in which it is hidden."""

import functools
import logging

import numpy as np
import pytest
import torch
from builders.training import TINY, batch_of, masked_by_policy, same_weights, scores_of, train
from scipy import stats

from entropy_mask_plugin.masking.folds import folds
from entropy_mask_plugin.masking.noise import FOLD, uniform
from entropy_mask_plugin.pretrained.restore import warn_of_other_flags
from entropy_mask_plugin.scoring import scorer
from entropy_mask_plugin.scoring.cache import fingerprint
from entropy_mask_plugin.scoring.contextual import compare_with_visible, rank_correlation
from entropy_mask_plugin.scoring.scorer import Scorer
from entropy_mask_plugin.system.errors import UsageError

EOS = ["--sample-break-mode", "eos", "--shorten-method", "truncate"]  # rows of different lengths


# ---- the partition


@pytest.mark.parametrize("number", [1, 2, 3, 7, 40])
def test_the_folds_cover_each_maskable_position_once_and_are_of_equal_sizes(number):
    maskable = torch.rand(50, 31, generator=torch.Generator().manual_seed(1)) < torch.linspace(0, 1, 50)[:, None]
    of = folds(torch.arange(50), maskable, number)
    assert of.dtype == torch.int64 and torch.equal(of >= 0, maskable) and of.min() >= -1 and of.max() < number
    for row, n in zip(of, maskable.sum(1).tolist()):
        sizes = row[row >= 0].bincount(minlength=number)
        assert sizes.sum() == n and sizes.max() - sizes.min() <= 1


def test_the_folds_are_those_of_sorting_each_rows_noise():
    maskable = torch.rand(9, 20, generator=torch.Generator().manual_seed(2)) < 0.7
    ids = torch.arange(100, 109)
    noise = uniform(0, 0, ids, 20, FOLD).tolist()
    for row, allowed, values in zip(folds(ids, maskable, 3).tolist(), maskable.tolist(), noise):
        order = sorted((j for j in range(20) if allowed[j]), key=lambda j: (-values[j], j))  # noqa: B023
        assert row == [order.index(j) % 3 if allowed[j] else -1 for j in range(20)]


def test_a_sequences_folds_do_not_depend_on_its_batch():
    ids = torch.tensor([7, 2**40, 3, 11])
    maskable = torch.arange(30) < torch.tensor([30, 12, 5, 0])[:, None]
    together = folds(ids, maskable, 4)
    for i, length in enumerate((30, 12, 5, 1)):
        alone = folds(ids[i : i + 1], maskable[i : i + 1, :length], 4)
        assert torch.equal(alone[0], together[i, :length])
    assert torch.equal(folds(ids.flip(0), maskable.flip(0), 4), together.flip(0))
    everywhere = folds(torch.arange(20), torch.ones(20, 30, dtype=torch.bool), 4)
    assert len(everywhere.unique(dim=0)) == 20  # other sequences, other folds


# ---- the scores


def entropies_when_hidden(model, task, tokens, hidden):
    """Reference: the entropies of the predictions for one sequence, T int64, with some of its positions masked."""
    tokens = tokens.clone()
    tokens[hidden] = task.mask_idx
    with torch.no_grad():
        logits = model(tokens[None])[0][0].double()
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def by_plain_loop(model, task, sample, number):
    """Reference: hides one fold of one sequence at a time. [T fp64] for each sequence, without padding."""
    rows = []
    fold_of = folds(sample["id"], sample["maskable"], number)
    for tokens, length, row in zip(sample["net_input"]["src_tokens"], sample["net_input"]["src_lengths"], fold_of):
        tokens, row = tokens[:length], row[:length]
        result = entropies_when_hidden(model, task, tokens, row == 0)
        for fold in range(1, number):
            result[row == fold] = entropies_when_hidden(model, task, tokens, row == fold)[row == fold]
        rows.append(result)
    return rows


def check_rows(found, expected, **tolerance):
    for row, reference in zip(found, expected, strict=True):
        assert torch.allclose(row[: len(reference)].double(), reference, **tolerance)


@pytest.mark.parametrize("pays, tolerance", [(False, 1e-5), (True, 0.05)])
@pytest.mark.parametrize("source", ["teacher", "self"])
@pytest.mark.parametrize("number", [2, 7])
def test_scores_are_those_of_a_plain_loop_that_hides_a_fold_at_a_time(number, source, pays, tolerance, make_task,
                                                                      teacher, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.bf16_pays", lambda device: pays)
    flags = ["--teacher", teacher] if source == "teacher" else ["--self-mask-from-epoch", "1"]
    task, model, _ = make_task("--mask-strategy", "high", *EOS, *flags, "--entropy-folds", str(number))
    model.train()
    sample = batch_of(task, range(0, 160, 8))
    assert sample["net_input"]["has_padding"] and min(sample["n_maskable"]) < max(sample["n_maskable"])
    scores = scores_of(task, sample, model)
    expected = by_plain_loop(task.teacher if source == "teacher" else model.eval(), task, sample, number)
    check_rows(scores.exact(), expected, atol=1e-5)
    check_rows(scores.values, expected, atol=tolerance)
    assert (scores.exact_at is not None) is pays


def test_as_many_folds_as_tokens_hide_one_token_at_a_time(make_task, teacher):
    task, _, _ = make_task("--mask-strategy", "high", *EOS, "--teacher", teacher, "--entropy-folds", "500")
    sample, passes = batch_of(task, range(0, 160, 20)), []
    hook = task.teacher.lm_head.register_forward_hook(lambda *io: passes.append(1))
    found = scores_of(task, sample, None).exact()
    hook.remove()
    assert len(passes) == max(sample["n_maskable"])  # folds that are empty in all rows cost nothing
    for i, j in sample["maskable"].nonzero().tolist():
        tokens = sample["net_input"]["src_tokens"][i, : sample["net_input"]["src_lengths"][i]]
        alone = entropies_when_hidden(task.teacher, task, tokens, [j])
        assert torch.allclose(found[i, j].double(), alone[j], atol=1e-5)


def test_a_3ml_model_and_bf16_score_hidden_tokens_too(make_task):
    model = ["--arch", "bertlet_3ml", *TINY[2:]]
    task, model, _ = make_task("--mask-strategy", "high", "--self-mask-from-epoch", "1", "--entropy-folds", "3",
                               model=model)
    sample = batch_of(task, range(6))
    found = scores_of(task, sample, model).exact()
    check_rows(found, by_plain_loop(model.eval(), task, sample, 3), atol=1e-5)
    task, model, _ = make_task("--mask-strategy", "high", "--self-mask-from-epoch", "1", "--entropy-folds", "3",
                               "--precision", "bf16")
    check_rows(scores_of(task, sample, model).exact(), by_plain_loop(model.eval(), task, sample, 3), atol=0.05)


class CopiesWhatItSees:
    """Certain of every token that it sees, most of all of number 7; of a hidden one certain too, but for number 7."""

    def lm_hidden(self, src_tokens, has_padding):
        truth = torch.tensor([[0, 5, 6, 7, 8, 9]])
        sharpness = torch.where(truth == 7, 20.0, 5.0)
        sharpness = torch.where(src_tokens != truth, torch.where(truth == 7, 0.0, 10.0), sharpness)
        return torch.nn.functional.one_hot(truth, 12) * sharpness[..., None]

    def output_projection(self):
        return torch.eye(12), torch.zeros(12)


def test_a_token_that_the_context_does_not_tell_ranks_high_only_with_folds():
    tokens = torch.tensor([[0, 5, 6, 7, 8, 9]])
    sample = {"id": torch.tensor([3]), "maskable": tokens > 0, "n_maskable": (5,),
              "net_input": {"src_tokens": tokens, "has_padding": False}}
    score = lambda n: Scorer("entropy", n_folds=n, mask_idx=11).exact(CopiesWhatItSees(), sample)[0, 1:]  # noqa: E731
    assert score(1).argmin() == 2
    for number in (2, 3, 5, 9):
        assert score(number).argmax() == 2


def test_the_vocabulary_is_projected_once_whatever_the_number_of_passes(make_task, teacher, monkeypatch):
    task, _, _ = make_task("--mask-strategy", "high", "--teacher", teacher, "--entropy-folds", "3")
    shapes, project = [], scorer.projected
    monkeypatch.setattr(scorer, "projected", lambda *args: shapes.append(args[1].shape[:2]) or project(*args))
    task.scorer.exact(task.teacher, batch_of(task, range(8)))
    assert shapes == [(8, 16)]


# ---- the cache


def test_cached_scores_are_those_on_the_fly(make_task, teacher, tmp_path):
    """But for rounding: a cache is filled in batches of other shapes than those of the training."""
    flags = ["--mask-strategy", "high", *EOS, "--teacher", teacher, "--entropy-folds", "3"]
    cached, _, _ = make_task(*flags, "--entropy-cache", str(tmp_path))
    plain, _, _ = make_task(*flags)
    ids = range(0, 160, 8)
    scores = scores_of(cached, batch_of(cached, ids), None)
    expected = scores_of(plain, batch_of(plain, ids), None).exact()
    maskable = batch_of(plain, ids)["maskable"]
    assert scores.exact_at is None and torch.allclose(scores.values[maskable], expected[maskable], rtol=1e-5)
    assert torch.equal(masked_by_policy(cached, batch_of(cached, ids), None, 0)[0]["target"],
                       masked_by_policy(plain, batch_of(plain, ids), None, 0)[0]["target"])


def test_the_number_of_folds_is_part_of_a_caches_key_unless_it_is_1(make_task):
    cfgs = [make_task("--mask-strategy", "random", "--entropy-folds", str(n))[0].cfg for n in (1, 2, 3)]
    assert [fingerprint.facts_of_score(cfg) for cfg in cfgs] == [{}, {"folds": 2}, {"folds": 3}]


@pytest.mark.parametrize("distinct", [3, 1000])  # many ties, next to none
@pytest.mark.parametrize("length", [2, 3, 40])
def test_rank_correlations_are_spearmans(distinct, length):
    generator = np.random.default_rng(distinct + length)
    for _ in range(20):
        one, other = generator.integers(distinct, size=(2, length)).astype(np.float32)
        found = rank_correlation(one, other)
        if found is None:
            assert len(set(one)) == 1 or len(set(other)) == 1
        else:
            assert found == pytest.approx(stats.spearmanr(one, other)[0])


def test_equal_scores_and_single_tokens_have_no_rank_correlation():
    one = np.arange(4.0)
    assert rank_correlation(one, np.ones(4)) is None and rank_correlation(one[:1], one[:1]) is None
    assert rank_correlation(one[:0], one[:0]) is None and rank_correlation(one, -one) == pytest.approx(-1)


def test_a_cache_is_compared_with_the_scores_of_visible_tokens(make_task, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.scoring.contextual.SAMPLE_BLOCKS", 5)
    flags = ["--mask-strategy", "high", *EOS, "--teacher", teacher, "--entropy-cache", str(tmp_path)]
    task, _, _ = make_task(*flags, "--entropy-folds", "4")
    samples = task.dataset("train").dataset
    found, n_blocks = compare_with_visible(samples, samples.entropies, task.scorer, task.teacher, 16,
                                           torch.device("cpu"))
    expected = []
    for i in np.linspace(0, len(samples) - 1, 5).astype(int).tolist():
        sample = samples.collater([samples[i]])
        at = sample["maskable"][0]
        visible, hidden = (by_plain_loop(task.teacher, task, sample, 4)[0][at],
                           entropies_when_hidden(task.teacher, task, sample["net_input"]["src_tokens"][0], [])[at])
        expected.append(stats.spearmanr(visible, hidden)[0])
    assert n_blocks == 5 and found == pytest.approx(np.mean(expected), abs=1e-3) and found < 0.99


# ---- trainings


@pytest.mark.parametrize("kind", ["cached", "self"])
def test_a_run_with_folds_can_be_interrupted(kind, data_bin, teacher, tmp_path):
    more = {"cached": ["--teacher", teacher, "--entropy-cache", str(tmp_path / "cache")],
            "self": ["--self-mask-from-epoch", "1"]}[kind]
    run = functools.partial(train, data_bin)
    flags = ["--mask-strategy", "high", "--entropy-folds", "3", *more]
    straight = run(str(tmp_path / "straight"), *flags, "--max-epoch", "2")
    run(str(tmp_path / "resumed"), *flags, "--max-update", "6", "--save-interval-updates", "2")
    assert same_weights(straight, run(str(tmp_path / "resumed"), *flags, "--max-epoch", "2"))
    visible = run(str(tmp_path / "visible"), *flags, "--entropy-folds", "1", "--max-epoch", "2")
    assert not same_weights(straight, visible)
    if kind == "cached":
        assert len(list((tmp_path / "cache").iterdir())) == 2
        on_the_fly = run(str(tmp_path / "plain"), *flags[:-2], "--max-epoch", "2")
        assert same_weights(straight, on_the_fly)


@pytest.mark.parametrize("flags, message", [
    (["high", "--teacher", "T"], "of the teacher, in each update (once over the data with --entropy-cache)"),
    (["high", "--teacher", "T", "--entropy-cache", "C"],
     "of the teacher, once over the data, since --entropy-cache keeps its scores"),
    (["high", "--teacher", "T", "--self-mask-from-epoch", "2"], "with --entropy-cache); of the model being trained, "),
    (["high", "--self-mask-from-epoch", "1"], "times instead of once: of the model being trained, in each update"),
    (["random"], "--entropy-folds has no effect: with these flags, no model scores the tokens"),
])
def test_the_log_says_what_folds_cost(flags, message, make_task, teacher, tmp_path, caplog):
    named = {"T": teacher, "C": str(tmp_path)}
    with caplog.at_level(logging.INFO):
        make_task("--mask-strategy", *(named.get(flag, flag) for flag in flags), "--entropy-folds", "7")
    (line,) = [record.getMessage() for record in caplog.records if "--entropy-folds" in record.getMessage()]
    assert message in line
    assert "has no effect" in line or line.startswith("--entropy-folds 7: a scoring pass runs the layers 7 times")


def test_resuming_a_run_from_before_there_were_folds_with_folds_is_warned_of(make_task, caplog):
    task, _, _ = make_task("--mask-strategy", "random", "--entropy-folds", "7")
    old = {name: value for name, value in vars(task.cfg).items() if name != "entropy_folds"}
    warn_of_other_flags({"cfg": {"task": old}}, "old.pt", task.cfg)
    assert "old.pt was trained with --entropy-folds 1 and resumes with 7" in caplog.messages[-1]


def test_fewer_folds_than_1_are_refused(make_task):
    with pytest.raises(UsageError, match=r"^--entropy-folds: 0 found, expected 1 \(all tokens are visible\) to 32,768"):
        make_task("--mask-strategy", "random", "--entropy-folds", "0")
