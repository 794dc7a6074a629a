"""Entropy of a prediction: against exact arithmetic, over odd shapes and types, and in little memory."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
import torch.nn.functional as F
from builders.training import LargestOutput
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mask_plugin.masking.scores.entropy import entropy, projected_entropy

# The formula is exact to a few of fp32's 6e-8. Before it, fp32 rounds x = z - max by half a unit in the last place,
# 2^-19 = 1.9e-6 where 32 <= |x| < 64: the relative error of e^x. Where max is 0, there is nothing to round.
FORMULA, WITH_SUBTRACTION = {"rtol": 4e-7, "atol": 0}, {"rtol": 2.4e-6, "atol": 0}
# The float64 reference is itself only exact to about 1e-16: below this its relative error says nothing.
CLOSE_TO_FLOAT64 = {"rtol": 1e-5, "atol": 1e-14}


def exact_entropy(row):
    """-sum p ln p in 60 decimal digits: float64 has no digit left at 1e-14 nats (p of the largest is 1 - 1e-16)."""
    with localcontext() as context:
        context.prec = 60
        logits = [Decimal(z) for z in row.tolist()]
        weights = [(z - max(logits)).exp() for z in logits]
        p = [w / sum(weights) for w in weights]
        return float(-sum(q * q.ln() for q in p if q))


def float64_entropy(logits):
    p = torch.softmax(logits.double(), dim=-1)
    return -torch.where(p > 0, p * p.log(), 0.0).sum(dim=-1)


@pytest.mark.parametrize("vocabulary", [2, 3, 100])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_entropy_is_exact_from_even_to_one_hot_predictions(vocabulary, temperature):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(76, vocabulary, generator=generator) * 0.7 / temperature
    logits[:, -1] = logits.amax(dim=1) + torch.arange(76) / 2  # the last entry leads by 0 to 37.5
    for z, tolerance in ((logits, WITH_SUBTRACTION), (logits - logits.amax(dim=1, keepdim=True), FORMULA)):
        expected = torch.tensor([exact_entropy(row) for row in z], dtype=torch.float64)
        decades = set(expected.log10().floor().int().tolist())
        assert decades >= set(range(-13, 0)) and len(decades) >= 14  # the rows do cover 14 decades
        torch.testing.assert_close(entropy(z).double(), expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(0, 7), (1, 1), (5, 1), (1,), (2,), (9, 2), (3,), (1, 3), (4, 5, 17), (0, 3, 4),
                                   (3, 0, 4), (3, 1000), (2, 2, 30522)], ids=str)
def test_entropy_has_one_fp32_value_for_each_row_whatever_the_shape_and_type(shape, dtype):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for scale in (0.1, 1.0, 10.0):
        logits = (noise * scale).to(dtype)
        before = logits.clone()
        result = entropy(logits)
        assert result.dtype == torch.float32 and result.shape == shape[:-1]
        torch.testing.assert_close(result.double(), float64_entropy(logits), **CLOSE_TO_FLOAT64)
        assert torch.equal(logits, before)  # the function works in place, but not on what it was given


def test_a_certain_prediction_has_no_entropy_and_an_even_one_ln_v():
    for size in (1, 2, 3, 1000, 30522):
        one_hot = torch.full((size,), -torch.inf)
        one_hot[size // 2] = -3.0
        assert entropy(one_hot).item() == 0.0
        even = torch.full((4, size), 1.0) * torch.tensor([[0.0], [-7.5], [1e30], [-1e30]])
        torch.testing.assert_close(entropy(even), torch.full((4,), math.log(size)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rest", [-torch.inf, -1e4])
@pytest.mark.parametrize("tied", [2, 3, 50])
def test_only_one_of_tied_largest_logits_is_taken_out(tied, rest):
    logits = torch.full((60,), rest)
    logits[5 : 5 + tied] = 12.5
    assert entropy(logits).item() == pytest.approx(math.log(tied), rel=1e-6)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
moderate = st.floats(-110, 110, width=32)
few = st.sampled_from([-torch.inf, -1e4, -104.0, 0.0, 0.5, 88.0])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.one_of(finite, moderate, few), min_size=1, max_size=30).filter(lambda row: max(row) > -torch.inf))
def test_entropy_of_any_logits_is_a_number_between_zero_and_ln_v(row):
    logits = torch.tensor(row)
    result = entropy(logits).double()
    assert 0.0 <= result.item() <= math.log(len(row)) * (1 + 1e-6)  # false for nan
    torch.testing.assert_close(result, float64_entropy(logits), **CLOSE_TO_FLOAT64)


def projection(vocabulary=50, width=4, rows=(60,), dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    shapes = ((*rows, width), (vocabulary, width), (vocabulary,))
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("chunk_rows", [1, 5, 6, 11, 12, 100])  # of the 12 rows these divide: 1, 6, 12
@pytest.mark.parametrize("rows", [(12,), (3, 4), (2, 3, 2), (1,), (), (0,), (3, 0)], ids=str)
def test_projected_entropy_is_the_entropy_of_the_projection_in_any_chunks(rows, chunk_rows):
    hidden, weight, bias = projection(rows=rows)
    expected = float64_entropy(F.linear(hidden.double(), weight.double(), bias.double()))
    result = projected_entropy(hidden, weight, bias, chunk_rows=chunk_rows)
    assert result.dtype == torch.float32 and result.shape == rows
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("hidden_type, weight_type", [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16),
                                                      (torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_projected_entropy_rounds_no_more_than_its_operands_are_rounded(hidden_type, weight_type):
    hidden, weight, bias = projection(width=64, vocabulary=300)
    hidden, weight, bias = hidden.to(hidden_type), weight.to(weight_type), bias.to(weight_type)
    expected = float64_entropy(F.linear(hidden.double(), weight.double(), bias.double()))
    result = projected_entropy(hidden, weight, bias)
    assert result.dtype == torch.float32
    # Logits up to about 30, wrong by about 1e-5 in fp32; a product in bf16 would be wrong by about 0.1.
    torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-6)


def test_projected_entropy_stays_in_fp32_under_a_callers_autocast():
    hidden, weight, bias = projection(width=64, vocabulary=300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = projected_entropy(hidden, weight, bias)
    assert torch.equal(result, projected_entropy(hidden, weight, bias))


@pytest.mark.parametrize("hidden_type", [torch.float32, torch.bfloat16])
def test_projected_entropy_never_holds_the_logits_of_more_rows_than_a_chunk(hidden_type):
    hidden, weight, bias = projection(rows=(6, 10))
    hidden = hidden.to(hidden_type)
    with LargestOutput() as naive:
        entropy(F.linear(hidden.float(), weight, bias))
    with LargestOutput() as chunked:
        projected_entropy(hidden, weight, bias, chunk_rows=8)
    assert naive.numel == 60 * 50  # the watch sees what must not happen
    assert chunked.numel == max(8 * 50, weight.numel(), hidden.numel())


def test_projected_entropy_chunks_a_large_input_unasked():
    hidden, weight, bias = projection(rows=(2, 1500))
    with LargestOutput() as watch:
        projected_entropy(hidden, weight, bias)
    assert watch.numel <= 512 * 50


def test_projected_entropy_keeps_no_gradient_graph():
    hidden, weight, bias = (x.requires_grad_() for x in projection())
    assert entropy(F.linear(hidden, weight, bias)).requires_grad  # so nothing but projected_entropy drops the graph
    assert not projected_entropy(hidden, weight, bias).requires_grad
