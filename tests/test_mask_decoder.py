"""Mask More and Mask Later: what the encoder sees, where, and what the decoder makes of it, for any mask of a row."""

import math

import pytest
import torch
import torch.nn.functional as F
from builders.models import AnyTask, build, lively
from builders.training import OURS, batch_of, masked_by_policy, parse, train

from entropy_mask_plugin.config import corruption_of
from entropy_mask_plugin.system.errors import UsageError

MASK = 49  # of AnyTask's 50 symbols
TINY = ["--encoder-layers", "2", "--encoder-embed-dim", "12", "--encoder-ffn-embed-dim", "20",
        "--encoder-attention-heads", "3", "--max-positions", "16", "--mask-decoder-layers", "2"]
LAYOUTS = {
    "bert": ["--arch", "bertlet"], "pre-LayerNorm": ["--arch", "bertlet", "--encoder-normalize-before"],
    "cross": ["--arch", "bertlet", "--mask-decoder-kind", "cross"],
    "hybrid": ["--arch", "hbert_v1"], "additive, cross": ["--arch", "addbert", "--mask-decoder-kind", "cross"],
}


def masked_later(layout="bert", *flags):
    torch.manual_seed(0)
    return lively(build(*flags, model=[*LAYOUTS[layout], *TINY])).eval()


@pytest.fixture
def tokens():
    """Rows with some <mask>, many, none, nothing else; padding; nothing but <mask> and padding."""
    tokens = torch.randint(4, MASK, (6, 16), generator=torch.Generator().manual_seed(0))
    tokens[0, [3, 4, 9]] = tokens[1, 1:14] = tokens[3] = tokens[4, 2:7] = tokens[5, :3] = MASK
    tokens[2, 11:] = tokens[4, 9:] = tokens[5, 3:] = 1
    return tokens


