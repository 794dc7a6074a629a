"""A score is a function of logits; it gets them in chunks, exact or cheap. Those of the package, and one's own."""

import json
import math
from decimal import Decimal, localcontext

import pytest
import torch
import torch.nn.functional as F
from builders.training import same_weights, train
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.scores import SCORES, projected
from entropy_mask_plugin.masking.scores.margin import margin
from entropy_mask_plugin.masking.scores.registry import CACHED_ROWS, CHUNK_ROWS, LARGEST
from entropy_mask_plugin.masking.scores.surprisal import surprisal
from entropy_mask_plugin.masking.strategies import select
from entropy_mask_plugin.scoring import scorer
from entropy_mask_plugin.scoring.scorer import Scorer


@pytest.fixture
def surprise(monkeypatch):
    """A stand-in that uses logits, tokens and an option; seen = rows of each call."""
    seen = []

    def fn(logits, tokens, scale=1.0):
        seen.append(len(logits))
        return -scale * logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]

    monkeypatch.setitem(SCORES._entries, "surprise", Entry(fn, SCORES.defaults))
    return seen


def operands(rows=(3, 200), width=16, symbols=40):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=generator)
                            for shape in ((*rows, width), (symbols, width), (symbols,)))
    return hidden, weight, bias, torch.randint(symbols, rows, generator=generator)


def reference(hidden, weight, bias, tokens):
    logits = F.linear(hidden.double(), weight.double(), bias.double())
    return -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_a_score_of_ones_own_is_that_of_its_logits_in_chunks(dtype, tolerance, surprise):
    found = projected("surprise", *operands(), dtype)
    assert found.dtype == torch.float32 and max(surprise) == CACHED_ROWS and sum(surprise) == 600
    assert torch.allclose(found.double(), reference(*operands()), atol=tolerance)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(projected("surprise", *operands(), dtype), found)


def test_the_options_of_a_score_reach_it(surprise):
    doubled = projected("surprise", *operands(), options={"scale": 2.0})
    assert torch.equal(doubled, 2 * projected("surprise", *operands()))


@pytest.mark.parametrize("pays", [False, True])
def test_a_scorer_gives_cheap_scores_with_the_way_to_exact_ones(pays, surprise, monkeypatch):
    hidden, weight, bias, tokens = operands()

    class Model:
        def lm_hidden(self, tokens, has_padding):
            return hidden

        def output_projection(self):
            return weight, bias

    monkeypatch.setattr(scorer, "bf16_pays", lambda device: pays)
    clean = {"net_input": {"src_tokens": tokens, "has_padding": False}}
    scores, exact = Scorer("surprise")(Model(), clean), Scorer("surprise").exact(Model(), clean)
    assert torch.allclose(exact.double(), reference(*operands()), atol=1e-5)
    assert torch.equal(scores.exact(), exact) and torch.equal(scores.values, exact) is not pays
    at = torch.rand(3, 200) < 0.1
    assert scores.exact_at is None or torch.allclose(scores.exact_at(at), exact[at], atol=1e-5)
    unrefined = Scorer("surprise", is_refined=False)(Model(), clean)
    assert unrefined.exact_at is None and torch.equal(unrefined.values, exact)
    all_in_bf16 = Scorer("surprise", entropy_precision="bf16")(Model(), clean)
    assert all_in_bf16.exact_at is None and not torch.equal(all_in_bf16.values, exact)


@pytest.mark.parametrize("value, kind", [(lambda logits: logits.sum(), r"shape \(\)"), (lambda logits: 1.0, "float")])
def test_what_is_no_score_is_named(value, kind, monkeypatch):
    monkeypatch.setitem(SCORES._entries, "wrong", Entry(lambda logits, tokens: value(logits), SCORES.defaults))
    with pytest.raises(ValueError, match=rf"--mask-score wrong: {kind} found, expected shape \(16,\)"):
        projected("wrong", *operands())


