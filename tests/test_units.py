"""Whole units are taken in order of priority while they fit, against a loop over them; words and spans, against loops
over the tokens."""

import re

import pytest
import torch
from builders.training import LargestOutput, train
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mask_plugin.masking import (
    STRATEGIES,
    UNITS,
    Masker,
    Policy,
    Scores,
    Vocabulary,
    When,
    number_to_mask,
    select,
    take,
)
from entropy_mask_plugin.masking.noise import SELECTION, UNIT, Draw
from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.take import mean_of_units
from entropy_mask_plugin.system.errors import UsageError


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


@pytest.mark.parametrize("strategy", ["high", "low", "mid", "marginal", "random", "alternating", "gumbel"])
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


# Symbols 0 to 3 are specials, as in fairseq's dictionaries; the others are of each tokenizer.
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
VOCABULARIES = {
    "WordPiece": [*SPECIALS, "the", "##s", "mask", "##ing", "##ed", "#", "▁", "of", "<mask>"],
    "SentencePiece": [*SPECIALS, "▁the", "s", "▁mask", "ing", "ed", "##", "▁", "▁of", "<mask>"],
    "byte-level BPE": [*SPECIALS, "Ġthe", "s", "Ġmask", "ing", "ed", "##", "Ġ", "Ġof", "<mask>"],
}
CONTINUE = {"WordPiece": {"##s", "##ing", "##ed"}, "SentencePiece": {"s", "ing", "ed", "##"},
            "byte-level BPE": {"s", "ing", "ed", "##"}}
FIRST = When(1, 0)


def vocabulary_of(name):
    symbols = VOCABULARIES[name]
    return Vocabulary(len(symbols) - 1, 1, torch.arange(4, len(symbols) - 1), symbols)


def words_in_a_loop(symbols, candidates, continues):
    """The number of each token's word: the position of its first token."""
    numbers = []
    for position, (symbol, allowed) in enumerate(zip(symbols, candidates)):
        goes_on = position > 0 and allowed and candidates[position - 1] and symbol in continues
        numbers.append(numbers[-1] if goes_on else position)
    return numbers


def rows_of(name):
    length = st.shared(st.integers(1, 12), key="length")
    token = st.integers(0, len(VOCABULARIES[name]) - 2)
    return st.lists(length.flatmap(lambda n: st.lists(token, min_size=n, max_size=n)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_words_are_those_of_a_loop_over_the_tokens(name):
    vocabulary = vocabulary_of(name)

    @settings(max_examples=200, deadline=None)
    @given(rows_of(name))
    def check(rows):
        tokens = torch.tensor(rows)
        candidates = tokens >= 4
        expected = [words_in_a_loop([vocabulary.symbols[i] for i in row], allowed, CONTINUE[name])
                    for row, allowed in zip(rows, candidates.tolist())]
        assert UNITS["word"].fn(tokens, candidates, vocabulary, None).tolist() == expected

    check()


def test_a_word_ends_where_nothing_may_be_masked():
    vocabulary = vocabulary_of("WordPiece")
    the, s, ing, eos = (vocabulary.symbols.index(symbol) for symbol in ("the", "##s", "##ing", "</s>"))
    tokens = torch.tensor([[0, the, s, ing, eos, ing, s, the], [s, the, s, 3, s, s, eos, 1]])
    words = UNITS["word"].fn(tokens, tokens >= 4, vocabulary, None)
    assert words.tolist() == [[0, 1, 1, 1, 4, 5, 5, 7], [0, 1, 1, 3, 4, 4, 6, 7]]


def test_words_of_an_update_cost_nothing_that_grows_with_the_vocabulary():
    vocabulary = Vocabulary(9_999, 1, torch.arange(4, 9_999), [*SPECIALS, *(f"▁{number}" for number in range(9_996))])
    tokens = torch.randint(4, 9_999, (3, 20), generator=torch.Generator().manual_seed(1))
    UNITS["word"].fn(tokens, tokens >= 4, vocabulary, None)  # reads the symbols
    with LargestOutput() as largest:
        UNITS["word"].fn(tokens, tokens >= 4, vocabulary, None)
    assert 0 < largest.numel <= tokens.numel()


@pytest.mark.parametrize("symbols", [(), [*SPECIALS, "the", "s", "mask", "#"]])
def test_a_vocabulary_without_word_boundaries_is_refused(symbols):
    with pytest.raises(ValueError, match=f"^--mask-unit word: a vocabulary of {len(symbols)} symbols without word "
                                         "boundaries found, expected WordPiece"):
        Masker(Policy("random", unit="word"), Vocabulary(50, 1, torch.arange(4, 50), symbols), 3)


def test_fairseq_train_refuses_words_before_it_begins(data_bin, tmp_path):
    with pytest.raises(UsageError, match="^--mask-unit word: a vocabulary of 40. symbols without word ") as caught:
        train(data_bin, tmp_path / "run", "--mask-unit", "word", "--mask-strategy", "random")
    assert "\n" not in str(caught.value) and not list((tmp_path / "run").iterdir())


def random_batch(name, ids, length, seed=1):
    """Clean tokens of some sentences, specials among them, and their ids: the tokens of a sentence depend on its id."""
    size = len(VOCABULARIES[name]) - 1
    rows = [torch.randint(2, size, (length,), generator=torch.Generator().manual_seed(seed + i)) for i in ids]
    return torch.stack(rows), torch.tensor(ids)


def draw_of(ids, length, seed=3):
    return Draw(seed, 1, torch.as_tensor(ids), length, 0)


def spans_of(ids, length):
    return UNITS["span"].fn(torch.zeros(len(ids), length, dtype=torch.int64), None, None, draw_of(ids, length))


GEOMETRIC = [0.2 * 0.8 ** (length - 1) for length in range(1, 11)]
PROBABILITIES = [weight / sum(GEOMETRIC) for weight in GEOMETRIC]


def spans_in_a_loop(noise):
    """Walks from span to span: the number of each position's span, in a row."""
    numbers = []
    while len(numbers) < len(noise):
        u, start = float(noise[len(numbers)]), len(numbers)
        length = 1 + sum(u >= sum(PROBABILITIES[:longest]) for longest in range(1, 10))
        numbers += [start] * length
    return numbers[:len(noise)]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 64, 130])
