"""Parts of a policy: registries, the masker, and both outside of the package and of fairseq."""

import os
import re
import textwrap

import pytest
import torch
from conftest import OURS, ROOT, TINY, TRAINING, run

from entropy_mask_plugin.masking.corruption import Corruption
from entropy_mask_plugin.masking.masker import Masker, Vocabulary, When
from entropy_mask_plugin.masking.registry import Registry
from entropy_mask_plugin.masking.scores import Scores
from entropy_mask_plugin.masking.strategies import STRATEGIES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_after(heading):
    """The indented block of README that follows."""
    block = re.search(r"\n\n((?:    .*\n|\n)+)", README[README.index(heading):])[1]
    return textwrap.dedent(block)


def test_a_registry_names_its_parts_and_the_nearest_one():
    registry = Registry("--mask-shape", rounds=False)

    @registry.add("square")
    def square():
        """Four sides.

        And more.
        """

    registry.add("circle", rounds=True)(lambda: None)
    assert list(registry) == ["square", "circle"] and len(registry) == 2 and "square" in registry
    assert registry["square"] == (square, {"rounds": False}) and registry["square"].summary == "Four sides."
    assert registry["circle"].traits == {"rounds": True} and registry["circle"].summary == ""
    with pytest.raises(ValueError, match=r"--mask-shape: circel found, expected one of square, circle \(did you mean "):
        registry["circel"]
    with pytest.raises(ValueError, match="--mask-shape: x found, expected one of square, circle$"):
        registry["x"]
    with pytest.raises(ValueError, match="--mask-shape: circle is registered already, expected another name"):
        registry.add("circle")(square)
    with pytest.raises(ValueError, match="--mask-shape star: trait sides found, expected some of rounds"):
        registry.add("star", sides=5)


def test_every_strategy_says_in_a_line_what_it_does():
    assert list(STRATEGIES) == ["high", "low", "mid", "marginal", "random", "alternating"]
    assert all(entry.summary.endswith(".") for entry in STRATEGIES.values())


def masked_by(strategy, shares=Corruption(0.15, 0.0, 0.0), static=False, scores=None, when=When(1, 0)):
    tokens = torch.arange(4, 44).view(4, 10)
    maskable, k = torch.ones_like(tokens, dtype=torch.bool), torch.tensor([2, 0, 10, 1])
    masker = Masker(strategy, shares, Vocabulary(50, 1, torch.arange(4, 44)), seed=3, static=static)
    return tokens, masker(tokens, torch.arange(4), maskable, k, scores, when)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("has_scores", [True, False])
def test_the_masker_masks_k_tokens_whatever_it_knows(strategy, has_scores):
    scores = Scores(torch.rand(4, 10, generator=torch.Generator().manual_seed(1))) if has_scores else None
    tokens, masked = masked_by(strategy, scores=scores)
    assert masked.selected.sum(1).tolist() == [2, 0, 10, 1]
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


def test_noise_has_an_epoch_unless_masks_are_static():
    first, again, later, other = (masked_by("random", static=static, when=When(epoch, 0))[1].selected
                                  for static, epoch in ((False, 1), (False, 1), (False, 2), (True, 7)))
    assert torch.equal(first, again) and not torch.equal(first, later)
    assert torch.equal(other, masked_by("random", static=True, when=When(8, 3))[1].selected)


def test_80_10_10_leaves_the_target_alone():
    tokens, masked = masked_by("random", Corruption(0.15, 0.5, 0.5))
    assert torch.equal(masked.target, masked_by("random")[1].target) and not masked.src_tokens.eq(50).any()
    assert torch.equal(masked.src_tokens[~masked.selected], tokens[~masked.selected])


def test_the_masks_work_in_the_training_loop_of_readme(tmp_path):
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
    logits = model.eval()(tokens).logits
    model.train()
    exact = torch.special.entr(logits.softmax(-1)).sum(-1)
    assert names["entropies"].shape == exact.shape and (names["entropies"] - exact).abs().max() < 0.1  # dropout


def test_a_strategy_of_ones_own_trains_from_another_user_dir(data_bin, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "__init__.py").write_text(code_after("add a strategy"))
    flags = [str(mine) if flag == str(ROOT / "entropy_mask_plugin") else flag for flag in TRAINING]
    flags = [*flags, *OURS, *TINY, "--self-mask-from-epoch", "1", "--max-update", "3", "--save-dir", tmp_path / "run"]
    done = run("fairseq_cli.train", data_bin, *flags, "--mask-strategy", "ends")
    assert done.returncode == 0, done.stderr
    assert os.path.exists(tmp_path / "run" / "checkpoint_last.pt")
    done = run("fairseq_cli.train", data_bin, *flags, "--mask-strategy", "end")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        "error: --mask-strategy: end found, expected one of high, low, mid, marginal, random, alternating, ends "
        "(did you mean ends?)")
