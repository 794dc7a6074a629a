"""A score of one's own is a function of logits; it gets them in chunks, exact or cheap."""

import pytest
import torch
import torch.nn.functional as F

from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.scores import SCORES, projected
from entropy_mask_plugin.masking.scores.registry import CHUNK_ROWS
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
    assert found.dtype == torch.float32 and max(surprise) == CHUNK_ROWS and sum(surprise) == 600
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
    with pytest.raises(ValueError, match=rf"--mask-score wrong: {kind} found, expected shape \(256,\)"):
        projected("wrong", *operands())