def test_spans_are_those_of_a_walk_from_span_to_span(length):
    ids = list(range(20))
    noise = draw_of(ids, length).noise(UNIT)
    assert spans_of(ids, length).tolist() == [spans_in_a_loop(row) for row in noise]


def test_the_lengths_of_spans_are_spanberts():
    rows = spans_of(range(800), 512)
    lengths = torch.cat([row.unique(return_counts=True)[1][:-1] for row in rows])  # without the last, which is cut
    assert len(lengths) > 100_000
    assert lengths.double().mean() == pytest.approx(3.8, abs=0.03)
    for length, probability in enumerate(PROBABILITIES, 1):
        deviation = (probability * (1 - probability) / len(lengths)) ** 0.5
        assert (lengths == length).double().mean().item() == pytest.approx(probability, abs=4.5 * deviation)
    assert lengths.max() == 10


def test_spans_do_not_depend_on_the_rest_of_the_batch():
    together = spans_of([5, 6, 7, 5], 60)
    assert torch.equal(together[0], together[3]) and not torch.equal(together[0], together[1])
    assert torch.equal(spans_of([6], 60), together[1:2])
    assert torch.equal(spans_of([7, 6], 41), together[[2, 1], :41])  # a batch of shorter sentences


@pytest.mark.parametrize("unit", ["word", "span"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_words_and_spans_are_masked_whole_and_never_too_many_tokens(unit, strategy):
    vocabulary = vocabulary_of("SentencePiece")
    tokens, ids = random_batch("SentencePiece", range(30), 50)
    maskable, scores = tokens >= 4, Scores(torch.rand(30, 50, generator=torch.Generator().manual_seed(1)))
    masked = Masker(Policy(strategy, unit=unit, mask_prob=0.3), vocabulary, 3)(tokens, ids, maskable, scores, FIRST)
    k = number_to_mask(maskable.sum(1), 0.3)
    units = UNITS[unit].fn(tokens, maskable, vocabulary, draw_of(ids, 50))
    assert not (masked.selected & ~maskable).any() and (masked.selected.sum(1) <= k).all()
    assert masked.selected.sum() > 0.95 * k.sum()
    for selected, allowed, numbers in zip(masked.selected, maskable, units):
        for number in numbers.unique():
            assert len(selected[allowed & (numbers == number)].unique()) <= 1


@pytest.mark.parametrize("unit", ["word", "span"])
def test_masks_of_a_sentence_are_the_same_in_every_batch(unit):
    masker = Masker(Policy("random", unit=unit, mask_prob=0.3), vocabulary_of("SentencePiece"), 3)

    def selected(ids):
        tokens, ids = random_batch("SentencePiece", ids, 50)
        return masker(tokens, ids, tokens >= 4, None, FIRST).selected

    assert torch.equal(selected([1, 2, 3, 4])[[3, 1]], selected([4, 2]))


def test_high_masks_the_words_with_the_highest_mean_score():
    vocabulary = vocabulary_of("WordPiece")
    the, s, mask, of = (vocabulary.symbols.index(symbol) for symbol in ("the", "##s", "mask", "of"))
    tokens = torch.tensor([[0, the, s, mask, s, of, 2]])
    scores = Scores(torch.tensor([[9.0, 8, 0, 5, 4, 1, 9]]))  # means: 4, 4.5 and 1
    masker = Masker(Policy("high", unit="word", mask_count=2), vocabulary, 3)
    masked = masker(tokens, torch.tensor([0]), tokens >= 4, scores, FIRST)
    assert masked.selected.int().tolist() == [[0, 0, 0, 1, 1, 0, 0]]


def test_random_takes_words_by_the_noise_at_their_first_token():
    vocabulary = vocabulary_of("WordPiece")
    tokens, ids = random_batch("WordPiece", range(10), 40)
    maskable = tokens >= 4
    masker = Masker(Policy("random", unit="word", mask_prob=0.3), vocabulary, 3)
    words = UNITS["word"].fn(tokens, maskable, vocabulary, None)
    k = number_to_mask(maskable.sum(1), 0.3)
    expected = in_a_loop(draw_of(ids, 40).noise(SELECTION), maskable, k, words)
    assert torch.equal(masker(tokens, ids, maskable, None, FIRST).selected, expected)


@pytest.mark.parametrize("unit", ["word", "span"])
def test_a_model_trains_on_masked_words_and_spans(unit, subwords, tmp_path, caplog):
    caplog.set_level("INFO")
    checkpoint = train(subwords, tmp_path / unit, "--mask-unit", unit, "--mask-prob", "0.3", "--max-update", "3",
                       "--self-mask-from-epoch", "1")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["cfg"]["task"]["mask_unit"] == unit
    rates = [float(rate) for rate in re.findall(r"mask_rate ([\d.]+)", caplog.text)]
    assert rates and all(0.2 < rate < 0.32 for rate in rates)
