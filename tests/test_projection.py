"""The padded projection is the plain one: logits, gradients, autocast, and with the gradient in the logits' place."""

import pytest
import torch
import torch.nn.functional as F

from entropy_mask_plugin.models import projection
from entropy_mask_plugin.models.projection import MULTIPLE, padded_projection
from entropy_mask_plugin.training.cross_entropy import inplace_cross_entropy

LOSSES = {
    "in the logits' place": lambda logits, target: inplace_cross_entropy(logits, target)[0],
    "elsewhere": lambda logits, target: F.cross_entropy(logits.float(), target, reduction="sum"),
}


def operands(rows, vocabulary, width=24):
    generator = torch.Generator().manual_seed(rows + vocabulary)
    draw = lambda *shape: torch.randn(*shape, generator=generator).requires_grad_()  # noqa: E731
    return draw(rows, width), draw(vocabulary, width), draw(vocabulary)


def outcome(project, loss_of, rows, vocabulary, autocast):
    leaves, target = operands(rows, vocabulary), torch.arange(rows) % vocabulary
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = project(leaves[0] * 1, *leaves[1:])
        values = logits.detach().clone()
        loss = loss_of(logits, target)
    (0.5 * loss).backward()
    return values, loss.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rows, vocabulary", [(7, 50), (1, 7), (5, 65), (3, 64), (0, 50)])
def test_logits_and_gradients_are_those_of_the_plain_projection(rows, vocabulary, autocast, loss):
    plain = outcome(F.linear, LOSSES[loss], rows, vocabulary, autocast)
    padded = outcome(padded_projection, LOSSES[loss], rows, vocabulary, autocast)
    tolerance = dict(rtol=2e-2, atol=2e-2) if autocast else dict(rtol=1e-5, atol=1e-5)
    for one, other in zip(plain, padded):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **tolerance)


def test_rows_begin_at_multiples_and_no_copy_is_made_of_a_gradient_in_their_place(monkeypatch):
    made = []
    monkeypatch.setattr(projection.F, "pad", lambda *arguments: made.append(arguments) or torch.zeros(4, MULTIPLE))
    for loss in LOSSES.values():
        features, weight, bias = operands(4, 50)
        logits = padded_projection(features, weight, bias)
        assert logits.shape == (4, 50) and logits.stride() == (MULTIPLE, 1)
        loss(logits, torch.arange(4)).backward()
    assert len(made) == 1  # only of the one elsewhere


def test_other_shapes_and_no_gradient():
    features, weight, bias = operands(6, 50)
    with torch.no_grad():
        logits = padded_projection(features.view(2, 3, -1), weight, bias)
    torch.testing.assert_close(logits, F.linear(features, weight, bias).view(2, 3, 50), rtol=1e-5, atol=1e-5)


def test_the_model_pads_where_it_pays_and_only_there(monkeypatch):
    features, weight, bias = operands(4, 50)
    assert projection.project(features, weight, bias).is_contiguous()  # on a CPU
    monkeypatch.setattr(projection, "padded_projection", lambda *arguments: "padded")

    class OnGpu:
        device = torch.device("cuda")

    assert projection.project(OnGpu(), weight, bias) == "padded"
