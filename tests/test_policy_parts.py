"""Parts of a policy: registries, the masker, and both outside of the package and of fairseq."""

import re

import pytest
import torch
from builders.training import ROOT, batch_of, masked_by_policy, run, train

from entropy_mask_plugin.config import EntropyMaskedLMConfig, names_with, with_options
from entropy_mask_plugin.masking import SCORES, Masker, Option, Policy, Scores, Vocabulary, When
from entropy_mask_plugin.masking.registry import Entry, Registry
from entropy_mask_plugin.masking.strategies import STRATEGIES
from entropy_mask_plugin.system.errors import UsageError


def code_after(phrase, page="README.md"):
    """The Python block that follows the phrase."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(r"^```python\n(.*?)^```$", text[text.index(phrase):], re.DOTALL | re.MULTILINE)[1]


def test_a_registry_names_its_parts_and_the_nearest_one():
    registry = Registry("--mask-shape", rounds=False)

    @registry.add("square")
    def square():
        """Four sides.

        And more.
        """

    registry.add("circle", rounds=True)(lambda: None)
    assert list(registry) == ["square", "circle"] and len(registry) == 2 and "square" in registry
    assert registry["square"] == (square, {"rounds": False}, {}) and registry["square"].summary == "Four sides."
    assert registry["circle"].traits == {"rounds": True} and registry["circle"].summary == ""
    with pytest.raises(ValueError, match=r"--mask-shape: circel found, expected one of square, circle \(did you mean "):
        registry["circel"]
    with pytest.raises(ValueError, match="^--mask-shape: x found, expected one of square, circle$"):
        registry["x"]
    assert registry.get("x") is None
    with pytest.raises(ValueError, match="--mask-shape: circle is registered already, expected another name"):
        registry.add("circle")(square)
    with pytest.raises(ValueError, match="--mask-shape star: trait sides found, expected some of rounds"):
        registry.add("star", sides=5)


def test_every_strategy_says_in_a_line_what_it_does():
    assert list(STRATEGIES) == ["high", "low", "mid", "marginal", "random", "alternating", "gumbel"]
    assert all(entry.summary.endswith(".") for entry in STRATEGIES.values())


@pytest.mark.slow
def test_all_parts_are_listed_by_a_command():
    done = run("entropy_mask_plugin.policies")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("--")] == [
        "--mask-source", "--mask-score", "--mask-strategy", "--mask-unit", "--mask-prob, --guided-fraction",
        "--mixer-pattern"]
    assert not done.stderr
    assert "  high          The most uncertain tokens. [needs_scores, cuts_scores]" in lines
    assert "  self          The model being trained: its weights before the update, dropout off. [reads: self]" in lines


FIRST = When(1, 0)


def masked_by(strategy, fractions=(0.0, 0.0), static=False, scores=None, when=FIRST, **settings):
    tokens = torch.arange(4, 44).view(4, 10)
    maskable = torch.arange(10) < torch.tensor([[10], [0], [1], [7]])
    policy = Policy(strategy, leave_unmasked_prob=fractions[0], random_token_prob=fractions[1], static_masks=static,
                    **settings)
    masker = Masker(policy, Vocabulary(50, 1, torch.arange(4, 44)), 3)
    return tokens, masker(tokens, torch.arange(4), maskable, scores, when)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("has_scores", [True, False])
def test_the_masker_masks_k_tokens_whatever_it_knows(strategy, has_scores):
    scores = Scores(torch.rand(4, 10, generator=torch.Generator().manual_seed(1))) if has_scores else None
    tokens, masked = masked_by(strategy, scores=scores)
    assert masked.selected.sum(1).tolist() == masked.counts.tolist() == [2, 0, 1, 1]
    assert torch.equal(masked.src_tokens, tokens.masked_fill(masked.selected, 50))
    assert torch.equal(masked.target, tokens.masked_fill(~masked.selected, 1))
    decides = has_scores and STRATEGIES[strategy].traits["needs_scores"]
    assert torch.equal(masked.scores, scores.values) if decides else masked.scores is None


def test_approximate_scores_are_made_exact_where_they_decide():
    exact, asked = torch.rand(4, 10, generator=torch.Generator().manual_seed(1)), []
    approximate = exact + 1e-2 * torch.randn(4, 10, generator=torch.Generator().manual_seed(2))
    scores = Scores(approximate, lambda at: asked.append(at) or exact[at])
    _, masked = masked_by("high", scores=scores)
    assert torch.equal(masked.selected, masked_by("high", scores=Scores(exact))[1].selected) and asked
    assert torch.equal(scores.exact(), exact) and torch.equal(Scores(exact).exact(), exact)


@pytest.fixture
def register(monkeypatch):
    """Register a strategy for this test alone."""

    def add(name, **traits):
        def decorate(fn):
            monkeypatch.setitem(STRATEGIES._entries, name, Entry(fn, {**STRATEGIES.defaults, **traits}))
            return fn

        return decorate

    return add


def test_a_strategy_that_does_not_cut_the_ranking_of_the_scores_gets_exact_ones(register):
    exact, seen = torch.rand(4, 10), []
    register("shuffled")(lambda scores, candidates, k, draw: seen.append(scores) or scores.sin())
    masked_by("shuffled", scores=Scores(exact + 0.1, lambda at: exact[at]))
    assert torch.equal(seen[0], exact)


@pytest.mark.parametrize("priority, message", [
    (lambda c: c.cumsum(1), r"priority: torch.int64 of shape \(4, 10\) found, expected floats of shape \(4, 10\)"),
    (lambda c: torch.zeros(4, 1), r"priority: torch.float32 of shape \(4, 1\) found"),
    (lambda c: None, "priority: NoneType found"),
    (lambda c: c.float().log().mul(0).sub(torch.inf), "--mask-strategy wrong: priority: 18 values that are not finite"),
])
def test_what_is_no_priority_is_refused(priority, message, register):
    register("wrong", needs_scores=False)(lambda scores, candidates, k, draw: priority(candidates))
    with pytest.raises(ValueError, match=message):
        masked_by("wrong")


def test_noise_has_an_epoch_unless_masks_are_static():
    first, again, later, other = (masked_by("random", static=static, when=When(epoch, 0))[1].selected
                                  for static, epoch in ((False, 1), (False, 1), (False, 2), (True, 7)))
    assert torch.equal(first, again) and not torch.equal(first, later)
    assert torch.equal(other, masked_by("random", static=True, when=When(8, 3))[1].selected)


def test_80_10_10_leaves_the_target_alone():
    tokens, masked = masked_by("random", (0.5, 0.5))
    assert torch.equal(masked.target, masked_by("random")[1].target) and not masked.src_tokens.eq(50).any()
    assert torch.equal(masked.src_tokens[~masked.selected], tokens[~masked.selected])


def test_the_masks_work_in_the_training_loop_of_readme():
    transformers = pytest.importorskip("transformers")
    sizes = dict(vocab_size=60, num_hidden_layers=1, hidden_size=16, intermediate_size=32, num_attention_heads=2)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
    code = code_after("use the masks in another training loop")
    assert code.count("\n") - code.count("\n\n") <= 20

    class Tokenizer:
        all_special_ids, mask_token_id = [0, 1, 2, 3, 4], 4

    tokens = torch.randint(5, 60, (3, 20), generator=torch.Generator().manual_seed(0))
    names = {"torch": torch, "model": model, "tokenizer": Tokenizer,
             "batch": {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}}
    exec(code, names)
    names["loss"].backward()
    assert names["selected"].sum(1).tolist() == [3, 3, 3] and names["loss"] > 0
    exact = torch.special.entr(model.eval()(tokens).logits.softmax(-1)).sum(-1)
    assert names["entropies"].shape == exact.shape and torch.allclose(names["entropies"], exact, rtol=1e-4)


def test_an_option_cannot_have_the_name_of_a_flag_or_of_another_option(monkeypatch):
    for name, option in (("seed", Option(1, "noise")), ("blur", Option(0.5, "nats"))):
        monkeypatch.setitem(STRATEGIES._entries, name, Entry(None, STRATEGIES.defaults, {name: option}))
        if name == "seed":
            with pytest.raises(UsageError, match="--mask-strategy: an option seed found, expected another name"):
                with_options(EntropyMaskedLMConfig)
            monkeypatch.delitem(STRATEGIES._entries, "seed")
    config = with_options(EntropyMaskedLMConfig)
    assert with_options(config) is config and names_with("policy")["blur"]
    monkeypatch.setitem(SCORES._entries, "other", Entry(None, SCORES.defaults, {"blur": Option(1.0, "else")}))
    with pytest.raises(UsageError, match="--mask-score: an option blur found"):
        with_options(config)


def test_options_have_defaults_of_simple_types_and_names_that_fairseq_does_not_use(monkeypatch):
    with pytest.raises(ValueError, match="--x y: option z with default None found, expected a bool, int, float or str"):
        Registry("--x").add("y", {"z": Option(None, "")})
    monkeypatch.setitem(STRATEGIES._entries, "x", Entry(None, STRATEGIES.defaults, {"lr": Option(1.0, "")}))
    with pytest.raises(UsageError, match="an option lr found, expected another name"):
        with_options(EntropyMaskedLMConfig)


@pytest.mark.parametrize("number, message", [
    ({"mask_prob": 15}, r"--mask-prob: 15 found, expected a fraction in \(0, 1\]"),
    ({"mask_count": 0}, "--mask-count: 0 found, expected 1 or more"),
])
def test_a_policy_out_of_range_is_refused_without_fairseq_too(number, message):
    with pytest.raises(ValueError, match=message):
        masked_by("high", **number)


def test_scores_that_are_none_are_not_blamed_on_the_strategy():
    with pytest.raises(ValueError, match="^scores .--mask-score entropy.: 1 values that are not finite found"):
        masked_by("high", scores=Scores(torch.tensor([[torch.nan] + [0.0] * 9] + [[0.0] * 10] * 3)))


@pytest.mark.parametrize("temperature, message", [("0", "0.0 found"), ("-1", "-1.0 found"), ("nan", "nan found")])
def test_the_temperature_of_gumbel_is_above_0(temperature, message, make_task):
    with pytest.raises(UsageError, match=f"--gumbel-temperature: {message}, expected a number above 0"):
        make_task("--mask-strategy", "gumbel", "--self-mask-from-epoch", "1", "--gumbel-temperature", temperature)


def test_a_training_by_gumbel_records_its_temperature(data_bin, tmp_path, caplog):
    flags = ["--mask-strategy", "gumbel", "--mask-score", "margin", "--self-mask-from-epoch", "1"]
    run = lambda *more: train(data_bin, str(tmp_path / "run"), *flags, *more)  # noqa: E731
    checkpoint = run("--gumbel-temperature", "0.5", "--max-update", "2")
    assert torch.load(checkpoint, weights_only=True)["cfg"]["task"]["gumbel_temperature"] == 0.5
    run("--max-update", "3")
    assert "was trained with --gumbel-temperature 0.5 and resumes with 1.0" in caplog.text


def test_self_is_a_source_from_the_first_epoch_as_well(make_task):
    task, model, _ = make_task("--mask-strategy", "high", "--mask-source", "self")
    cold, _, _ = make_task("--mask-strategy", "high", "--self-mask-from-epoch", "1")
    one, other = (masked_by_policy(each, batch_of(each, range(9)), model, 0)[0]["target"] for each in (task, cold))
    assert torch.equal(one, other)
