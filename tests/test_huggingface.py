"""Hugging Face BERTs in and out: the numbers of transformers' own model, bit for bit the same weights after a round."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import torch
import transformers
from builders.huggingface import SIZES, make_folder
from builders.training import OURS, ROOT, TINY, binarise_task, make_bert_vocabulary, train, weights
from fairseq import checkpoint_utils
from safetensors.torch import load_file, save_file

from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import import_bert, read_bert
from entropy_mask_plugin.masking.scores.entropy import projected_entropy
from entropy_mask_plugin.pretrained.teacher import load_teacher
from entropy_mask_plugin.system.errors import UsageError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    return folder, make_folder(folder, **SIZES["tiny"])


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny folder to be spoilt."""
    return shutil.copytree(tiny[0], tmp_path / "copy")


def same_text_in_both_orders(vocabulary, positions):
    """Random ids for Hugging Face and the same tokens for fairseq, 4 sentences of several lengths: B x T."""
    generator, rows = torch.Generator().manual_seed(3), torch.tensor(vocabulary.rows())
    ours = torch.randint(4, len(rows), (4, positions), generator=generator)
    keep = torch.arange(positions) < torch.tensor([positions, 5, positions - 3, 1])[:, None]
    ours[~keep] = 1
    return rows[ours], ours, keep


def loaded(checkpoint):
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], {"data": os.path.dirname(checkpoint)})
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_logits_are_those_of_transformers_both_ways(name, tmp_path):
    tokens = make_bert_vocabulary(30522 if name != "tiny" else None)
    theirs = make_folder(tmp_path / "hf", tokens=tokens, **SIZES[name])
    bert = import_bert(str(tmp_path / "hf"), str(tmp_path / "in"))
    ours = loaded(tmp_path / "in" / "model.pt")
    if name != "tiny":
        assert sum(p.numel() for p in ours.parameters()) == {"bert_base": 109_512_762, "bertlet": 28_794_170}[name]
    export_bert(str(tmp_path / "in" / "model.pt"), str(tmp_path / "out"))
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    their_ids, our_ids, keep = same_text_in_both_orders(bert.vocabulary, 40)
    with torch.no_grad():
        expected = theirs(their_ids, attention_mask=keep.long()).logits[keep]
        assert (ours(our_ids)[0][keep] - expected[:, bert.vocabulary.rows()]).abs().max() < 1e-5
        assert (back(their_ids, attention_mask=keep.long()).logits[keep] - expected).abs().max() < 1e-5


def test_import_export_import_is_bit_identical(tiny, tmp_path):
    import_bert(str(tiny[0]), str(tmp_path / "a"))
    export_bert(str(tmp_path / "a" / "model.pt"), str(tmp_path / "out"))
    import_bert(str(tmp_path / "out"), str(tmp_path / "b"))
    one, other = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in "ab")
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert one["cfg"] == other["cfg"] and one["extra_state"] == other["extra_state"]
    assert (tmp_path / "a" / "dict.txt").read_bytes() == (tmp_path / "b" / "dict.txt").read_bytes()


def test_what_export_writes_is_what_transformers_wrote(tiny, tmp_path):
    """Nothing is lost or invented, but for positions and token types, which are added up."""
    import_bert(str(tiny[0]), str(tmp_path / "in"))
    export_bert(str(tmp_path / "in" / "model.pt"), str(tmp_path / "out"))
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny[0], tmp_path / "out"))
    assert before.keys() == after.keys()
    for name in before:
        if "token_type" not in name and "position" not in name:
            assert torch.equal(before[name], after[name]), name
    config = transformers.BertConfig.from_pretrained(tmp_path / "out")
    assert [getattr(config, name) for name in SIZES["tiny"] if name != "type_vocab_size"] == [
        size for name, size in SIZES["tiny"].items() if name != "type_vocab_size"]


def test_older_files_read_the_same(tiny, copy):
    """A pickle, `gamma` and `beta`, the output projection stored twice, position ids, a next-sentence head, halves."""
    tensors = load_file(copy / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
           for name, tensor in tensors.items()}
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
    old["bert.embeddings.position_ids"] = torch.arange(70)[None]
    old["cls.seq_relationship.weight"], old["bert.pooler.dense.bias"] = torch.zeros(2, 36), torch.zeros(36)
    (copy / "model.safetensors").unlink()
    torch.save(old, copy / "pytorch_model.bin")
    read, expected = read_bert(str(copy), "--hf"), read_bert(str(tiny[0]), "--hf")
    assert read.state.keys() == expected.state.keys()
    assert all(torch.equal(read.state[name], expected.state[name]) for name in read.state)
    assert read.left_out == ["next-sentence head", "pooler"] and expected.left_out == []