# ---- surprisal and margin


def float64_surprisal(logits, tokens):
    return -logits.double().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def float64_margin(logits, tokens):
    ranked = logits.double().sort(dim=-1, descending=True).values
    return ranked[..., 1] - ranked[..., 0]


REFERENCES = {"surprisal": float64_surprisal, "margin": float64_margin}


def exact_surprisal(row, token):
    """-ln P(token) in 60 decimal digits: float64 has no digit left at 1e-17 nats."""
    with localcontext() as context:
        context.prec = 60
        logits = [Decimal(z) for z in row.tolist()]
        return float(sum((z - logits[token]).exp() for z in logits).ln())


@pytest.mark.parametrize("vocabulary", [2, 3, 100])
def test_surprisal_is_exact_from_certain_to_impossible_tokens(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(111, vocabulary, generator=generator)
    logits[:, -1] = logits.amax(dim=1) + torch.arange(111) / 2  # the last entry leads by 0 to 55
    for token in (vocabulary - 1, 0):
        expected = torch.tensor([exact_surprisal(row, token) for row in logits], dtype=torch.float64)
        found = surprisal(logits, torch.full((111,), token))
        assert found.dtype == torch.float32 and (found >= 0).all()
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
        assert (expected.min() < 1e-20) if token else (expected.max() > 50)


@pytest.mark.parametrize("score", REFERENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(0, 7), (5, 2), (2,), (3,), (1, 3), (4, 5, 17), (3, 0, 4), (3, 1000), (2, 2, 30522)],
                         ids=str)
def test_scores_are_those_of_float64_whatever_the_shape_and_type(score, dtype, shape):
    generator = torch.Generator().manual_seed(0)
    noise, tokens = torch.randn(shape, generator=generator), torch.randint(shape[-1], shape[:-1], generator=generator)
    for scale in (0.1, 1.0, 10.0):
        logits = (noise * scale).to(dtype)
        before = logits.clone()
        found = SCORES[score].fn(logits, tokens)
        assert found.dtype == torch.float32 and found.shape == shape[:-1]
        torch.testing.assert_close(found.double(), REFERENCES[score](logits, tokens), rtol=1e-5, atol=1e-14)
        assert torch.equal(logits, before)  # the functions work in place, but not on what they were given


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([-torch.inf, -1e4, -104.0, 0.0, 0.5, 88.0])  # mostly ties


@settings(derandomize=True, deadline=None, max_examples=200)
@given(row=st.lists(st.one_of(finite, few), min_size=1, max_size=12).filter(lambda row: max(row) > -torch.inf),
       at=st.integers(0, 11))
def test_scores_of_any_logits_are_finite_and_their_order_is_right(row, at):
    logits, token = torch.tensor(row), torch.tensor(min(at, len(row) - 1))
    found = {score: SCORES[score].fn(logits, token).item() for score in REFERENCES}
    assert 0 <= found["surprisal"] <= LARGEST * (1 + 1e-6) and -LARGEST * (1 + 1e-6) <= found["margin"] <= 0
    assert (found["margin"] == 0) == (row.count(max(row)) > 1)
    if torch.isfinite(logits).all() and logits.abs().max() < 1e4:
        assert found["surprisal"] == pytest.approx(float64_surprisal(logits, token).item(), rel=1e-5, abs=1e-14)


@pytest.mark.parametrize("tied", [2, 3, 50])
def test_ties_are_as_surprising_as_there_are_many_and_leave_no_margin(tied):
    logits = torch.full((60,), -1e4)
    logits[5 : 5 + tied] = 12.5
    for token in (5, 4 + tied):
        assert surprisal(logits, torch.tensor(token)).item() == pytest.approx(math.log(tied), rel=1e-6)
    assert margin(logits).item() == 0


