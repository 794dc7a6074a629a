"""The sums of flops.py are what torch's counter sees."""

import functools
import subprocess
import sys

import pytest
from builders.flops import multiplications
from builders.training import ROOT, batch_of, masked_by_policy
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from entropy_mask_plugin.config import Corruption
from entropy_mask_plugin.models.flops import (
    ENTROPY_PASS,
    Fractions,
    fractions_of,
    macs,
    macs_of_features,
    macs_of_loss_head,
    macs_of_scoring,
    macs_of_step,
    terms,
)
from entropy_mask_plugin.reporting.flops_table import build_meta_model, relative_cost

SMALL = ["--encoder-layers", "3", "--encoder-embed-dim", "64", "--encoder-ffn-embed-dim", "256",
         "--encoder-attention-heads", "4", "--max-positions", "64"]
ARCHS = {name: ["--arch", name] for name in ("bert_base", "bertlet", "hbert_v1", "hbert_v2", "addbert", "hbertlet",
                                             "bert_base_3ml", "bertlet_3ml")}
ARCHS |= {"3ml, cross": ["--arch", "bertlet_3ml", "--mask-decoder-kind", "cross"],
          "hybrid 3ml": ["--arch", "hbert_v1", "--mask-decoder-layers", "1"]}


@pytest.mark.parametrize("arch", ARCHS)
def test_a_step_and_an_entropy_pass_cost_what_the_formulas_say(arch, make_task):
    length, tokens = 64, 4 * 64
    task, model, criterion = make_task("--mask-strategy", "random", "--tokens-per-sample", str(length), "--mask-prob",
                                       "0.5", "--leave-unmasked-prob", "0", "--random-token-prob", "0",
                                       model=[*ARCHS[arch], *SMALL])
    model.train()
    masked, _ = masked_by_policy(task, batch_of(task, range(4)), model, 0)
    src_tokens = masked["net_input"]["src_tokens"]
    most_visible = int(src_tokens.ne(task.mask_idx).sum(1).max())
    shares = Fractions(masked["selected"].number / tokens, most_visible / length)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        loss, _, _ = criterion(model, masked)
        loss.backward()
    assert counted.get_total_flops() == pytest.approx(2 * 3 * tokens * macs(model, length, shares), rel=0.02)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        task.scorer.exact(model.eval(), batch_of(task, range(4)))
    assert counted.get_total_flops() == pytest.approx(2 * tokens * macs(model, length, ENTROPY_PASS), rel=0.001)


@pytest.mark.parametrize("folds", [3, 500])
@pytest.mark.parametrize("arch", ["bertlet", "hbert_v1", "bertlet_3ml", "3ml, cross"])
def test_scores_of_hidden_tokens_cost_what_the_formulas_say(arch, folds, make_task):
    length = 32
    task, model, _ = make_task("--mask-strategy", "random", "--tokens-per-sample", str(length), "--entropy-folds",
                               str(folds), model=[*ARCHS[arch], *SMALL])
    sample = batch_of(task, range(4))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        task.scorer.exact(model.eval(), sample)
    passes = min(folds, max(sample["n_maskable"]))
    # Special tokens are never hidden, which the formula ignores; an encoder without masks pads to its fullest sentence.
    tolerance = 0.1 if model.mask_decoder is not None else 0.001
    expected = 2 * sample["net_input"]["src_tokens"].numel() * macs_of_scoring(model, length, passes)
    assert counted.get_total_flops() == pytest.approx(expected, rel=tolerance)


def test_folds_multiply_all_of_a_scoring_pass_but_the_vocabulary():
    model, masks = build_meta_model("bertlet", 500, 32), Corruption(0.15, 0, 0)
    one = macs(model, 32, ENTROPY_PASS)
    assert macs_of_scoring(model, 32) == pytest.approx(one)
    assert macs_of_scoring(model, 32, 7) == pytest.approx(7 * one - 6 * 500 * 512)
    assert macs_of_scoring(model, 32, 99) == macs_of_scoring(model, 32, 32)  # a token at a time
    step = functools.partial(macs_of_step, model, 32, masks, entropies="self")
    assert step(folds=7) - step() == pytest.approx(6 * (one - 500 * 512))
    late = build_meta_model("bertlet_3ml", 500, 32)  # hidden tokens bypass the encoder
    assert macs_of_scoring(late, 32, 2) < 2 * macs(late, 32, ENTROPY_PASS) - 500 * 512