def test_halves_become_fp32_and_parts_of_a_large_model_are_put_together(tiny, copy):
    tensors = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in chosen}, copy / f"model-{part}.safetensors")
    index = {"weight_map": {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    read, expected = read_bert(str(copy), "--hf").state, read_bert(str(tiny[0]), "--hf").state
    assert all(read[name].dtype == torch.float32 for name in read)
    assert torch.equal(read["lm_head.dense.weight"], expected["lm_head.dense.weight"].half().float())


@pytest.mark.slow
def test_a_bare_encoder_is_imported_with_a_fresh_head_and_is_no_teacher(tmp_path, make_task):
    make_folder(tmp_path / "hf", "BertModel", **SIZES["tiny"])
    done = subprocess.run([sys.executable, ROOT / "scripts" / "import_hf_bert.py", "--hf", tmp_path / "hf", "--out",
                           tmp_path / "in"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no masked-LM head found" in done.stdout and "left out: the pooler" in done.stdout
    task = make_task("--mask-strategy", "random")[0]
    for teacher in ("hf", "in/model.pt"):
        with pytest.raises(UsageError, match=r"--teacher: .* has no trained masked-LM head"):
            load_teacher(str(tmp_path / teacher), task)
    with pytest.raises(UsageError, match="--checkpoint: .* has no trained masked-LM head"):
        export_bert(str(tmp_path / "in" / "model.pt"), str(tmp_path / "out"))


def spoil(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def spoil_tensor(folder, name, change):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, folder / "model.safetensors")


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def only_pickle(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)


def edit_vocabulary(folder, change):
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in change(lines)), encoding="utf-8")


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
MISTAKES = [
    (lambda f: spoil(f, model_type="roberta"), r"config.json: model_type 'roberta' found, expected 'bert'"),
    (lambda f: spoil(f, model_type="distilbert"), r"model_type 'distilbert' found"),
    (lambda f: spoil(f, position_embedding_type="relative_key"), r"position_embedding_type 'relative_key' found"),
    (lambda f: spoil(f, hidden_act="gelu_new"), r"hidden_act 'gelu_new' found, expected 'gelu'"),
    (lambda f: spoil(f, is_decoder=True), r"is_decoder True found, expected False"),
    (lambda f: spoil(f, intermediate_size=51), r"intermediate.dense.bias is \(50,\), expected \(51,\)"),
    (lambda f: spoil(f, num_hidden_layers=2), r"bert.encoder.layer.2.* expected none"),
    (lambda f: spoil(f, num_hidden_layers=4), r"bert.encoder.layer.3.* is missing"),
    (lambda f: (f / "config.json").unlink(), r"config.json: No such file"),
    (lambda f: (f / "config.json").write_text("{"), r"config.json is not JSON"),
    (lambda f: (f / "vocab.txt").unlink(), r"has no vocabulary, expected tokenizer.json or vocab.txt"),
    (lambda f: (f / "model.safetensors").unlink(), r"has no weights, expected model.safetensors or pytorch_model.bin"),
    (lambda f: cut(f / "model.safetensors"), r"model.safetensors is truncated or not a safetensors file"),
    (lambda f: only_pickle(f, pickle.dumps({"a": RunsCode()})), r"pytorch_model.bin .*refused, nothing in it was run"),
    (lambda f: only_pickle(f, b"not a pickle"), r"pytorch_model.bin"),
    (lambda f: spoil_tensor(f, QUERY, lambda t: t[:, :-1]), rf"{QUERY} is \(36, 35\), expected \(36, 36\)"),
    (lambda f: edit_vocabulary(f, lambda lines: lines[:-2]),
     r"the tokenizer has (\d+), config.json has \d+, the embedding has \d+\), expected the same in each"),
    (lambda f: spoil(f, vocab_size=7000), r"config.json has 7000, the embedding has"),
    (lambda f: ((f / "config.json").unlink(), (f / "model.pt").touch()),
     r"is an imported folder, not a Hugging Face one"),
    (lambda f: ((f / "model.safetensors").unlink(),
                (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')),
     r"model-1.safetensors is missing, expected it in the folder of the index that names it"),
    (lambda f: edit_vocabulary(f, lambda lines: lines[:-1] + [lines[-2]]), r"found again at id \d+"),
    (lambda f: edit_vocabulary(f, lambda lines: [x.replace("[MASK]", "x") for x in lines]), r"has no \[MASK\]"),
    (lambda f: edit_vocabulary(f, lambda lines: lines[:-1] + ["<pad>"]), r"<pad> is an ordinary token"),
    (lambda f: edit_vocabulary(f, lambda lines: lines[:-1] + [""]), r"an empty token at id \d+, expected none"),
    (lambda f: spoil(f, num_attention_heads=5), r"5 num_attention_heads found, expected a divisor of hidden_size"),
    (lambda f: spoil(f, hidden_size="x"), r"hidden_size 'x' found, expected a number like 768"),
    (lambda f: spoil(f, architectures=["RobertaForMaskedLM"]), r"architecture RobertaForMaskedLM found, expected a BE"),
]


def test_the_tokenizer_is_found_from_any_folder(like_data, tmp_path, monkeypatch):
    """A checkpoint says where its data was from the folder in which training ran."""
    import_bert(str(like_data[0]), str(tmp_path / "project" / "corpus"))
    state = torch.load(tmp_path / "project" / "corpus" / "model.pt", weights_only=True)
    state["cfg"]["task"]["data"] = "corpus/bin"
    (tmp_path / "project" / "corpus" / "bin").mkdir()
    (tmp_path / "project" / "runs" / "one").mkdir(parents=True)
    torch.save(state, tmp_path / "project" / "runs" / "one" / "checkpoint_best.pt")
    for number, folder in enumerate((tmp_path, tmp_path / "project")):
        monkeypatch.chdir(folder)
        export_bert(str(tmp_path / "project" / "runs" / "one" / "checkpoint_best.pt"), str(tmp_path / f"out{number}"))


@pytest.mark.parametrize("said, expected", [(None, 70), (10**30, 70), (512, 70), (32, 32)])
def test_an_exported_tokenizer_does_not_promise_more_than_the_models_positions(said, expected, copy, tmp_path):
    import_bert(str(copy), str(tmp_path / "in"))
    file = tmp_path / "in" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("model_max_length", None)
    file.write_text(json.dumps({**settings, **({} if said is None else {"model_max_length": said})}))
    export_bert(str(tmp_path / "in" / "model.pt"), str(tmp_path / "out"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == expected
    assert len(tokenizer("a " * 100, truncation=True)["input_ids"]) == expected


@pytest.mark.parametrize("spoiled, message", MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_folder_that_cannot_work_is_refused_and_leaves_nothing(spoiled, message, copy, tmp_path):
    spoiled(copy)
    with pytest.raises(UsageError, match=f"^--hf: .*{message}") as caught:
        import_bert(str(copy), str(tmp_path / "in"))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"] and not os.path.exists("it-ran")


def test_an_output_projection_of_its_own_is_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] + 1
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(UsageError, match="cls.predictions.decoder.weight is not .*, expected tied weights"):
        read_bert(str(copy), "--hf")


def test_a_token_of_white_space_and_lines_of_windows_are_read(copy, tmp_path):
    edit_vocabulary(copy, lambda lines: [*lines[:-1], "\u2028"])
    text = (copy / "vocab.txt").read_text(encoding="utf-8")
    (copy / "vocab.txt").write_bytes(text.replace("\n", "\r\n").encode())
    import_bert(str(copy), str(tmp_path / "in"))
    assert "\\u2028 0" in (tmp_path / "in" / "dict.txt").read_text(encoding="utf-8").splitlines()
    loaded(tmp_path / "in" / "model.pt")  # with that dict.txt


@pytest.mark.slow
def test_a_fine_tuned_model_with_another_kind_of_input_is_refused(like_data, data_bin, tmp_path):
    import_bert(str(like_data[0]), str(tmp_path / "in"))
    binarise_task(data_bin, tmp_path / "glue")
    checkpoint = train(
        str(tmp_path / "glue"), str(tmp_path / "tuned"), "--finetune-from-model", tmp_path / "in" / "model.pt",
        "--num-classes", "2", "--max-update", "1", model=["--arch", "bert_base", *TINY[2:]],
        task=["--task", "sentence_prediction", "--criterion", "sentence_prediction"],
    )
    with pytest.raises(UsageError, match="was fine-tuned with --init-token None, expected 0, which is <s>"):
        export_bert(checkpoint, str(tmp_path / "out"), str(tmp_path / "in"))


def test_a_folder_that_import_made_stands_for_its_checkpoint(like_data, make_task, tmp_path):
    import_bert(str(like_data[0]), str(tmp_path / "in"))
    assert make_task("--mask-strategy", "high", "--teacher", tmp_path / "in")[0].teacher is not None


def test_nothing_is_overwritten(tiny, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="--out: .*there exists already"):
        import_bert(str(tiny[0]), str(tmp_path / "there"))
    with pytest.raises(UsageError, match="--out: .*there exists already"):
        export_bert("model.pt", str(tmp_path / "there"))


def test_a_name_that_is_no_folder_and_not_on_the_hub_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="--hf: no/such-model is not a folder and cannot be downloaded"):
        import_bert("no/such-model", str(tmp_path / "in"))
    with pytest.raises(UsageError, match="--hf: ./nowhere is not a folder, expected"):
        import_bert("./nowhere", str(tmp_path / "in"))


# ---- a teacher, a start, a fine-tuned model


def test_a_folder_is_a_teacher_whose_entropies_are_those_of_transformers_logits(like_data, make_task):
    folder, theirs = like_data
    task = make_task("--mask-strategy", "high", "--teacher", folder)[0]
    their_ids, our_ids, keep = same_text_in_both_orders(read_bert(str(folder), "--hf").vocabulary, 16)
    with torch.no_grad():
        logits = theirs(their_ids, attention_mask=keep.long()).prediction_logits.double()
    expected = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    found = task.scorer.exact(task.teacher, {"net_input": {"src_tokens": our_ids, "has_padding": None}})
    assert torch.allclose(found[keep].double(), expected[keep], atol=1e-5)
    assert torch.equal(found, projected_entropy(task.teacher.lm_hidden(our_ids), *task.teacher.output_projection()))


def test_a_folder_with_another_vocabulary_is_refused(tiny, make_task):
    with pytest.raises(UsageError, match=r"--teacher: .* has another vocabulary than the data: \d+ symbols, expected"):
        make_task("--mask-strategy", "high", "--teacher", tiny[0])


def test_an_imported_model_goes_on_training_with_entropy_masks_and_out_again(like_data, data_bin, tmp_path):
    folder, _ = like_data
    import_bert(str(folder), str(tmp_path / "in"))
    checkpoint = train(
        data_bin, str(tmp_path / "run"), "--restore-file", tmp_path / "in" / "model.pt", "--mask-strategy", "high",
        "--teacher", folder, "--self-mask-from-epoch", "2", "--max-epoch", "2", "--kd-weight", "0.5",
        model=["--arch", "bert_base", *TINY[2:]],
    )
    before, after = weights(tmp_path / "in" / "model.pt"), weights(checkpoint)
    assert before.keys() == after.keys() and not torch.equal(before["lm_head.bias"], after["lm_head.bias"])
    assert export_bert(checkpoint, str(tmp_path / "out"), str(tmp_path / "in")) == "BertForMaskedLM"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "mask_strategy: high" in card and "self_mask_from_epoch: 2" in card and "kd_weight: 0.5" in card
    assert "in epoch 2" in card
    exported = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    their_ids, our_ids, keep = same_text_in_both_orders(read_bert(str(folder), "--hf").vocabulary, 16)
    rows = read_bert(str(folder), "--hf").vocabulary.rows()
    with torch.no_grad():
        expected = exported(their_ids, attention_mask=keep.long()).logits[..., rows]
        found = loaded_with_data(checkpoint, data_bin)(our_ids)[0]
    assert torch.allclose(found[keep], expected[keep], atol=1e-5)


def loaded_with_data(checkpoint, data_bin):
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([checkpoint], {"data": data_bin})
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("separator", [[], ["--separator-token", "2"]])
def test_a_fine_tuned_model_becomes_a_classifier(separator, like_data, data_bin, tmp_path):
    folder, _ = like_data
    import_bert(str(folder), str(tmp_path / "in"))
    binarise_task(data_bin, tmp_path / "glue")
    checkpoint = train(
        str(tmp_path / "glue"), str(tmp_path / "tuned"), "--restore-file", tmp_path / "in" / "model.pt",
        "--num-classes", "2", "--init-token", "0", "--max-epoch", "1", "--reset-optimizer", "--reset-dataloader",
        "--reset-meters", "--reset-lr-scheduler", *separator, model=["--arch", "bert_base", *TINY[2:]],
        task=["--task", "sentence_prediction", "--criterion", "sentence_prediction"],
    )
    assert export_bert(checkpoint, str(tmp_path / "out"), str(tmp_path / "in")) == "BertForSequenceClassification"
    exported = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert set(exported.config.id2label.values()) == {"0", "1"}

    vocabulary = read_bert(str(folder), "--hf").vocabulary
    ids = tokenizer("the name", "of a file", return_tensors="pt")
    symbols = [vocabulary.rows().index(i) for i in ids["input_ids"][0].tolist()]  # fairseq's ids
    between = [2, 2] if separator else [2]
    words = [vocabulary.symbols().index(word) for word in ("the", "name", "of", "a", "file")]
    assert symbols == [0, *words[:2], *between, *words[2:], 2]
    (ours,), _, _ = checkpoint_utils.load_model_ensemble_and_task([checkpoint])
    with torch.no_grad():
        expected, _ = ours.eval()(torch.tensor([symbols]), features_only=True,
                                  classification_head_name="sentence_classification_head")
        assert torch.allclose(exported(**ids).logits, expected, atol=1e-5)


LATER = ["--arch", "bertlet_3ml", *TINY[2:]]


def test_of_a_model_that_masks_later_its_encoder_becomes_a_bert(like_data, data_bin, tmp_path):
    folder, _ = like_data
    import_bert(str(folder), str(tmp_path / "in"))
    checkpoint = train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "2", "--init-from",
                       folder, model=LATER)
    assert export_bert(checkpoint, str(tmp_path / "out"), str(tmp_path / "in")) == "BertModel"
    exported, loading = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(exported) is transformers.BertModel and not loading["unexpected_keys"]
    assert {name.split(".")[0] for name in loading["missing_keys"]} == {"pooler"}  # masked-LM pretraining has none
    vocabulary = read_bert(str(folder), "--hf").vocabulary
    their_ids, our_ids, keep = same_text_in_both_orders(vocabulary, 16)
    with torch.no_grad():
        expected = exported.eval()(their_ids, attention_mask=keep.long()).last_hidden_state
        found = loaded_with_data(checkpoint, data_bin).encode(our_ids)
    assert torch.allclose(found[keep], expected[keep], atol=1e-5)
    with pytest.raises(UsageError, match="--architecture: BertForMaskedLM found, expected BertModel: the LM head of .* "
                                         "reads its mask decoder"):
        export_bert(checkpoint, str(tmp_path / "other"), str(tmp_path / "in"), "BertForMaskedLM")
    assert not (tmp_path / "other").exists()


def test_of_any_bert_the_encoder_alone_can_be_had(like_data, tmp_path):
    import_bert(str(like_data[0]), str(tmp_path / "in"))
    model = str(tmp_path / "in" / "model.pt")
    assert export_bert(model, str(tmp_path / "out"), architecture="BertModel") == "BertModel"
    assert all(not name.startswith(("bert.", "cls.")) for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert not read_bert(str(tmp_path / "out"), "--hf").has_head
    with pytest.raises(UsageError, match="--architecture: BertForQuestionAnswering found, expected BertForMaskedLM or"):
        export_bert(model, str(tmp_path / "other"), architecture="BertForQuestionAnswering")


def test_a_hybrid_is_refused(data_bin, tmp_path):
    checkpoint = train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "1",
                       model=["--arch", "hbert_v1", *TINY[2:]])
    with pytest.raises(UsageError, match="--checkpoint: .* is of arch hbert_v1, expected a BERT: transformers has no"):
        export_bert(checkpoint, str(tmp_path / "out"))


def test_layouts_that_stock_bert_has_not_are_refused(teacher, data_bin, tmp_path):
    checkpoint = train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "1",
                       model=[*TINY, "--encoder-normalize-before"], task=OURS)
    with pytest.raises(UsageError, match="--checkpoint: .* --encoder-normalize-before, expected post-LayerNorm"):
        export_bert(checkpoint, str(tmp_path / "out"))
    with pytest.raises(UsageError, match="--tokenizer: none found in .*, expected tokenizer.model"):
        export_bert(teacher, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