def test_a_score_of_a_vocabulary_of_one_or_of_a_certain_prediction_is_known():
    only = torch.tensor([[3.0], [-7.0]])
    assert surprisal(only, torch.zeros(2, dtype=torch.long)).tolist() == [0, 0]
    assert margin(only).tolist() == [pytest.approx(-LARGEST)] * 2
    certain = torch.tensor([-torch.inf, 2.0, -torch.inf])
    assert [surprisal(certain, torch.tensor(token)).item() for token in (1, 0)] == [0, pytest.approx(LARGEST)]


@pytest.mark.parametrize("score", REFERENCES)
@pytest.mark.parametrize("rows", [0, 1, CACHED_ROWS - 1, CACHED_ROWS, CACHED_ROWS + 1, CHUNK_ROWS - 1, CHUNK_ROWS,
                                  CHUNK_ROWS + 1, 2 * CHUNK_ROWS + CACHED_ROWS + 3])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.15)])
def test_chunks_of_any_size_have_the_scores_of_their_logits(score, rows, dtype, tolerance):
    hidden, weight, bias, tokens = operands((rows,))
    found = projected(score, hidden, weight, bias, tokens, dtype)
    expected = REFERENCES[score](F.linear(hidden.double(), weight.double(), bias.double()), tokens)
    assert found.dtype == torch.float32 and found.shape == (rows,)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


def test_margin_needs_no_tokens_and_surprisal_does():
    hidden, weight, bias, tokens = operands()
    without = projected("margin", hidden, weight, bias, None)
    assert torch.equal(without, projected("margin", hidden, weight, bias, tokens))
    assert [SCORES[score].traits["needs_tokens"] for score in ("entropy", "surprisal", "margin")] == [
        False, True, False]


def best(score, logits, tokens):
    """The position that `high` masks first."""
    scores = SCORES[score].fn(logits, tokens)[None]
    return select("high", scores, torch.ones_like(scores, dtype=torch.bool), torch.tensor([1]))[0].nonzero().item()


def test_surprisal_masks_the_corrupted_token():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(50, (20,), generator=generator)
    logits = torch.randn(20, 50, generator=generator) + 9 * F.one_hot(tokens, 50)
    logits[3] = 0  # that of least confidence
    tokens[7] = (tokens[7] + 1) % 50
    assert best("surprisal", logits, tokens) == 7 and best("entropy", logits, tokens) == 3


def test_margin_masks_the_ambiguous_token():
    logits = torch.randn(20, 1000, generator=torch.Generator().manual_seed(0))
    logits[torch.arange(20), torch.arange(20)] = 9.0
    logits[7, 400] = 8.9  # one of two, while the others are one of many
    logits[7] = torch.where(logits[7] < 8, -10.0, logits[7])
    assert best("margin", logits, None) == 7 and best("entropy", logits, None) != 7


@pytest.mark.slow
@pytest.mark.parametrize("score", REFERENCES)
def test_a_training_by_cached_scores_ends_in_the_weights_of_one_on_the_fly(score, data_bin, teacher, tmp_path):
    flags = ["--mask-score", score, "--teacher", teacher, "--max-epoch", "2"]
    plain = train(data_bin, str(tmp_path / "plain"), *flags)
    cached = train(data_bin, str(tmp_path / "cached"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert same_weights(plain, cached)
    (facts,) = (json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/facts.json"))
    assert (facts["score"], facts["version of the score"]) == (score, 1)


def test_self_masking_by_a_score_differs_from_that_by_entropy_and_is_recorded(data_bin, tmp_path):
    flags = ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--max-update", "4"]
    runs = {score: train(data_bin, str(tmp_path / score), *flags, "--mask-score", score)
            for score in ("entropy", *REFERENCES)}
    assert not any(same_weights(runs["entropy"], runs[score]) for score in REFERENCES)
    recorded = [torch.load(run, weights_only=True)["cfg"]["task"]["mask_score"] for run in runs.values()]
    assert recorded == ["entropy", "surprisal", "margin"]