def test_the_sums_of_bertlet_are_those_of_the_published_table():
    """A, C and E of BERTlet and BERT-base at T = 128, in millions."""
    for arch, c, e in (("bertlet", 39.5, 29.0), ("bert_base", 257, 111)):
        model = build_meta_model(arch, 30_522, 128)
        assert 3e-6 * macs(model, 128, Fractions(0.15, 1.0)) == pytest.approx(c, rel=0.01)
        assert 1e-6 * macs(model, 128, ENTROPY_PASS) == pytest.approx(e, rel=0.01)
    body, head, step = multiplications(768, 3072, 12, 30_522, 128, 0.15)
    assert macs(model, 128, Fractions(0.15, 1.0)) == pytest.approx(step)
    assert macs(model, 128, ENTROPY_PASS) == body + head


def test_a_step_adds_up_what_its_policy_computes():
    model, teacher = build_meta_model("bertlet", 500, 32), build_meta_model("bert_base", 500, 32)
    masks = Corruption(0.4, 0.1, 0.1)
    assert fractions_of(masks) == pytest.approx((0.4, 0.68))
    plain = macs_of_step(model, 32, masks)
    assert plain == 3 * macs(model, 32, Fractions(0.4, 0.68))
    assert macs_of_step(model, 32, masks, teacher, "teacher") - plain == pytest.approx(macs(teacher, 32, ENTROPY_PASS))
    assert macs_of_step(model, 32, masks, teacher, "self", True) - plain == pytest.approx(
        macs(model, 32, ENTROPY_PASS) + macs(teacher, 32, fractions_of(masks)))


def test_a_learned_score_costs_the_layers_or_nothing(make_task):
    """Of predicted-loss, the clean pass is counted by torch; the training of its head is an upper bound."""
    length, tokens = 64, 4 * 64
    task, model, _ = make_task("--mask-strategy", "high", "--mask-score", "predicted-loss", "--tokens-per-sample",
                               str(length), model=["--arch", "bertlet", *SMALL])
    sample = batch_of(task, range(4))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        masked_by_policy(task, sample, model, 0)
    features, head = macs_of_features(model, length), macs_of_loss_head(model)
    assert counted.get_total_flops() == pytest.approx(2 * tokens * (features + head), rel=0.001)
    masks = Corruption(0.2, 0, 0)
    step = macs_of_step(model, length, masks)
    assert macs_of_step(model, length, masks, None, "self", needs="history") == step
    assert macs_of_step(model, length, masks, None, "self", needs="features") == pytest.approx(
        step + features + 1.6 * head)
    for arch in ("bertlet", "bert_base"):
        large = build_meta_model(arch, 30_522, 128)
        costs = [macs_of_step(large, 128, Corruption(0.15, 0, 0), None, source, needs="features")
                 for source in ("self", None)]
        assert costs[0] / costs[1] == pytest.approx(1.34, abs=0.005)


def test_additive_attention_is_linear_in_the_length():
    of = lambda arch, length: terms(build_meta_model(arch, 500, length), length, ENTROPY_PASS)["encoder", "attention"]  # noqa: E731,E501
    assert of("addbert", 1024) == of("addbert", 128) and of("bert_base", 1024) == 8 * of("bert_base", 128)


def test_the_published_shares_are_near_those_of_the_formula():
    assert relative_cost(24, 1024) == pytest.approx(0.68, abs=0.01)
    assert relative_cost(12, 768) == pytest.approx(0.78, abs=0.03)


@pytest.mark.slow
def test_the_report_names_every_term_and_sums_up():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "flops.py", "--arch", "bertlet_3ml"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    table = [row for row in rows if row[0] in ("encoder", "mask decoder", "head", "all")]
    assert len(table) == 9
    for column in (2, 3):
        *parts, total = (float(row[column].replace(",", "")) for row in table)
        assert sum(parts) == pytest.approx(total, abs=0.05)
    assert "| RoBERTa-base " in done.stdout and "78 %" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words, message", [
    (["--arch", "roberta_base"], "--arch: roberta_base found, expected one of this plug-in's archs"),
    (["--arch", "bertlet", "--length", "1"], "--length: 1 found"),
    (["--arch", "bertlet", "--vocabulary", "3"], "--vocabulary: 3 found"),
    (["--arch", "bertlet", "--", "--no-such-flag", "1"], "-- …: "),
    (["--arch", "bertlet", "--mask-prob", "2"], "--mask-prob: 2.0 found"),
])
def test_mistakes_are_named(words, message):
    done = subprocess.run([sys.executable, ROOT / "scripts" / "flops.py", *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"error: {message}")
