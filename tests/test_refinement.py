"""The selection from cheap entropies is the one from exact ones."""

import functools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from builders.training import RANKED, batch_of, masked_by_policy, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mask_plugin.masking import Masker, Policy, Scores, Vocabulary, When
from entropy_mask_plugin.masking.refinement import LEAST_NEAR, NEAR, distance_to_cut, refine_near_cut, refine_nearest
from entropy_mask_plugin.masking.scores import entropy
from entropy_mask_plugin.masking.strategies import select
from entropy_mask_plugin.masking.take import number_to_mask
from entropy_mask_plugin.scoring import scorer


def nearest_cut(scores, selected):
    """Reference for the candidates of one row: from the score to the next one on the same side of the nearest cut."""
    ranked = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
    edges = [(scores[a], scores[b]) for a, b in zip(ranked, ranked[1:]) if selected[a] != selected[b]]
    return [min((s - above if s >= above else below - s for above, below in edges), default=math.inf) for s in scores]


@pytest.mark.parametrize("strategy", RANKED)
@settings(derandomize=True, deadline=None, max_examples=100)
@given(values=st.lists(st.floats(0, 9, width=32), min_size=1, max_size=12, unique=True), k=st.integers(0, 12))
def test_the_distance_to_a_cut_is_that_of_sorted_lists(strategy, values, k):
    scores, candidates = torch.tensor([values + [5.0]]), torch.tensor([[True] * len(values) + [False]])
    selected = select(strategy, scores, candidates, torch.tensor([min(k, len(values))]))
    found = distance_to_cut(scores, candidates, selected)[0, :-1].tolist()
    assert found == pytest.approx(nearest_cut(scores[0, :-1].tolist(), selected[0, :-1].tolist()), abs=1e-6)


def test_a_row_may_have_any_number_of_cuts():
    scores = torch.arange(12.0).flip(0)[None]
    selected = torch.tensor([[True, False, False, True, True, False, False, False, True, False, False, False]])
    distance = distance_to_cut(scores, torch.ones_like(selected), selected)[0].tolist()
    assert distance == nearest_cut(scores[0].tolist(), selected[0].tolist())
    assert distance == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2]


def scores_with_errors(strategy, error, length=128):
    """Exact scores and approximate ones, both 64 x T, candidates from none to all of a row, and the choice."""
    generator = torch.Generator().manual_seed(1)
    exact = torch.rand(64, length, generator=generator) * 8
    candidates = torch.rand(64, length, generator=generator) < torch.linspace(0, 1, 64)[:, None]
    approximate = exact + error * torch.randn(64, length, generator=generator)
    k = number_to_mask(candidates.sum(1), 0.15)
    return exact, approximate, candidates, lambda scores: select(strategy, scores, candidates, k)


@pytest.mark.parametrize("strategy", RANKED)
@pytest.mark.parametrize("error, length", [(1e-6, 128), (1e-3, 128), (0.02, 128), (0.1, 32), (0.2, 16), (5.0, 8),
                                           (5.0, 3)])
def test_without_waiting_the_selection_is_that_of_exact_scores_while_errors_are_small(strategy, error, length):
    exact, approximate, candidates, choose = scores_with_errors(strategy, error, length)
    asked = []
    scores = refine_nearest(approximate, candidates, choose, lambda at: asked.append(exact[at]) or asked[0])
    assert torch.equal(choose(scores), choose(exact))
    computed = {128: round(128 * NEAR), 32: LEAST_NEAR, 16: LEAST_NEAR, 8: 8, 3: 3}[length]
    assert [tuple(values.shape) for values in asked] == [(64, computed)]  # as many in each row, whatever comes
    assert error < 0.02 or not torch.equal(choose(approximate), choose(exact))


@pytest.mark.parametrize("strategy", RANKED)
@pytest.mark.parametrize("error", [1e-6, 1e-3, 0.05, 1.0])
def test_the_selection_is_that_of_exact_scores_and_few_are_computed(strategy, error):
    exact, approximate, candidates, choose = scores_with_errors(strategy, error)
    asked = []

    def exact_at(wanted):
        asked.append(wanted)
        return exact[wanted]

    scores = refine_near_cut(approximate, candidates, choose, exact_at)
    assert torch.equal(choose(scores), choose(exact))
    share = sum(asked).sum() / candidates.sum()
    assert max(map(int, sum(wanted.int() for wanted in asked).flatten())) == 1  # none twice
    assert share < {1e-6: 0.1, 1e-3: 0.1, 0.05: 0.4, 1.0: 1.01}[error]
    assert error < 0.05 or not torch.equal(choose(approximate), choose(exact))  # there was something to put right


