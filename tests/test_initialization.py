"""--init-from: what is copied, what stays random, what is said."""

import pytest
import torch
from builders.training import TINY, train, weights

from entropy_mask_plugin.huggingface.importing import import_bert, read_bert
from entropy_mask_plugin.pretrained.initialization import spread
from entropy_mask_plugin.system.errors import UsageError

RANDOM = ["--mask-strategy", "random", "--max-epoch", "1"]
HYBRID = ["--arch", "hbert_v1", *TINY[2:]]
DEEP = [*TINY, "--encoder-layers", "4"]


def untrained(task, *flags, model, make_task):
    return make_task(*RANDOM, *flags, model=model)[1].state_dict()


@pytest.fixture
def begun(make_task, caplog):
    """(weights with --init-from, without, what the log says)."""

    def begin(source, *flags, model):
        plain = untrained(None, model=model, make_task=make_task)
        with caplog.at_level("INFO"):
            found = untrained(None, "--init-from", str(source), *flags, model=model, make_task=make_task)
        return found, plain, caplog.text

    return begin


def test_a_hybrid_takes_self_attention_feed_forward_embeddings_and_head(teacher, begun):
    found, plain, log = begun(teacher, model=HYBRID)
    source = weights(teacher)
    taken = {"encoder.embed_tokens.weight", "encoder.layers.0.self_attn.qkv_proj.weight",
             "encoder.layers.0.self_attn.qkv_proj.bias", "encoder.layers.0.self_attn.out_proj.weight",
             "encoder.layers.0.self_attn.out_proj.bias", *(f"encoder.layers.{i}.ffn.{fc}.weight" for i in (0, 1)
                                                           for fc in ("fc1", "fc2")),
             *(name for name in source if name.startswith("lm_head."))}
    for name, tensor in found.items():
        assert torch.equal(tensor, source[name] if name in taken else plain[name]), name
    assert "new: encoder.layers.self_attn.query_proj of layers 1" in log
    assert "new: encoder.layers.self_attn_layer_norm of layers 0, 1" in log
    assert "copied: encoder.layers.self_attn.qkv_proj of layers 0" in log
    assert "not used: encoder.embed_positions" in log
    assert "not used: encoder.layers.ffn.fc1.bias of its layers 0, 1" in log
    assert "copied: encoder.layers.ffn.fc1.weight of layers 0, 1" in log


def test_a_model_of_the_same_layout_takes_everything(teacher, begun):
    found, _, _ = begun(teacher, model=TINY)
    assert all(torch.equal(tensor, weights(teacher)[name]) for name, tensor in found.items())


def test_norms_of_another_layout_stay(teacher, begun):
    found, plain, _ = begun(teacher, model=[*TINY, "--encoder-normalize-before"])
    norms = [name for name in found if "norm" in name and "lm_head" not in name]
    assert norms and all(torch.equal(found[name], plain[name]) for name in norms)
    others = found.keys() - set(norms)
    assert all(torch.equal(found[name], weights(teacher)[name]) for name in others)


def test_a_mask_decoder_stays_random(teacher, begun):
    found, plain, log = begun(teacher, model=[*TINY, "--mask-decoder-layers", "1"])
    for name, tensor in found.items():
        of = plain if name.startswith("mask_decoder.") else weights(teacher)
        assert torch.equal(tensor, of[name]), name
    assert "new: mask_decoder.embed_mask" in log


def test_a_norm_inside_a_mixer_is_not_copied_to_another_mixer(data_bin, begun, tmp_path):
    source = train(data_bin, str(tmp_path / "v1"), *RANDOM, "--max-update", "3", model=HYBRID)
    found, plain, _ = begun(source, "--mixer-pattern", "additive,additive", model=HYBRID)
    of_source = weights(source)
    same = {name for name in found.keys() & of_source.keys() if torch.equal(found[name], of_source[name])}
    assert not any(name.startswith("encoder.layers.0.self_attn.") for name in same)
    assert {"encoder.layers.1.self_attn.norm.weight", "encoder.layers.1.self_attn.query_proj.weight",
            "encoder.layers.0.self_attn_layer_norm.weight", "encoder.layer_norm.weight"} <= same
    inside = "encoder.layers.0.self_attn.norm.weight"
    assert torch.equal(found[inside], plain[inside]) and not torch.equal(found[inside], of_source[inside])


def test_a_head_that_was_never_trained_is_not_copied(data_bin, begun, tmp_path):
    from builders.huggingface import make_folder

    with open(f"{data_bin}/dict.txt", encoding="utf-8") as file:
        symbols = [line.rsplit(" ", 1)[0] for line in file]
    make_folder(tmp_path / "hf", "BertModel", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *symbols], hidden_size=32,
                num_hidden_layers=2, intermediate_size=64, num_attention_heads=2, max_position_embeddings=16)
    import_bert(str(tmp_path / "hf"), str(tmp_path / "in"))
    for source in (tmp_path / "hf", tmp_path / "in"):
        found, plain, log = begun(source, model=TINY)
        assert torch.equal(found["lm_head.dense.weight"], plain["lm_head.dense.weight"])
        assert "new: lm_head.dense" in log and "copied: lm_head" not in log


