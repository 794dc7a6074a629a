"""HybridBERT: the equations, what padding and order do to them, sizes, patterns and initial weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from builders.mean_mixer import Mean
from builders.models import AnyTask, build, lively

from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.models import flops
from entropy_mask_plugin.models.hbert import Sinusoids
from entropy_mask_plugin.models.layers import FeedForward
from entropy_mask_plugin.models.mixers import MIXERS, AdditiveAttention, SelfAttention, mixer_of
from entropy_mask_plugin.reporting import drift
from entropy_mask_plugin.system.errors import UsageError

TINY = ["--encoder-layers", "4", "--encoder-embed-dim", "12", "--encoder-ffn-embed-dim", "20",
        "--encoder-attention-heads", "3", "--max-positions", "16"]
HYBRIDS = ["hbert_v1", "hbert_v2", "addbert", "hbertlet"]


def hybrid(*flags, arch="hbert_v1"):
    torch.manual_seed(0)
    return build(*flags, model=["--arch", arch, *TINY])


def additive_attention(module, x, real):
    """Wu et al. 2021, one sentence and one head at a time, in float64."""
    linear = lambda layer, x: x @ layer.weight.double().T + layer.bias.double()  # noqa: E731
    rows = []
    for sentence, mask in zip(x.double(), real):
        queries, keys = linear(module.query_proj, sentence), linear(module.key_proj, sentence)
        heads = []
        for h in range(module.num_heads):
            size = queries.size(1) // module.num_heads
            q, k = (t[:, h * size : (h + 1) * size] for t in (queries, keys))
            w_q, w_k = (score.weight[h].double() for score in (module.query_score, module.key_score))
            weights = lambda t, w: torch.softmax((t @ w / math.sqrt(size)).masked_fill(~mask, -math.inf), 0)  # noqa
            p = k * (weights(q, w_q)[:, None] * q).sum(0)
            heads.append(q * (weights(p, w_k)[:, None] * p).sum(0))
        rows.append(linear(module.transform, torch.cat(heads, 1)) + queries)
    return torch.stack(rows)


def test_additive_attention_is_that_of_the_equations():
    attention, x = lively(AdditiveAttention(12, 3, dropout=0.0)), torch.randn(3, 7, 12)
    real = torch.ones(3, 7, dtype=torch.bool)
    real[1, 4:] = real[2, 1:] = False
    nothing = torch.zeros(3, 1, 1, 7, dtype=torch.bool)
    assert attention(x, nothing).isfinite().all()
    found = attention(x, real[:, None, None, :])
    assert torch.allclose(found.double(), additive_attention(attention, x, real), atol=2e-4)  # of up to 77
    everywhere = additive_attention(attention, x, torch.ones_like(real))
    assert torch.allclose(attention(x, None).double(), everywhere, atol=2e-4)
    assert not torch.allclose(found[1].double(), everywhere[1], atol=1e-2)


def test_additive_attention_knows_no_order():
    attention, x, order = lively(AdditiveAttention(12, 3, dropout=0.0)), torch.randn(2, 9, 12), torch.randperm(9)
    assert torch.allclose(attention(x, None)[:, order], attention(x[:, order], None), atol=1e-5)


@pytest.mark.slow
def test_a_layer_normalizes_before_and_inside_both_blocks():
    """x + Wo LN(heads(LN x)), then x + W2 LN(relu(W1 LN x)), no bias in the feed-forward block."""
    layer, x = lively(hybrid().eval().encoder.layers[0]), torch.randn(2, 5, 12)
    norm = lambda module, x: F.layer_norm(x, x.shape[-1:], module.weight, module.bias, 1e-12)  # noqa: E731
    attention = layer.self_attn
    q, k, v = (part.view(2, 5, 3, 4).transpose(1, 2)
               for part in attention.qkv_proj(norm(layer.self_attn_layer_norm, x)).chunk(3, -1))
    heads = ((q @ k.transpose(2, 3) / 2).softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 12)
    y = x + attention.out_proj(norm(attention.norm, heads))
    inner = torch.relu(norm(layer.final_layer_norm, y) @ layer.ffn.fc1.weight.T)
    expected = y + norm(layer.ffn.norm, inner) @ layer.ffn.fc2.weight.T
    assert layer.ffn.fc1.bias is layer.ffn.fc2.bias is None
    assert torch.allclose(layer(x, None), expected, atol=1e-4)


def test_additive_attention_normalizes_before_its_last_map():
    attention, x = lively(hybrid(arch="addbert").eval().encoder.layers[0].self_attn), torch.randn(2, 5, 12)
    seen = []
    attention.transform.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    attention(x, None)
    norm, attention.norm = attention.norm, torch.nn.Identity()
    attention(x, None)
    assert torch.allclose(seen[0], F.layer_norm(seen[1], (12,), norm.weight, norm.bias, 1e-12), atol=1e-5)


@pytest.mark.parametrize("arch", HYBRIDS)
def test_features_are_normalized_after_the_last_layer(arch):
    model, tokens = lively(hybrid(arch=arch)).eval(), torch.randint(4, 49, (2, 9))
    x = model.encoder.embed(tokens)
    for layer in model.encoder.layers:
        x = layer(x, None)
    last = model.encoder.layer_norm
    assert torch.allclose(model.encode(tokens), F.layer_norm(x, (12,), last.weight, last.bias, 1e-12), atol=1e-4)


def test_positions_are_the_sinusoids_and_words_are_of_their_size():
    table = Sinusoids(16, 12).weight
    for t in range(16):
        for i in range(6):
            angle = t / 10000 ** (2 * i / 12)
            assert math.isclose(table[t, 2 * i], math.sin(angle), abs_tol=1e-5)
            assert math.isclose(table[t, 2 * i + 1], math.cos(angle), abs_tol=1e-5)
    model, tokens = hybrid().eval(), torch.tensor([[0, 7, 9, 2]])
    summed = math.sqrt(12) * model.encoder.embed_tokens(tokens) + table[:4]
    assert torch.allclose(model.encoder.embed(tokens), model.encoder.layernorm_embedding(summed), atol=1e-6)
    assert not any("position" in name for name in model.state_dict())


@pytest.mark.parametrize("arch", HYBRIDS)
def test_padding_changes_nothing_at_real_positions(arch):
    model = lively(hybrid(arch=arch)).eval()
    tokens = torch.randint(4, 49, (5, 16), generator=torch.Generator().manual_seed(0))
    tokens[1, 9:] = tokens[2, 2:] = tokens[3, 1:] = 1
    together = model.encode(tokens)
    for row, features in zip(tokens, together):
        n = int(row.ne(1).sum())
        assert torch.allclose(model.encode(row[None, :n])[0], features[:n], atol=1e-4)


PATTERNS = {
    "hbert_v1": "sasasasasasa", "hbert_v2": "ssaaaaaaaass", "addbert": "aaaaaaaaaaaa", "hbertlet": "saas",
}
LETTER = {SelfAttention: "s", AdditiveAttention: "a"}


@pytest.mark.parametrize("arch", HYBRIDS)
def test_an_arch_has_its_pattern_and_its_sizes(arch):
    with torch.device("meta"):
        model = build(task=AnyTask(30_522, 512), model=["--arch", arch])
    layers = model.encoder.layers
    assert "".join(LETTER[type(layer.self_attn)] for layer in layers) == PATTERNS[arch]
    width, ffn, heads = (512, 2048, 8) if arch == "hbertlet" else (768, 3072, 12)
    norms = 2 * (3 * width + ffn)
    of_layer = {"s": 4 * (width**2 + width), "a": 3 * (width**2 + width) + 2 * width}
    body = sum(of_layer[letter] + 2 * width * ffn + norms for letter in PATTERNS[arch])
    around = 30_522 * (width + 1) + 3 * 2 * width + width**2 + width  # embedding, bias; three norms; the head's map
    assert sum(p.numel() for p in model.parameters()) == body + around
    assert layers[0].self_attn.num_heads == heads
    assert model.cfg.dropout == model.cfg.attention_dropout == 0.05


def test_the_pattern_can_be_given():
    model = hybrid("--mixer-pattern", "additive, self,self,additive", arch="hbertlet")
    assert "".join(LETTER[type(layer.self_attn)] for layer in model.encoder.layers) == "assa"


@pytest.mark.parametrize("pattern, message", [
    ("self,additive", "--mixer-pattern: 2 mixers found, expected one for each of the 4 layers"),
    ("self,self,self,fourier", "--mixer-pattern: fourier found, expected one of self, additive"),
    ("", "--mixer-pattern:  found, expected one of self, additive"),
])
def test_a_pattern_that_does_not_fit_is_named(pattern, message):
    with pytest.raises(UsageError, match=message):
        hybrid("--mixer-pattern", pattern)


@pytest.mark.parametrize("layers", [2, 4])
def test_initial_weights_that_pass_values_on_are_larger_by_gamma(layers):
    flags = ["--arch", "hbert_v1", "--encoder-layers", str(layers), "--encoder-embed-dim", "512",
             "--encoder-attention-heads", "8", "--encoder-ffn-embed-dim", "1024", "--max-positions", "16",
             "--mask-decoder-layers", "1", "--mask-decoder-kind", "cross"]
    torch.manual_seed(0)
    model, gamma = build(model=flags), math.sqrt(math.log(2 * layers))
    for module in model.modules():
        scaled, plain = [], []
        if isinstance(module, SelfAttention):
            q, k, v = module.qkv_proj.weight.chunk(3)
            scaled, plain = [v, module.out_proj.weight], [q, k]
        elif isinstance(module, AdditiveAttention):
            scaled, plain = [module.transform.weight], [module.query_proj.weight, module.key_proj.weight]
        elif isinstance(module, FeedForward):
            scaled = [module.fc1.weight, module.fc2.weight]
        assert all(math.isclose(w.std(), 0.02 * gamma, rel_tol=0.02) for w in scaled)
        assert all(math.isclose(w.std(), 0.02, rel_tol=0.02) for w in plain)
    cross = model.mask_decoder.layers[0].cross_attn
    assert math.isclose(cross.kv_proj.weight[512:].std(), 0.02 * gamma, rel_tol=0.02)
    assert math.isclose(cross.kv_proj.weight[:512].std(), 0.02, rel_tol=0.02)
    torch.manual_seed(0)
    without = build("--no-gamma-init", model=flags)
    assert math.isclose(without.encoder.layers[0].self_attn.out_proj.weight.std(), 0.02, rel_tol=0.02)


def test_another_mixer_is_scaled_counted_and_reported_by_what_it_says_itself(monkeypatch):
    monkeypatch.setitem(MIXERS._entries, "mean", Entry(Mean, {}))
    flags = ["--arch", "hbertlet", *TINY, "--encoder-embed-dim", "240", "--mixer-pattern", "self,mean,mean,additive"]
    model = build(model=flags)
    gamma = math.sqrt(math.log(2 * 4))
    assert math.isclose(model.encoder.layers[1].self_attn.mean_proj.weight.std(), 0.02 * gamma, rel_tol=0.02)
    layer = flops.layer_terms(model.encoder.layers[1], 16, 1.0, 0.5, 1.0)
    assert layer == {"feed-forward": 0.5 * 2 * 240 * 20, "projections": 0.5 * 240**2, "attention": 0}
    state = model.state_dict()
    parts = [component for part, component in drift.components(state) if part == "layer 1"]
    assert parts == ["attention out", "FFN in", "FFN out", "norms"]
    assert [mixer_of(state, f"encoder.layers.{i}.self_attn.") for i in range(4)] == ["self", "mean", "mean", "additive"]
    tokens = torch.randint(4, 49, (2, 16))
    assert model(tokens)[0].isfinite().all()


@pytest.mark.parametrize("arch", HYBRIDS)
def test_bf16_is_finite_and_near_fp32(arch):
    model = lively(hybrid("--dropout", "0", "--attention-dropout", "0", arch=arch))
    tokens = torch.randint(4, 49, (3, 16), generator=torch.Generator().manual_seed(0))
    tokens[1, 5:] = 1
    exact = model(tokens)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(tokens)[0]
    rounded.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    error = (rounded.float() - exact)[tokens.ne(1)].abs().mean()
    assert error < 0.1 * exact.std()
