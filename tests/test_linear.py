"""Weights that a layer casts together are those that autocast casts one by one."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from builders.models import build
from builders.training import TINY

from entropy_mask_plugin.models import linear
from entropy_mask_plugin.models.linear import Linear, cast_together

ARCHS = {"bert": [], "pre-LayerNorm": ["--encoder-normalize-before"], "mask later": ["--mask-decoder-layers", "1",
         "--mask-decoder-kind", "cross"]}


def one_by_one(linears, device):
    return torch.enable_grad()  # any context that does nothing here


def outcome(model, dtype):
    model.zero_grad()
    tokens = torch.randint(4, 49, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype):
        logits = model(tokens, masked_tokens=tokens % 3 == 0)[0]
    logits.float().square().mean().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("arch", ARCHS)
def test_logits_and_gradients_are_autocasts_bit_for_bit(arch, dtype, monkeypatch):
    torch.manual_seed(0)
    model = build("--dropout", "0", "--attention-dropout", "0", *ARCHS[arch], model=TINY)
    logits, gradients = outcome(model, dtype)
    for module in ("layers", "bert"):
        monkeypatch.setattr(f"entropy_mask_plugin.models.{module}.cast_together", one_by_one)
    expected, expected_gradients = outcome(model, dtype)
    assert torch.equal(logits, expected)
    for name, gradient in expected_gradients.items():
        assert (gradient is None and gradients[name] is None) or torch.equal(gradients[name], gradient), name


def test_all_weights_are_cast_in_one_operation_and_let_go_again(monkeypatch):
    operations = []
    foreach_copy = torch._foreach_copy_
    monkeypatch.setattr(linear.torch, "_foreach_copy_",
                        lambda *lists: operations.append(len(lists[0])) or foreach_copy(*lists))
    maps = [Linear(4, 4), Linear(4, 4, bias=False)]
    with torch.autocast("cpu", torch.bfloat16), cast_together(maps, torch.device("cpu")):
        assert maps[0].operands()[0].dtype == torch.bfloat16 and maps[1].operands()[1] is None
        loss = maps[1](maps[0](torch.ones(2, 4))).float().sum()
    assert operations == [3] and maps[0].in_use is None
    loss.backward()
    assert operations == [3, 3] and maps[0].weight.grad.dtype == torch.float32


def test_an_error_within_leaves_nothing_behind():
    maps = [Linear(4, 4)]
    with (pytest.raises(ValueError, match="within"), torch.autocast("cpu", torch.bfloat16),
          cast_together(maps, torch.device("cpu"))):
        raise ValueError("within")
    assert maps[0].in_use is None


def test_a_map_that_is_not_used_or_frozen_has_no_gradient():
    maps = [Linear(4, 4), Linear(4, 4), Linear(4, 4)]
    maps[1].requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16), cast_together(maps, torch.device("cpu")):
        maps[1](maps[0](torch.ones(2, 4))).float().sum().backward()
    assert maps[0].weight.grad is not None and maps[1].weight.grad is None and maps[2].weight.grad is None


def test_in_fp32_it_is_an_ordinary_map_and_a_copy_has_maps_of_its_own():
    plain, ours = nn.Linear(4, 3), Linear(4, 3)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4)
    with cast_together([ours], torch.device("cpu")):
        assert torch.equal(ours(x), F.linear(x, plain.weight, plain.bias))
    layer = build(model=TINY).encoder.layers[0]
    copied = copy.deepcopy(layer)
    assert len(copied.linears) == 4 and copied.linears[0] is copied.self_attn.qkv_proj is not layer.linears[0]
    assert not any("linears" in name for name in layer.state_dict())