@pytest.mark.parametrize("flags, layers", [([], [0, 3]), (["--init-layers", "1,2"], [1, 2])])
def test_a_shallower_model_takes_some_layers(flags, layers, data_bin, begun, tmp_path):
    deep = train(data_bin, str(tmp_path / "deep"), *RANDOM, "--max-update", "1", model=DEEP)
    found, _, log = begun(deep, *flags, model=TINY)
    for ours, theirs in enumerate(layers):
        for name in ("self_attn.qkv_proj.weight", "ffn.fc2.bias", "final_layer_norm.weight"):
            expected = weights(deep)[f"encoder.layers.{theirs}.{name}"]
            assert torch.equal(found[f"encoder.layers.{ours}.{name}"], expected)
    assert f"layers taken: {layers[0]}, {layers[1]}" in log


def test_a_hugging_face_folder_is_a_source_and_so_is_an_imported_one(like_data, begun, tmp_path):
    folder, _ = like_data
    bert = read_bert(str(folder), "--hf")
    import_bert(str(folder), str(tmp_path / "in"))
    for source in (folder, tmp_path / "in"):
        found, _, _ = begun(source, model=HYBRID)
        for name in ("encoder.embed_tokens.weight", "encoder.layers.0.self_attn.qkv_proj.weight", "lm_head.bias",
                     "encoder.layers.1.ffn.fc1.weight"):
            assert torch.equal(found[name], bert.state[name]), name


def test_layers_are_spread_from_the_first_to_the_last():
    assert spread(4, 12) == [0, 4, 7, 11] and spread(1, 12) == [0] and spread(6, 12) == [0, 2, 4, 7, 9, 11]
    assert spread(3, 3) == [0, 1, 2] and spread(3, 2) == [0, 1, None]


def test_a_longer_table_of_positions_gives_its_first_rows(data_bin, begun, tmp_path):
    long = train(data_bin, str(tmp_path / "long"), *RANDOM, "--max-update", "1", model=[*TINY, "--max-positions", "40"])
    found, _, _ = begun(long, model=TINY)
    assert torch.equal(found["encoder.embed_positions.weight"], weights(long)["encoder.embed_positions.weight"][:16])


def test_a_run_that_goes_on_does_not_begin_again(data_bin, teacher, tmp_path, caplog):
    flags = ["--mask-strategy", "random", "--init-from", teacher]
    train(data_bin, str(tmp_path / "run"), *flags, "--max-epoch", "1")
    with caplog.at_level("INFO"):
        train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", "--init-from", str(tmp_path / "gone.pt"),
              "--max-epoch", "2")
    assert "--init-from: not read again" in caplog.text


def test_a_checkpoint_that_began_so_loads_without_its_source(data_bin, teacher, make_task, tmp_path):
    source = tmp_path / "source.pt"
    source.write_bytes(open(teacher, "rb").read())
    begun = train(data_bin, str(tmp_path / "run"), *RANDOM, "--max-update", "1", "--init-from", source)
    source.unlink()
    task, _, _ = make_task("--mask-strategy", "high", "--teacher", begun)
    assert task.teacher is not None


@pytest.mark.parametrize("flags, model, message", [
    ([], ["--arch", "bertlet", "--encoder-embed-dim", "64", "--encoder-ffn-embed-dim", "64",
          "--encoder-attention-heads", "2", "--max-positions", "16"],
     r"--init-from: .* with encoder_embed_dim 32 found, expected 64 \(--encoder-embed-dim\)"),
    ([], [*TINY, "--encoder-ffn-embed-dim", "96"], "encoder_ffn_embed_dim 64 found, expected 96"),
    ([], [*TINY, "--encoder-attention-heads", "4"], "encoder_attention_heads 2 found, expected 4"),
    (["--init-layers", "0"], TINY, "--init-layers: 1 layers found, expected one for each of the model's 2"),
    (["--init-layers", "0,7"], TINY, "--init-layers: 7 found, expected layers of .*, 0 to 1"),
    (["--init-layers", "0,x"], TINY, "--init-layers: 0,x found, expected numbers"),
    (["--finetune-from-model", "x.pt"], TINY, "--init-from together with --finetune-from-model"),
])
def test_what_does_not_fit_is_named(flags, model, message, teacher, make_task):
    with pytest.raises(UsageError, match=message):
        make_task("--mask-strategy", "random", "--init-from", teacher, *flags, model=model)


@pytest.mark.parametrize("wrong, message", [
    ("nowhere.pt", "--init-from: nowhere.pt does not exist"), ("HALF", "truncated or not a checkpoint"),
])
def test_a_source_that_cannot_be_read_is_named(wrong, message, teacher, make_task, tmp_path):
    if wrong == "HALF":
        content = open(teacher, "rb").read()
        wrong = tmp_path / "half.pt"
        wrong.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=message):
        make_task("--mask-strategy", "random", "--init-from", str(wrong))


def test_layers_without_a_source_are_named(make_task):
    with pytest.raises(UsageError, match="--init-layers: 0,1 without --init-from found"):
        make_task("--mask-strategy", "random", "--init-layers", "0,1")
