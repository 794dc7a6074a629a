"""Whole units are taken in order of priority while they fit, against a loop over them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mask_plugin.masking import Masker, Policy, Scores, Vocabulary, When, number_to_mask, select, take
from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.take import mean_of_units
from entropy_mask_plugin.masking.units import UNITS


def in_a_loop(priority, candidates, k, units):
    """The definition, a row at a time, in Python."""
    taken = torch.zeros_like(candidates)
    for row, (values, allowed, left, numbers) in enumerate(zip(priority, candidates, k.tolist(), units.tolist())):
        members = {}
        for position, number in enumerate(numbers):
            if allowed[position] and number >= 0:
                members.setdefault(number, []).append(position)
        for unit in sorted(members.values(), key=lambda unit: (-float(values[unit[0]]), unit[0])):
            if len(unit) <= left:
                taken[row, unit] = True
                left -= len(unit)
    return taken


@st.composite
def batches(draw):
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    of = lambda element: torch.tensor(draw(st.lists(  # noqa: E731
        st.lists(element, min_size=length, max_size=length), min_size=rows, max_size=rows)))
    candidates = of(st.booleans())
    k = torch.tensor([draw(st.integers(0, int(n))) for n in candidates.sum(1)])
    return of(st.integers(0, 4)).float(), candidates, k, of(st.integers(-1, min(4, length - 1)))


@settings(max_examples=300, deadline=None)
@given(batches())
def test_units_are_taken_as_the_loop_takes_them(batch):
    assert torch.equal(take(*batch), in_a_loop(*batch))


@settings(max_examples=100, deadline=None)
@given(batches())
def test_units_of_one_token_are_no_units(batch):
    priority, candidates, k, _ = batch
    alone = torch.arange(priority.size(1)).expand_as(candidates)
    assert torch.equal(take(priority, candidates, k, alone), take(priority, candidates, k))


@settings(max_examples=100, deadline=None)
@given(batches())
def test_the_score_of_a_unit_is_the_mean_of_its_candidates(batch):
    scores, candidates, _, units = batch
    means = mean_of_units(scores, candidates, units)
    for row, position in (candidates & (units >= 0)).nonzero().tolist():
        members = candidates[row] & (units[row] == units[row, position])
        assert torch.isclose(means[row, position], scores[row, members].mean())


def test_a_unit_that_does_not_fit_is_skipped_and_the_rest_is_filled():
    units = torch.tensor([[0, 0, 0, 1, 1, 2]])
    scores = torch.tensor([[9.0, 9, 9, 5, 5, 1]])
    every = torch.ones_like(units, dtype=torch.bool)
    assert select("high", scores, every, torch.tensor([4]), None, units).int().tolist() == [[1, 1, 1, 0, 0, 1]]
    assert select("high", scores, every, torch.tensor([2]), None, units).int().tolist() == [[0, 0, 0, 1, 1, 0]]


@pytest.mark.parametrize("units, message", [
    (torch.zeros(5, 21), "torch.float32 of shape .5, 21. found, expected int64 of shape .5, 21."),
    (torch.zeros(21, dtype=torch.int64), "torch.int64 of shape .21,. found"),
    (torch.full((5, 21), 21), "numbers from 21 to 21 found, expected -1 to 20"),
])
def test_what_are_no_units_is_refused(units, message, monkeypatch):
    monkeypatch.setitem(UNITS._entries, "wrong", Entry(lambda *arguments: units, UNITS.defaults))
    masker = Masker(Policy("random", unit="wrong"), Vocabulary(50, 1, torch.arange(4, 50)), 3)
    tokens = torch.randint(4, 50, (5, 21))
    with pytest.raises(ValueError, match=f"--mask-unit wrong: {message}"):
        masker(tokens, torch.arange(5), tokens > 0, None, When(1, 0))


@pytest.mark.parametrize("strategy", ["high", "low", "mid", "marginal", "random", "alternating"])
def test_a_masker_masks_units_whole_and_never_too_much(strategy, monkeypatch):
    pair = Entry(lambda tokens, candidates, vocabulary, draw: (torch.arange(tokens.size(1)) // 2).expand_as(tokens),
                 UNITS.defaults)
    monkeypatch.setitem(UNITS._entries, "pair", pair)
    tokens, maskable = torch.randint(4, 50, (5, 21)), torch.rand(5, 21) < 0.9
    masker = Masker(Policy(strategy, unit="pair"), Vocabulary(50, 1, torch.arange(4, 50)), 3)
    masked = masker(tokens, torch.arange(5), maskable, Scores(torch.rand(5, 21), None), When(1, 0))
    assert masked.counts is None and masked.selected.any()
    assert (masked.selected.sum(1) <= number_to_mask(maskable.sum(1), 0.15)).all()
    halves = masked.selected[:, :20].unflatten(1, (10, 2)), maskable[:, :20].unflatten(1, (10, 2))
    assert (halves[0].any(2) == (halves[0] | ~halves[1]).all(2) & halves[0].any(2)).all()