def test_a_row_without_candidates_or_without_a_choice_asks_nothing():
    scores = torch.rand(3, 5)
    candidates = torch.tensor([[False] * 5, [True] * 5, [True, False, False, False, False]])
    for k in ([0, 0, 0], [0, 5, 1]):
        high = functools.partial(select, "high", candidates=candidates, k=torch.tensor(k))
        assert torch.equal(refine_near_cut(scores, candidates, high, None), scores)


@pytest.mark.parametrize("score", ["entropy", "surprisal", "margin"])
@pytest.mark.parametrize("strategy", ["high", "low", "mid", "marginal", "alternating"])
def test_masks_from_bf16_products_are_those_from_fp32(strategy, score, make_task, teacher, monkeypatch):
    task, model, _ = make_task("--mask-strategy", strategy, "--teacher", teacher, "--mask-score", score)
    sample, chosen, dtypes = batch_of(task, range(60)), {}, []
    project = scorer.projected
    monkeypatch.setattr(scorer, "projected", lambda *arguments: dtypes.append(arguments[5]) or project(*arguments))
    for pays in (False, True):
        monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.bf16_pays", lambda device: pays)  # noqa: B023
        chosen[pays] = masked_by_policy(task, sample, model, 0)
    assert torch.equal(chosen[False][0]["target"], chosen[True][0]["target"])
    assert dtypes[:2] == [torch.float32, torch.bfloat16]
    one, other = (chosen[pays][1]["entropy_sum"] for pays in (False, True))
    assert torch.allclose(one, other, rtol={"margin": 1e-2}.get(score, 1e-3))


@pytest.mark.parametrize("score", ["surprisal", "margin"])
@pytest.mark.parametrize("strategy", ["high", "low", "mid", "marginal", "alternating", "gumbel"])
def test_confident_predictions_are_refined_to_the_same_selection(strategy, score, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*shape, generator=generator) for shape in ((32, 128, 64), (500, 64)))
    tokens = F.linear(hidden, weight).argmax(-1)  # most tokens are as predicted
    tokens = torch.where(torch.rand(32, 128, generator=generator) < 0.2, tokens.roll(1), tokens)
    model = SimpleNamespace(lm_hidden=lambda tokens, has_padding: hidden,
                            output_projection=lambda: (weight, torch.zeros(500)))
    maskable, masker = tokens > 3, Masker(Policy(strategy, score), Vocabulary(500, 501, torch.arange(4, 500)), 1)
    monkeypatch.setattr(scorer, "bf16_pays", lambda device: True)
    cheap = scorer.Scorer(score)(model, {"net_input": {"src_tokens": tokens, "has_padding": False}})
    chosen = [masker(tokens, torch.arange(32), maskable, scores, When(1, 0)).selected
              for scores in (cheap, Scores(cheap.exact()), Scores(cheap.values))]
    assert torch.equal(chosen[0], chosen[1])
    assert strategy == "gumbel" or not torch.equal(chosen[1], chosen[2])  # there was something to put right


def test_whether_bf16_pays_is_tried_once(monkeypatch):
    entropy.bf16_pays.cache_clear()
    tried = []
    monkeypatch.setattr(entropy.time, "perf_counter", lambda: tried.append(1) or len(tried))
    assert entropy.bf16_pays(torch.device("cpu")) is False  # equally long
    first = len(tried)
    assert entropy.bf16_pays(torch.device("cpu")) is False and len(tried) == first > 0
    entropy.bf16_pays.cache_clear()


def entropies_with(make_task, teacher, *flags):
    task, _, _ = make_task("--mask-strategy", "high", "--teacher", teacher, *flags)
    sample = batch_of(task, range(60))
    return scores_of(task, sample, None).exact(), sample["maskable"]


def test_a_pass_all_in_bf16_is_nearly_the_exact_one(make_task, teacher):
    exact, maskable = entropies_with(make_task, teacher)
    cheap, _ = entropies_with(make_task, teacher, "--entropy-precision", "bf16")
    assert cheap.dtype == torch.float32 and not torch.equal(cheap, exact)
    assert (cheap - exact)[maskable].abs().max() < 0.01  # nats; the entropies are around 5


def test_entropies_can_be_exact_while_training_is_in_bf16(make_task, teacher):
    exact, _ = entropies_with(make_task, teacher)
    rounded, _ = entropies_with(make_task, teacher, "--precision", "bf16")
    asked, _ = entropies_with(make_task, teacher, "--precision", "bf16", "--entropy-precision", "fp32")
    assert torch.equal(asked, exact) and not torch.equal(rounded, exact)