def row_by_row(model, row):
    """The encoder on the visible tokens, the decoder on all, of one sentence without its padding: T int64 -> T x C."""
    encoder, decoder = model.encoder, model.mask_decoder
    row = row[row.ne(1)]
    visible = row.ne(MASK).nonzero()[:, 0]
    x = decoder.embed_mask.weight.expand(len(row), -1)
    memory = None
    if len(visible):
        words = encoder.embed_words(row[visible]) + encoder.embed_positions.weight[visible]
        memory = encoder.layernorm_embedding(words)[None]
        for layer in encoder.layers:
            memory = layer(memory, None)
        memory = encoder.layer_norm(memory)
        x = torch.stack([memory[0, visible.tolist().index(t)] if t in visible else x[t] for t in range(len(row))])
    x = (x + decoder.embed_positions.weight[: len(row)])[None]
    for layer in decoder.layers:
        x = layer(x, None, memory=(memory, None))
    return decoder.layer_norm(x)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_those_of_the_description(layout, tokens):
    model = masked_later(layout)
    together = model.decode(tokens)
    assert together.isfinite().all()
    for i, row in enumerate(tokens):
        if "cross" in layout and not row.lt(MASK).logical_and(row.ne(1)).any():
            continue  # there is nothing to attend to: see the next test
        expected = row_by_row(model, row)
        assert torch.allclose(together[i, : len(expected)], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_show_nothing_are_finite_and_change_no_other(layout, tokens):
    model = masked_later(layout)
    both = model.decode(tokens)
    assert both.isfinite().all()
    for keep in ([0, 1, 2, 4], [3], [5]):
        alone = model.decode(tokens[keep])
        real = tokens[keep].ne(1)
        assert torch.allclose(alone[real], both[keep][real], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_encoder_never_sees_a_mask(layout, tokens):
    model = masked_later(layout)
    before = model.decode(tokens)
    with torch.no_grad():
        model.encoder.embed_tokens.weight[MASK] = math.nan
    after = model.decode(tokens)
    assert torch.equal(before, after)
    after.square().sum().backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is None or gradient.isfinite().all(), name
    assert model.encoder.embed_tokens.weight.grad[MASK].eq(0).all()


def test_the_encoder_works_on_the_visible_tokens_only(tokens, monkeypatch):
    model, shapes = masked_later(), []
    first = model.encoder.layers[0]
    first.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    model.decode(tokens[:2])
    assert shapes == [(2, 13, 12)]  # of 16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_come_at_the_chosen_positions_only(layout, tokens):
    model = masked_later(layout)
    chosen = tokens.eq(MASK) | (torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.2)
    everywhere = model(tokens)[0]
    assert torch.allclose(model(tokens, masked_tokens=chosen)[0], everywhere[chosen], rtol=1e-3, atol=1e-3)
    weight, bias = model.output_projection()
    assert torch.allclose(F.linear(model.lm_hidden(tokens), weight, bias), everywhere, rtol=1e-3, atol=1e-3)
    assert model(tokens, masked_tokens=torch.zeros_like(chosen))[0].shape == (0, 50)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fine_tuning_uses_the_encoder_alone(layout):
    model, tokens = masked_later(layout), torch.randint(4, MASK, (3, 9))
    model.register_classification_head("mood", num_classes=3)
    alone = build(model=[*LAYOUTS[layout], *TINY, "--mask-decoder-layers", "0", "--mask-decoder-kind", "self"]).eval()
    alone.register_classification_head("mood", num_classes=3)
    alone.load_state_dict({name: value for name, value in model.state_dict().items() if "mask_decoder" not in name})
    assert alone.mask_decoder is None
    model.eval(), alone.eval()  # the new heads too
    assert torch.equal(model(tokens, features_only=True)[0], alone(tokens, features_only=True)[0])
    assert torch.equal(model(tokens, classification_head_name="mood")[0],
                       alone(tokens, classification_head_name="mood")[0])


@pytest.mark.parametrize("seen", ["some", "everything", "nothing"])
def test_every_parameter_has_a_gradient_whatever_is_masked(seen):
    """Distributed training waits for each of them."""
    model = masked_later("cross")
    tokens = torch.randint(4, MASK, (2, 8))
    if seen != "everything":
        tokens[:, 2:5] = MASK
    if seen == "nothing":
        tokens[:] = MASK
    model(tokens)[0].square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_decoder_has_its_own_positions_and_vector():
    names = {name for name in masked_later().state_dict() if name.startswith("mask_decoder.")}
    assert {"mask_decoder.embed_mask.weight", "mask_decoder.embed_positions.weight"} <= names


@pytest.mark.parametrize("arch, layers, width", [("bert_base_3ml", 12, 768), ("bertlet_3ml", 4, 512)])
def test_an_arch_is_berts_with_two_more_layers(arch, layers, width):
    with torch.device("meta"):
        model, plain = (build(task=AnyTask(30_522, 512), model=["--arch", name])
                        for name in (arch, arch.removesuffix("_3ml")))
    assert len(model.encoder.layers) == layers and len(model.mask_decoder.layers) == 2
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(model) == count(plain) + 2 * count(plain.encoder.layers[0]) + 513 * width


@pytest.mark.parametrize("flags, expected", [
    ([], (0.5, 0.1, 0.1)), (["--mask-prob", "0.3"], (0.3, 0.1, 0.1)),
    (["--leave-unmasked-prob", "0", "--random-token-prob", "0"], (0.5, 0.0, 0.0)),
])
def test_an_arch_brings_its_masks_unless_they_are_given(flags, expected, data_bin):
    cfg = parse([data_bin, *OURS, "--mask-strategy", "random", "--arch", "bertlet_3ml", *flags])
    assert corruption_of(cfg.task) == expected
    cfg = parse([data_bin, *OURS, "--mask-strategy", "random", "--arch", "bertlet"])
    assert corruption_of(cfg.task) == (0.15, 0.0, 0.0)


def test_half_of_the_tokens_are_predicted_and_four_tenths_hidden(make_task):
    task, model, _ = make_task("--mask-strategy", "random", model=["--arch", "bertlet_3ml", *TINY])
    sample = batch_of(task, range(200))
    masked, _ = masked_by_policy(task, sample, model, 0)
    n = sum(sample["n_maskable"])
    assert masked["selected"].number / n == pytest.approx(0.5, abs=0.02)
    assert masked["net_input"]["src_tokens"].eq(task.mask_idx).sum() / n == pytest.approx(0.4, abs=0.02)


def test_a_run_with_the_defaults_learns(data_bin, tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-epoch", "2",
              model=["--arch", "bertlet_3ml", *TINY])
    losses = [float(record.message.split(" loss ")[1].split()[0].strip("|")) for record in caplog.records
              if record.name == "valid" and " loss " in record.message]
    assert len(losses) == 2 and max(losses) < math.log2(420)


@pytest.mark.parametrize("flags, message", [
    (["--mask-decoder-layers", "-1"], "--mask-decoder-layers: -1 found, expected 0"),
    (["--mask-decoder-layers", "0", "--mask-decoder-kind", "cross"],
     "--mask-decoder-kind: cross without a mask decoder"),
    (["--mask-decoder-kind", "causal"], "--mask-decoder-kind: causal found, expected self or cross"),
])
def test_values_out_of_range_are_named(flags, message):
    with pytest.raises(UsageError, match=message):
        masked_later("bert", *flags)
