"""The GPU's kernel against the plain form: in Triton's interpreter where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton")

from entropy_mask_plugin.masking.scores import triton_entropy  # noqa: E402
from entropy_mask_plugin.masking.scores.entropy import projected_entropy  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """The interpreter is slow; several blocks in each direction are needed all the same."""
    monkeypatch.setattr(triton_entropy, "BLOCKS", {torch.float32: (16, 16, 16), torch.bfloat16: (16, 16, 16)})


def projection(rows, vocabulary, width, scale, dtype):
    generator = torch.Generator().manual_seed(rows + vocabulary)
    shapes = ((rows, width), (vocabulary, width), (vocabulary,))
    hidden, weight, bias = (torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes)
    return (hidden * scale).to(dtype), weight.to(dtype), bias


# Without a GPU there is the interpreter, whose product of bf16 blocks is no product of them.
bf16 = pytest.param(torch.bfloat16, marks=pytest.mark.gpu)


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@pytest.mark.parametrize("rows, vocabulary, width", [(1, 2, 1), (1, 7, 16), (16, 32, 16), (17, 33, 19), (40, 100, 48),
                                                     (0, 40, 16)])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 8.0])
def test_the_kernel_is_the_plain_form(rows, vocabulary, width, scale, dtype):
    hidden, weight, bias = projection(rows, vocabulary, width, scale, dtype)
    found = triton_entropy.fused_entropy(hidden, weight, bias)
    expected = projected_entropy(hidden.float(), weight.float(), bias)
    assert found.dtype == torch.float32 and found.shape == (rows,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)  # logits to 1e-5, in another order of sums


def test_the_vocabulary_of_bert_is_summed_to_the_end(monkeypatch):
    monkeypatch.setattr(triton_entropy, "BLOCKS", {torch.float32: (16, 512, 32)})
    hidden, weight, bias = projection(2, 30522, 32, 0.5, torch.float32)
    torch.testing.assert_close(triton_entropy.fused_entropy(hidden, weight, bias),
                               projected_entropy(hidden, weight, bias), rtol=1e-5, atol=0)


@pytest.mark.parametrize("symbols", [7, 16, 33])
def test_equal_logits_are_the_logarithm_of_their_number(symbols):
    operands = torch.zeros(3, 16), torch.zeros(symbols, 16), torch.full((symbols,), 30.0)
    entropies = triton_entropy.fused_entropy(*(operand.to(DEVICE) for operand in operands)).cpu()
    torch.testing.assert_close(entropies, torch.tensor(float(symbols)).log().expand(3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gap", [0.0, 1.0, 10.0, 30.0, 80.0])
@pytest.mark.parametrize("at", [0, 20, 32])
def test_confident_predictions_keep_their_digits_wherever_the_largest_logit_is(gap, at):
    hidden, weight, bias = torch.zeros(3, 4), torch.zeros(33, 4), torch.zeros(33)
    bias[at] = gap
    found = triton_entropy.fused_entropy(hidden.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE)).cpu()
    p = torch.softmax(bias.double(), 0)
    rest = 1 / (1 + torch.tensor(gap).double().exp() / 32)  # 1 - p of the largest, exactly
    exact = -torch.log1p(-rest) * (1 - rest) - (p * p.log()).sum() - (-(p[at] * p[at].log()))
    torch.testing.assert_close(found.double(), exact.expand(3), rtol=1e-5, atol=0)
