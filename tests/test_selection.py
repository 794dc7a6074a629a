"""Which positions are masked, and how many: every strategy against sorted() on plain lists."""

import math
from types import SimpleNamespace

import pytest
import torch
from builders.training import RANKED
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mask_plugin.masking.noise import SELECTION, STRATEGY, Draw, uniform
from entropy_mask_plugin.masking.strategies import STRATEGIES, select
from entropy_mask_plugin.masking.strategies.chance import gumbel_noise
from entropy_mask_plugin.masking.take import number_to_mask

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=300)


def chosen(strategy, scores, maskable, k):
    """Reference for one row: the set of positions that a strategy masks (paper, section 2.3)."""
    positions = [j for j, allowed in enumerate(maskable) if allowed]
    descending = sorted(positions, key=lambda j: (-scores[j], j))
    first = (len(positions) - k) // 2
    if strategy == "high":
        return set(descending[:k])
    if strategy == "low":
        return set(sorted(positions, key=lambda j: (scores[j], j))[:k])
    if strategy == "mid":
        return set(descending[first : first + k])
    top = set(descending[: math.ceil(k / 2)])
    others = sorted((j for j in positions if j not in top), key=lambda j: (scores[j], j))
    return top | set(others[: k // 2])


def check(strategy, scores, maskable, k):
    result = select(strategy, torch.tensor(scores), torch.tensor(maskable), torch.tensor(k))
    assert result.dtype == torch.bool and result.shape == (len(scores), len(scores[0]))
    got = [{j for j, selected in enumerate(row) if selected} for row in result.tolist()]
    assert got == [chosen(strategy, *row) for row in zip(scores, maskable, k)]
    assert [len(row) for row in got] == k  # exactly k, so that the reference cannot be short either


@st.composite
def batches(draw):
    """Scores (mostly ties), maskable positions (random; none and all included), and any k from 0 to n."""
    sentences, length = draw(st.integers(1, 4)), draw(st.integers(1, 14))
    anything = st.floats(width=32, allow_nan=False, allow_infinity=False)
    score = draw(st.sampled_from([st.just(0.5), st.sampled_from([0.0, 1e-13, 1.0, 2.5]), anything]))
    row = lambda values: st.lists(values, min_size=length, max_size=length)  # noqa: E731
    scores = [draw(row(score)) for _ in range(sentences)]
    some = st.sampled_from([st.just(True), st.just(False), st.booleans(), st.booleans()])
    maskable = [draw(row(draw(some))) for _ in range(sentences)]
    k = [draw(st.one_of(st.integers(0, sum(mask)), st.just(sum(mask)))) for mask in maskable]
    return scores, maskable, k


@pytest.mark.parametrize("strategy", RANKED)
@DETERMINISTIC
@given(batch=batches())
def test_every_strategy_chooses_what_sorting_chooses(strategy, batch):
    check(strategy, *batch)


@pytest.mark.parametrize("strategy", RANKED)
@pytest.mark.parametrize("values", [1, 3, 10**6])  # distinct scores: all ties, many ties, next to none
def test_every_strategy_breaks_ties_by_position_in_long_rows_with_padding(strategy, values):
    # Sorts that are not stable often are so below 16 elements, so the short rows above would not tell.
    generator = torch.Generator().manual_seed(values)
    lengths, length = [512, 511, 300, 17, 2, 1, 0], 512
    scores = torch.randint(values, (7, length), generator=generator) / 7
    maskable = torch.rand(7, length, generator=generator) < 0.9
    maskable &= torch.arange(length) < torch.tensor(lengths)[:, None]
    scores[~maskable] = 1e30  # whatever a model says about padding does not count
    k = [(n * 15 + 50) // 100 for n in maskable.sum(dim=1).tolist()]
    check(strategy, scores.tolist(), maskable.tolist(), k)


def test_marginal_takes_the_odd_one_from_the_top_and_no_position_twice():
    # By hand, so that the reference above is not the only witness.
    scores, everything = torch.tensor([[3.0, 1.0, 3.0, 1.0, 2.0]]), torch.ones(1, 5, dtype=torch.bool)
    selected = [select("marginal", scores, everything, torch.tensor([k]))[0].nonzero().flatten().tolist()
                for k in range(6)]
    assert selected == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    tied = select("marginal", torch.zeros(1, 5), everything, torch.tensor([3]))
    assert tied[0].tolist() == [True, True, True, False, False]  # 0 and 1 on top; of the others, the lowest position


def test_random_takes_the_largest_noise_whatever_the_scores():
    draw = Draw(1, 3, torch.arange(5), 40, 7)
    maskable = torch.rand(5, 40, generator=torch.Generator().manual_seed(0)) < 0.8
    k = number_to_mask(maskable.sum(1), 0.15)
    assert not STRATEGIES["random"].traits["needs_scores"]
    selected = select("random", None, maskable, k, draw)
    assert torch.equal(selected, select("high", uniform(1, 3, torch.arange(5), 40, SELECTION), maskable, k))


# ---- gumbel


def gumbel(scores, k, ids, temperature=1.0, epoch=1, maskable=None):
    """Selected, B x T bool: one row of scores for each of B ids."""
    scores = torch.as_tensor(scores).expand(len(ids), -1)
    maskable = torch.ones_like(scores, dtype=torch.bool) if maskable is None else maskable
    return select("gumbel", scores, maskable, torch.full((len(ids),), k), Draw(1, epoch, ids, scores.size(1), 0),
                  gumbel_temperature=temperature)


def inclusion_probabilities(weights, k):
    """Of drawing k without replacement, each draw in proportion to the weights: by enumeration."""
    if k == 0:
        return [0.0] * len(weights)
    total, result = sum(weights), [0.0] * len(weights)
    for first, weight in enumerate(weights):
        rest = [w if j != first else 0.0 for j, w in enumerate(weights)]
        for j, p in enumerate(inclusion_probabilities(rest, k - 1) if weight else result):
            result[j] += weight / total * (p + (j == first)) if weight else 0.0
    return result


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_gumbel_draws_without_replacement_in_proportion_to_the_exponential_of_the_scores(k, temperature):
    scores, rows = [0.0, 1.0, 2.0, -1.0, 0.5, 1.0, 1.5], 40_000
    frequency = gumbel(scores, k, torch.arange(rows), temperature).double().mean(0)
    weights = [math.exp(score / temperature) for score in scores]
    expected = torch.tensor(inclusion_probabilities(weights, k), dtype=torch.float64)
    if k == 1:
        torch.testing.assert_close(expected, torch.softmax(torch.tensor(scores).double() / temperature, 0))
    assert ((frequency - expected).abs() < 4 * (expected * (1 - expected) / rows).sqrt()).all()


def test_gumbel_takes_everything_where_k_is_n_and_nothing_else():
    maskable = torch.rand(50, 20, generator=torch.Generator().manual_seed(0)) < 0.5
    scores = torch.randn(50, 20, generator=torch.Generator().manual_seed(1)) * 100
    n, draw = maskable.sum(1), Draw(1, 1, torch.arange(50), 20, 0)
    half = select("gumbel", scores, maskable, n // 2, draw)
    assert torch.equal(half.sum(1), n // 2) and not (half & ~maskable).any()
    assert torch.equal(select("gumbel", scores, maskable, n, draw), maskable)


def test_gumbel_does_not_depend_on_the_batch_but_on_the_epoch():
    scores, ids = torch.randn(30, 40, generator=torch.Generator().manual_seed(0)), torch.arange(30)
    whole = gumbel(scores, 6, ids)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(gumbel(scores[order], 6, ids[order]), whole[order])
    assert torch.equal(torch.cat([gumbel(scores[i : i + 7], 6, ids[i : i + 7]) for i in range(0, 30, 7)]), whole)
    padded, maskable = torch.cat([scores, torch.full((30, 9), 1e30)], 1), torch.arange(49).expand(30, -1) < 40
    assert torch.equal(gumbel(padded, 6, ids, maskable=maskable)[:, :40], whole)
    assert not torch.equal(gumbel(scores, 6, ids, epoch=2), whole)


def test_a_cold_gumbel_is_high_and_a_hot_one_uniform():
    scores, ids = torch.randn(200, 40, generator=torch.Generator().manual_seed(0)), torch.arange(200)
    everything, k = torch.ones(200, 40, dtype=torch.bool), torch.full((200,), 6)
    for temperature in (1e-30, 1e-9):
        assert torch.equal(gumbel(scores, 6, ids, temperature), select("high", scores, everything, k))
    noise = uniform(1, 1, ids, 40, STRATEGY)
    for temperature in (1e30, math.inf):
        assert torch.equal(gumbel(scores, 6, ids, temperature), select("high", noise, everything, k))
    independent = select("random", None, everything, k, Draw(1, 1, ids, 40, 0))  # which draws the random part of masks
    both = (gumbel(scores, 6, ids, 1e30) & independent).double().sum(1).mean()
    assert abs(both - 6 * 6 / 40) < 4 * math.sqrt(6 * 0.15 * 0.85 / 200)


def test_the_priorities_of_gumbel_are_finite_for_all_noise_scores_and_temperatures():
    steps = torch.tensor([0, 1, 2, 2**22, 2**23 - 1, 2**23, 2**24 - 3, 2**24 - 2, 2**24 - 1])
    noise = steps / 2**24
    expected = torch.tensor([-math.log(-math.log((2 * step + 1) / 2**25)) for step in steps.tolist()])
    torch.testing.assert_close(gumbel_noise(noise), expected, rtol=1e-6, atol=1e-7)
    assert (gumbel_noise(noise).diff() > 0).all()  # in the order of the noise
    draw = SimpleNamespace(noise=lambda stream: noise)
    for temperature in (1e-30, 1e-3, 1.0, 1e4, 1e30, math.inf):
        for score in (0.0, 1e4, -1e4, 1e30, -1e30):
            priority = STRATEGIES["gumbel"].fn(torch.full((1, 9), score), None, None, draw, temperature)
            assert priority.dtype == torch.float32 and priority.isfinite().all()
    for score in (1e4, -1e4):  # the noise is not lost beside large scores
        assert STRATEGIES["gumbel"].fn(torch.full((1, 9), score), None, None, draw, 1.0).unique().numel() >= 8


def alternated(seed, updates):
    """"high" or "low" for each update."""
    scores, everything, k = torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool), torch.tensor([1])
    draws = (Draw(seed, 1, torch.tensor([5]), 2, update) for update in updates)
    return ["high" if select("alternating", scores, everything, k, draw)[0, 1] else "low" for draw in draws]


def test_alternating_is_high_or_low_by_a_fair_coin_that_seed_and_update_decide():
    n = 10_000
    updates = alternated(1, range(n))
    assert set(updates) == {"high", "low"}
    assert abs(updates.count("high") / n - 0.5) < 4 * 0.5 / math.sqrt(n)
    again = alternated(1, reversed(range(300)))
    assert again[::-1] == updates[:300]  # the same after a resume, whatever was asked before
    agreement = sum(a == b for a, b in zip(alternated(2, range(300)), updates))
    assert abs(agreement / 300 - 0.5) < 4 * 0.5 / math.sqrt(300)  # neither the same nor the opposite
    repeats = sum(a == b for a, b in zip(updates, updates[1:]))
    assert abs(repeats / n - 0.5) < 4 * 0.5 / math.sqrt(n)  # a coin, no turns


def test_mask_prob_rounds_half_up_in_float64_and_masks_one_token_at_least():
    # Every n up to 512 and every percentage: a product in fp32, or rounding half to even, differs at some of them.
    n = range(513)
    maskable = torch.arange(512) >= 512 - torch.tensor(n)[:, None]  # the n maskable tokens come last
    for percent in range(1, 101):
        expected = [min(m, max(1, math.floor(percent / 100 * m + 0.5))) for m in n]
        assert number_to_mask(maskable.sum(1), percent / 100).tolist() == expected
    assert number_to_mask(maskable.sum(1), 1e-9).tolist() == [min(m, 1) for m in n]


@pytest.mark.parametrize("count", [1, 2, 76, 512, 10**6])
def test_mask_count_replaces_mask_prob_and_stops_at_the_maskable_tokens(count):
    maskable = torch.arange(512) < torch.arange(513)[:, None]
    assert number_to_mask(maskable.sum(1), 0.15, count).tolist() == [min(count, n) for n in range(513)]
