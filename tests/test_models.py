"""The archs: sizes, registration, and that the parts of a model add up to the whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from builders.models import AnyTask, build
from builders.training import ROOT, run
from fairseq import models
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.tasks import TASK_REGISTRY

import entropy_mask_plugin  # noqa: F401
from entropy_mask_plugin.models.mixers import SelfAttention

SIZES = {"bert_base": 109_512_762, "bertlet": 28_794_170}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build().eval()


@pytest.fixture
def tokens():
    tokens = torch.randint(4, 49, (5, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 0
    tokens[1, 9:] = 1  # padding
    tokens[2, 2:] = 1
    return tokens


@pytest.mark.parametrize("arch", SIZES)
def test_an_arch_has_the_published_number_of_parameters(arch):
    model = build(task=AnyTask(30_522, 512), model=["--arch", arch])
    assert sum(p.numel() for p in model.parameters()) == SIZES[arch]


def test_the_registries_hold_our_classes():
    assert all(models.ARCH_MODEL_REGISTRY[arch].__module__.startswith("entropy_mask_plugin") for arch in SIZES)
    assert TASK_REGISTRY["entropy_masked_lm"].__module__ == "entropy_mask_plugin.task"
    assert CRITERION_REGISTRY["entropy_masked_lm"].__module__ == "entropy_mask_plugin.criterion"


@pytest.mark.slow
def test_the_package_works_as_user_dir_from_another_folder(tmp_path):
    link = tmp_path / "entropy_mask_plugin"
    link.symlink_to(ROOT / "entropy_mask_plugin")
    done = run("fairseq_cli.train", "--user-dir", "entropy_mask_plugin", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "entropy_masked_lm" in done.stdout


def test_a_default_build_sees_every_override():
    model = build("--encoder-normalize-before", "--init-std", "0.5", "--dropout", "0.3", model=["--arch", "bertlet",
                  "--encoder-layers", "3", "--encoder-embed-dim", "24", "--encoder-attention-heads", "3",
                  "--encoder-ffn-embed-dim", "40"])
    assert len(model.encoder.layers) == 3
    assert model.encoder.layers[0].ffn.fc1.weight.shape == (40, 24)
    assert model.encoder.layers[0].dropout == 0.3
    assert 0.4 < model.encoder.layers[0].ffn.fc1.weight.std() < 0.6
    assert isinstance(model.encoder.layer_norm, torch.nn.LayerNorm)


def test_parts_add_up_to_the_whole(model, tokens):
    logits, _ = model(tokens)
    features, _ = model(tokens, features_only=True)
    weight, bias = model.output_projection()
    assert torch.equal(features, model.encode(tokens))
    assert torch.allclose(logits, F.linear(model.lm_hidden(tokens), weight, bias), atol=1e-6)
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    assert torch.allclose(model(tokens, masked_tokens=chosen)[0], logits[chosen], atol=1e-6)
    assert model(tokens, masked_tokens=torch.zeros_like(chosen))[0].shape == (0, 50)


@pytest.mark.parametrize("layout", [[], ["--encoder-normalize-before"]])
def test_padding_changes_nothing_at_real_positions(layout, tokens):
    torch.manual_seed(0)
    model = build(*layout).eval()
    together = model.encode(tokens)
    for row, features in zip(tokens, together):
        n = int(row.ne(1).sum())
        assert torch.allclose(model.encode(row[None, :n])[0], features[:n], atol=1e-5)


def test_attention_is_the_textbooks():
    torch.manual_seed(0)
    attention, x = SelfAttention(12, 3, dropout=0.0), torch.randn(2, 5, 12)
    attend = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    attend[1, ..., 3:] = False
    weight, bias = attention.qkv_proj.weight, attention.qkv_proj.bias
    q, k, v = (F.linear(x, w, b).view(2, 5, 3, 4).transpose(1, 2) for w, b in zip(weight.chunk(3), bias.chunk(3)))
    scores = (q @ k.transpose(2, 3) / math.sqrt(4)).masked_fill(~attend, -math.inf)
    expected = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 12)
    assert torch.allclose(attention(x, attend), attention.out_proj(expected), atol=1e-6)


def test_a_layer_is_berts():
    """Post-LayerNorm: x = LN(x + attention(x)); x = LN(x + ffn(x)), erf-GELU, epsilon 1e-12."""
    torch.manual_seed(0)
    layer, x = build().encoder.layers[0].eval(), torch.randn(2, 5, 32)

    def norm(module, x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt() * module.weight + module.bias

    y = norm(layer.self_attn_layer_norm, x + layer.self_attn(x, None))
    inner = layer.ffn.fc1(y)
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    assert torch.allclose(layer(x, None), norm(layer.final_layer_norm, y + layer.ffn.fc2(inner)), atol=1e-5)


def test_initial_weights_are_berts():
    torch.manual_seed(0)
    model = build(task=AnyTask(2000, 16), model=["--arch", "bertlet", "--encoder-layers", "1"])
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert parameter.eq(1.0 if name.endswith("weight") else 0.0).all()
        elif name.endswith("bias"):
            assert parameter.eq(0).all()
        else:
            assert 0.019 < parameter.std() < 0.021
    assert model.encoder.embed_tokens.weight[1].eq(0).all()


def test_heads_come_back_from_a_checkpoint_only_when_asked(tokens):
    tuned = build()
    tuned.register_classification_head("mood", num_classes=3)
    plain = build()
    plain.load_state_dict(tuned.state_dict())
    assert "mood" not in plain.classification_heads
    loaded = build("--load-checkpoint-heads")
    loaded.load_state_dict(tuned.state_dict())
    expected, _ = tuned.eval()(tokens, classification_head_name="mood")
    assert expected.shape == (5, 3)
    assert torch.equal(loaded.eval()(tokens, classification_head_name="mood")[0], expected)
