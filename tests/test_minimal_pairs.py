"""Pseudo-log-likelihoods against loops that mask one token at a time, minimal pairs and pseudo-perplexity counted from
them; where minicons is installed, also against it."""

import csv
import json
import math
import random
import re
import shutil
import tarfile

import pytest
import torch
from builders.huggingface import SIZES, make_folder
from builders.models import AnyTask, build, lively
from builders.training import MODULES, ROOT, TINY, docstrings, make_bert_vocabulary, train
from fairseq.data import Dictionary

from entropy_mask_plugin import cli
from entropy_mask_plugin.corpus.build import prepare_corpus
from entropy_mask_plugin.corpus.settings import CorpusSettings
from entropy_mask_plugin.evaluation import minimal_pairs, pseudo_likelihood, pseudo_perplexity
from entropy_mask_plugin.evaluation.models import EvaluatedModel, read_model
from entropy_mask_plugin.evaluation.reading import Pair, read_pairs
from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.pretrained.teacher import with_separate_projection
from entropy_mask_plugin.reporting.statistics import wilson_interval
from entropy_mask_plugin.system.errors import UsageError

METRICS = pseudo_likelihood.METRICS
SPECIALS = ("<s>", "<pad>", "</s>", "<mask>")
ARCHS = {
    "bert": TINY,
    "3ml": [*TINY, "--mask-decoder-layers", "2", "--mask-decoder-kind", "cross"],
    "hbert": ["--arch", "hbert_v1", *TINY[2:]],
    "roberta": ["--arch", "roberta", *TINY[2:8], "--encoder-attention-heads", "2", "--max-positions", "16"],
}
BLIMP = ROOT.parent / "shared" / "data" / "blimp.tar.xz"


class SubwordTask(AnyTask):
    """Every third symbol continues a word."""

    def __init__(self):
        super().__init__()
        dictionary = Dictionary()
        for i in range(40):
            dictionary.add_symbol(f"##w{i}" if i % 3 == 2 else f"w{i}")
        dictionary.add_symbol("<mask>")
        self.source_dictionary = dictionary


def made_model(arch="bert"):
    task = SubwordTask()
    model = with_separate_projection("made", lively(build(task=task, model=ARCHS[arch])))
    return EvaluatedModel("made", model, task.source_dictionary.symbols, {}, None, {})


def made_sentences(model, count=12):
    """Of 1 to 14 tokens, <unk> among them."""
    draw = random.Random(1)
    texts = [draw.choices(range(3, model.mask), k=draw.randint(1, 14)) for _ in range(count)]
    return model.sentences([[5], [3], [4, 6, 6], [4, 6, 9, 12], *texts])


def in_a_loop(model, sentence, metric):
    """ln P of each token, one forward pass each."""
    tokens, symbols, values = list(sentence.tokens), model.dictionary.symbols, []
    for position, token in enumerate(tokens):
        if symbols[token] in SPECIALS:
            continue
        masked = tokens[:position] + [model.mask] + tokens[position + 1 :]
        later = position + 1
        while metric == "within_word_l2r" and symbols[tokens[later]].startswith("##"):
            masked[later] = model.mask
            later += 1
        with torch.no_grad():
            logits = model.model(torch.tensor([masked]))[0][0, position]
        values.append(float(logits.float().log_softmax(-1)[token]))
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face BERT with sharp predictions."""
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    model = make_folder(folder, **{**SIZES["tiny"], "max_position_embeddings": 200})
    for name, weight in model.named_parameters():
        weight.data *= 4 if "embeddings" in name else 1
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(folder):
    return read_model(str(folder))


def made_pairs(count=250):
    """Pieces of real text, one word of each replaced; words without a token of their own are several."""
    draw = random.Random(2)
    words = [word for name in MODULES for words in docstrings(name) for word in words if word.isascii()]
    for number in range(count):
        first, length = draw.randrange(len(words) - 20), draw.randint(1, 15)
        good = words[first : first + length]
        bad = list(good)
        bad[draw.randrange(length)] = draw.choice(words)
        if number % 5 == 0:
            bad += draw.choices(words, k=3)
        yield Pair(" ".join(good), " ".join(bad), f"paradigm{number % 3}", None, None, f"line {number}")


def write_pairs(file, pairs, **more):
    lines = [json.dumps({"sentence_good": good, "sentence_bad": bad, **more}) for good, bad in pairs]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def pair_of(good, bad):
    return Pair(good, bad, "any", None, None, "nowhere, line 1")


# ---- pseudo-log-likelihood

@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("arch", ARCHS)
def test_each_token_has_the_probability_that_a_loop_finds(arch, metric):
    model = made_model(arch)
    sentences = made_sentences(model)
    values = pseudo_likelihood.masked_log_probabilities(model.model, sentences, model.mask, metric, max_tokens=60)
    for sentence, found in zip(sentences, values):
        assert found == pytest.approx(in_a_loop(model, sentence, metric), rel=1e-5, abs=1e-5)


def test_the_two_metrics_differ_where_a_word_has_several_tokens_only():
    model = made_model()
    whole, divided = model.sentences([[4, 5, 7, 8], [4, 6, 7, 8]])  # 6 continues a word
    plain, within = (pseudo_likelihood.masked_log_probabilities(model.model, [whole, divided], model.mask, metric)
                     for metric in METRICS)
    assert plain[0] == within[0]
    assert plain[1][0] != within[1][0] and plain[1][1:] == within[1][1:]


def test_tokens_that_the_model_sees_have_the_probability_of_a_plain_pass():
    model = made_model()
    sentences = made_sentences(model)
    values = pseudo_likelihood.visible_log_probabilities(model.model, sentences, max_tokens=40)
    for sentence, found in zip(sentences, values):
        with torch.no_grad():
            logits = model.model(torch.tensor([sentence.tokens]))[0][0].log_softmax(-1)
        expected = [float(logits[at, token]) for at, token in enumerate(sentence.tokens)][1:-1]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_the_size_of_a_batch_changes_nothing(metric):
    model = made_model()
    sentences = made_sentences(model, 40)
    one, some, all_of_them = (
        pseudo_likelihood.masked_log_probabilities(model.model, sentences, model.mask, metric, max_tokens)
        for max_tokens in (1, 50, 10_000))
    for a, b, c in zip(one, some, all_of_them):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5) and a == pytest.approx(c, rel=1e-5, abs=1e-5)


def test_masked_inputs_that_both_sentences_share_are_computed_once_and_at_one_position():
    model, seen = made_model(), []

    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model.model

        def forward(self, tokens, masked_tokens, **more):
            logits = self.model(tokens, masked_tokens=masked_tokens, **more)
            seen.append((tuple(tokens.shape), tuple(logits[0].shape)))
            return logits

    sentences = model.sentences([[4, 5, 7, 8], [4, 5, 10, 8], [4, 5, 7, 8]])
    pseudo_likelihood.masked_log_probabilities(Counting(), sentences, model.mask)
    assert seen == [((7, 6), (7, len(model.dictionary)))]  # 4 + 4 - 1, and none for the repeated sentence


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["3ml", "hbert", "roberta"])
def test_a_checkpoint_is_read_without_its_data(arch, data_bin, tmp_path):
    checkpoint = train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "2", model=ARCHS[arch])
    state = torch.load(checkpoint, weights_only=True)
    state["cfg"]["task"]["data"] = "gone"
    torch.save(state, checkpoint)
    model = read_model(checkpoint)
    assert not model.model.training and not model.marks_words
    sentences = model.sentences([[7], [9, 20, 7, 300]])
    values = pseudo_likelihood.masked_log_probabilities(model.model, sentences, model.mask)
    for sentence, found in zip(sentences, values):
        assert found == pytest.approx(in_a_loop(model, sentence, "pll"), rel=1e-5)


def test_scores_are_fp32_whatever_the_weights_were_stored_in():
    task = SubwordTask()
    half = lively(build(task=task)).half()
    model = EvaluatedModel("made", half, task.source_dictionary.symbols, {}, None, {})
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}
    sentence = model.sentences([[4, 5, 6, 7]])
    with torch.autocast("cpu", torch.bfloat16):
        (values,) = pseudo_likelihood.masked_log_probabilities(model.model, sentence, model.mask)
    assert values == pytest.approx(in_a_loop(model, sentence[0], "pll"), rel=1e-5, abs=1e-5)


# ---- pairs

def test_equal_sentences_are_a_tie_and_have_the_same_score_bit_for_bit(tiny):
    pairs = [*made_pairs(20), pair_of("the value of a list", "the value of a list"), pair_of("The Value", "the value")]
    for metric in METRICS:
        *_, same, same_tokens = minimal_pairs.score_pairs(tiny, pairs, metric, max_tokens=50)
        assert same.good == same.bad and same.credit == 0.5
        assert same_tokens.good == same_tokens.bad and same_tokens.credit == 0.5  # the vocabulary is uncased
    record = minimal_pairs.summaries([same, same_tokens])[0]
    assert record["accuracy_pct"] == 50 and record["n_ties"] == 2


def test_sentences_of_one_token_and_of_unequal_lengths_are_scored(tiny):
    pairs = [pair_of("value", "list"), pair_of("the", "the value of a string"), pair_of("a", "b")]
    for scored in minimal_pairs.score_pairs(tiny, pairs):
        for text, score in ((scored.pair.good, scored.good), (scored.pair.bad, scored.bad)):
            (sentence,) = tiny.sentences(tiny.encode([text]))
            assert score == pytest.approx(sum(in_a_loop(tiny, sentence, "pll")), abs=1e-4)


def test_unknown_words_are_scored_and_counted(tiny):
    scored = minimal_pairs.score_pairs(tiny, [pair_of("the ☃ of a list", "the ☃ ☃"), pair_of("the list", "a list")])
    assert [each.n_unknown for each in scored] == [3, 0]
    (sentence,) = tiny.sentences(tiny.encode(["the ☃ of a list"]))
    assert scored[0].good == pytest.approx(sum(in_a_loop(tiny, sentence, "pll")), abs=1e-4)
    assert minimal_pairs.summaries(scored)[0]["n_pairs_with_unknown"] == 1


def test_a_model_that_was_made_to_prefer_a_word_prefers_it(folder):
    model = read_model(str(folder))
    model.model.lm_head.bias[model.dictionary.index("value")] += 100
    pairs = [pair_of(f"the value of {word}", f"the list of {word}") for word in ("a", "the", "string", "numbers")]
    swapped = [pair_of(pair.bad, pair.good) for pair in pairs]
    accuracy = [minimal_pairs.summaries(minimal_pairs.score_pairs(model, each))[0]["accuracy_pct"]
                for each in (pairs, swapped, pairs + swapped)]
    assert accuracy == [100, 0, 50]


def test_a_folder_has_the_scores_of_the_checkpoint_imported_from_it(folder, tiny, tmp_path):
    import_bert(str(folder), str(tmp_path / "in"))
    pairs = list(made_pairs(30))
    expected = minimal_pairs.score_pairs(tiny, pairs)
    for path in (tmp_path / "in", tmp_path / "in" / "model.pt"):
        assert minimal_pairs.score_pairs(read_model(str(path)), pairs) == expected


def test_intervals_are_wilsons():
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0, 0.27753), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.72247, 1), abs=1e-4)
    low, high = wilson_interval(0.5, 1)
    assert low + high == pytest.approx(1)


def test_accuracy_is_counted_by_field_term_and_paradigm():
    def scored(paradigm, field, term, good, bad, n_unknown=0):
        return minimal_pairs.ScoredPair(Pair("", "", paradigm, field, term, ""), good, bad, n_unknown)

    records = minimal_pairs.summaries([scored("a", "x", "t", -1, -2), scored("a", "x", "t", -2, -1, 1),
                                       scored("b", "x", None, -1, -1), scored("c", None, None, -1, -3)])
    assert {(each["level"], each["name"]): (each["n_pairs"], each["accuracy_pct"], each["n_ties"])
            for each in records} == {
        ("overall", "all"): (4, 62.5, 1), ("field", "x"): (3, 50, 1), ("linguistics_term", "t"): (2, 50, 0),
        ("paradigm", "a"): (2, 50, 0), ("paradigm", "b"): (1, 50, 1), ("paradigm", "c"): (1, 100, 0)}
    assert records[0]["n_pairs_with_unknown"] == 1
    text = minimal_pairs.markdown(records)
    assert "## Fields" in text and "## Linguistic terms" in text and re.search(r"\| all +\| +4 \| +62.5 % \|", text)


# ---- reading

def test_a_paradigm_is_the_uid_or_the_name_of_the_file(tmp_path):
    write_pairs(tmp_path / "second.jsonl", [("a b", "b a")] * 3)
    write_pairs(tmp_path / "first.jsonl", [("a", "b")] * 2, UID="agreement", field="syntax", linguistics_term="binding")
    (tmp_path / "notes.txt").write_text("no pairs")
    assert [(pair.paradigm, pair.field, pair.term) for pair in read_pairs(str(tmp_path))] == [
        *[("agreement", "syntax", "binding")] * 2, *[("second", None, None)] * 3]
    assert len(read_pairs(str(tmp_path / "second.jsonl"))) == 3


def test_a_limit_takes_the_first_pairs_of_each_paradigm(tmp_path):
    for name in "ab":
        write_pairs(tmp_path / f"{name}.jsonl", [(f"{name} {i}", "bad") for i in range(4)])
    assert [pair.good for pair in read_pairs(str(tmp_path), 2)] == ["a 0", "a 1", "b 0", "b 1"]
    with pytest.raises(UsageError, match="^--limit: 0 found, expected 1 or more$"):
        read_pairs(str(tmp_path), 0)


@pytest.mark.parametrize("content, message", [
    ('{"sentence_good": "a"', "line 2: not JSON"),
    ('["a", "b"]', "line 2: a list found, expected an object with sentence_good and sentence_bad"),
    ('{"sentence_good": "a"}', "line 2: no sentence_bad found, expected a sentence"),
    ('{"sentence_good": " ", "sentence_bad": "a"}', "line 2: an empty sentence_good found"),
    ('{"sentence_good": 3, "sentence_bad": "a"}', "line 2: 3 as sentence_good found"),
    (r'{"sentence_good": "\ud800", "sentence_bad": "a"}', "line 2: not JSON ('utf-8' codec can't encode"),
])
def test_a_line_that_is_no_pair_is_named(content, message, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"sentence_good": "a", "sentence_bad": "b"}\n' + content + "\n")
    with pytest.raises(UsageError, match=f"^--pairs: {file}, {re.escape(message)}") as caught:
        read_pairs(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_pairs_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin").write_bytes(b'{"sentence_good": "\xe9", "sentence_bad": "b"}\n')
    (tmp_path / "folder").mkdir()
    for name, message in (("missing", "missing does not exist, expected a file of"), ("latin", "is not UTF-8"),
                          ("folder", "without .*jsonl found, expected a folder"), ("", "holds no pairs")):
        with pytest.raises(UsageError, match=f"^--pairs: .*{message}"):
            read_pairs(str(tmp_path / name))


def test_sentences_that_the_model_cannot_read_are_refused(tiny):
    with pytest.raises(UsageError, match=r"^--pairs: nowhere, line 1: a sentence of 302 tokens found, expected at most "
                                         "the model's 200 positions$"):
        minimal_pairs.score_pairs(tiny, [pair_of("a " * 300, "a")])
    with pytest.raises(UsageError, match="^--pairs: nowhere, line 1: a sentence that is encoded to nothing found"):
        minimal_pairs.score_pairs(tiny, [pair_of("a", "\u200b\x00")])


def test_pairs_beyond_the_positions_that_were_trained_are_counted_in_a_warning(folder, caplog):
    model = read_model(str(folder))
    model.settings = {"tokens_per_sample": "4:8"}
    minimal_pairs.score_pairs(model, [pair_of("a " * 6, "a"), pair_of("a", "a " * 7), pair_of("a", "a")])
    assert [record.getMessage().split(",")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "--pairs: 1 of 3 pairs have a sentence of more than 8 tokens"]


def test_a_model_that_predicts_nan_is_refused(folder, tmp_path):
    model = read_model(str(folder))
    model.model.lm_head.bias[7] = math.nan
    (tmp_path / "text").write_text("the list\n")
    with pytest.raises(UsageError, match="^--checkpoint: .*, which predicts nan, found, expected finite weights$"):
        minimal_pairs.score_pairs(model, [pair_of("a", "b")])
    with pytest.raises(UsageError, match="predicts nan"):
        pseudo_perplexity.pseudo_perplexity(model, pseudo_perplexity.passages_of_text(model, str(tmp_path / "text")))


def test_words_of_a_vocabulary_without_marks_are_refused(teacher):
    model = read_model(teacher)
    with pytest.raises(UsageError, match="^--metric within_word_l2r: a vocabulary of 401 symbols without word bound"):
        minimal_pairs.score_pairs(model, [], "within_word_l2r")


def test_a_checkpoint_without_tokenizer_or_head_is_refused(teacher, tmp_path):
    with pytest.raises(UsageError, match="^--tokenizer: none found in "):
        minimal_pairs.score_pairs(read_model(teacher), [pair_of("a", "b")])
    make_folder(tmp_path / "encoder", "BertModel", **SIZES["tiny"])
    with pytest.raises(UsageError, match="^--checkpoint: .* has no trained masked-LM head"):
        read_model(str(tmp_path / "encoder"))


# ---- pseudo-perplexity

def test_the_pseudo_perplexity_of_a_text_is_that_of_the_loop(tiny, tmp_path):
    lines = ["the value  of a list", "", "return ☃ zyx", "a"]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    passages = pseudo_perplexity.passages_of_text(tiny, str(tmp_path / "text.txt"))
    record = pseudo_perplexity.pseudo_perplexity(tiny, passages, max_tokens=30)
    sentences = tiny.sentences(tiny.encode([" ".join(line.split()) for line in lines if line]))
    values = [value for sentence in sentences for value in in_a_loop(tiny, sentence, "pll")]
    assert record["n_words"] == 9 and record["n_tokens"] == len(values) and record["n_unknown_tokens"] == 1
    assert record["masked_log_likelihood_nats"] == pytest.approx(sum(values), rel=1e-5)
    assert record["masked_perplexity_per_word"] == pytest.approx(math.exp(-sum(values) / 9), rel=1e-4)
    assert record["masked_perplexity_per_token"] == pytest.approx(math.exp(-sum(values) / len(values)), rel=1e-4)
    seen = [value for of_sentence in pseudo_likelihood.visible_log_probabilities(tiny.model, sentences)
            for value in of_sentence]
    assert record["visible_perplexity_per_word"] == pytest.approx(math.exp(-sum(seen) / 9), rel=1e-4)


def test_a_long_line_is_cut_and_a_limit_takes_the_first_lines(tiny, tmp_path):
    (tmp_path / "text.txt").write_text("a " * 300 + "\n" + "the list\n" * 5)
    passages = pseudo_perplexity.passages_of_text(tiny, str(tmp_path / "text.txt"), 2)
    assert [[len(sentence.tokens) for sentence in passage.sentences] for passage in passages] == [[200, 104], [4]]
    assert [passage.n_words for passage in passages] == [300, 2]
    short = EvaluatedModel("made", tiny.model, tiny.dictionary.symbols, {"tokens_per_sample": 102}, tiny.path, {})
    (passage,) = pseudo_perplexity.passages_of_text(short, str(tmp_path / "text.txt"), 1)  # as long as in its training
    assert [len(sentence.tokens) for sentence in passage.sentences] == [102, 102, 102]
    (tmp_path / "empty.txt").write_text("\n \n")
    for name, message in (("empty.txt", "holds no text"), ("missing.txt", "No such file")):
        with pytest.raises(UsageError, match=f"^--text: .*{message}"):
            pseudo_perplexity.passages_of_text(tiny, str(tmp_path / name))


def test_blocks_of_a_data_bin_are_scored_as_they_are(subwords):
    dictionary = Dictionary.load(f"{subwords}/dict.txt")
    dictionary.add_symbol("<mask>")
    task = AnyTask()
    task.source_dictionary = dictionary
    model = EvaluatedModel("made", lively(build(task=task)), dictionary.symbols, {"tokens_per_sample": 12}, None, {})
    passages = pseudo_perplexity.passages_of_data(model, subwords, 5)
    assert len(passages) == 5 and all(len(passage.sentences[0].tokens) == 12 for passage in passages)
    symbols = [dictionary[token] for passage in passages for token in passage.sentences[0].tokens]
    scored = [symbol for symbol in symbols if symbol not in SPECIALS]
    record = pseudo_perplexity.pseudo_perplexity(model, passages)
    assert record["n_tokens"] == len(scored)
    assert record["n_words"] == sum(not symbol.startswith("##") for symbol in scored)
    values = [value for passage in passages for value in in_a_loop(model, passage.sentences[0], "pll")]
    assert record["masked_log_likelihood_nats"] == pytest.approx(sum(values), rel=1e-5)
    with pytest.raises(UsageError, match="^--tokens-per-sample: 17 found, expected 3 to the model's 16 positions"):
        pseudo_perplexity.passages_of_data(model, subwords, tokens_per_sample=17)


def test_data_of_another_vocabulary_or_without_words_is_refused(teacher, tiny, data_bin):
    with pytest.raises(UsageError, match="^--checkpoint: .* has another vocabulary than the data"):
        pseudo_perplexity.passages_of_data(tiny, data_bin)
    with pytest.raises(UsageError, match="^--data: a vocabulary of 401 symbols without word boundaries found"):
        pseudo_perplexity.passages_of_data(read_model(teacher), data_bin)


# ---- the commands, and other programs

@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A corpus with a SentencePiece tokenizer, and a model that was trained on it for some updates."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [" ".join(words) for name in MODULES for words in docstrings(name) if len(words) > 8]
    (folder / "text.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    prepare_corpus(CorpusSettings(str(folder / "out"), [str(folder / "text.txt")], vocab_size=600, workers=1))
    model = [*TINY[:-1], "80"]
    return str(folder / "out" / "bin"), train(str(folder / "out" / "bin"), str(folder / "run"), "--mask-strategy",
                                              "random", "--max-update", "20", model=model)


@pytest.mark.slow
def test_the_commands_print_tables_and_leave_files(pretrained, tmp_path, capsys):
    data, checkpoint = pretrained
    write_pairs(tmp_path / "order.jsonl", [("the value of a list", "value the list a of")] * 3, field="syntax")
    common = ["--checkpoint", checkpoint, "--out", str(tmp_path / "out"), "--metric", "within_word_l2r"]
    assert cli.main(["minimal-pairs", *common, "--pairs", str(tmp_path), "--limit", "2"]) is None
    assert "| all" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "minimal_pairs.json").read_text())
    assert record["metric"] == "within_word_l2r" and record["limit"] == 2
    assert [(each["level"], each["name"], each["n_pairs"]) for each in record["results"]] == [
        ("overall", "all", 2), ("field", "syntax", 2), ("paradigm", "order", 2)]
    with open(tmp_path / "out" / "pairs.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and float(rows[0]["good_nats"]) < 0 and rows[0]["good_nats"] == rows[1]["good_nats"]

    assert cli.main(["pseudo-perplexity", *common, "--data", data, "--limit", "3"]) is None
    record = json.loads((tmp_path / "out" / "pseudo_perplexity.json").read_text())
    assert record["n_passages"] == 3 and 1 < record["masked_perplexity_per_token"] < 1000
    (tmp_path / "text").write_text("the value of a list\n")
    assert cli.main(["pseudo-perplexity", *common, "--text", str(tmp_path / "text")]) is None
    assert json.loads((tmp_path / "out" / "pseudo_perplexity.json").read_text())["n_words"] == 5
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "pairs.csv", *(f"{name}.{end}" for name in ("minimal_pairs", "pseudo_perplexity") for end in
                       ("md", "csv", "json"))}
    with pytest.raises(UsageError, match="^--tokens-per-sample: --text found, expected it together with --data$"):
        cli.main(["pseudo-perplexity", *common, "--text", str(tmp_path / "text"), "--tokens-per-sample", "9"])


@pytest.mark.slow
def test_an_exported_model_has_the_scores_of_its_checkpoint(pretrained, tmp_path):
    export_bert(pretrained[1], str(tmp_path / "hf"))
    pairs = [pair for pair in made_pairs(30) if len(pair.bad) < 60]
    ours, exported = (minimal_pairs.score_pairs(read_model(path), pairs, "within_word_l2r")
                      for path in (pretrained[1], str(tmp_path / "hf")))
    assert [each.good for each in exported] == pytest.approx([each.good for each in ours], rel=1e-6)


def by_minicons(folder, texts, metric):
    """Sums of minicons' scores."""
    scorer = pytest.importorskip("minicons.scorer", reason="minicons is not installed")
    masked_lm = scorer.MaskedLMScorer(str(folder), "cpu")
    name = "original" if metric == "pll" else metric
    return [score for first in range(0, len(texts), 20) for score in masked_lm.sequence_score(
        masked_lm.tokenizer(texts[first : first + 20], padding="longest"),  # its own call is gone in transformers 5
        reduction=lambda values: values.double().sum().item(), PLL_metric=name)]


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
def test_scores_are_those_of_minicons(kind, metric, folder, request, tmp_path):
    pytest.importorskip("minicons.scorer", reason="minicons is not installed")
    if kind == "wordpiece":
        import_bert(str(folder), str(tmp_path / "in"))
        checkpoint = str(tmp_path / "in" / "model.pt")
    else:
        checkpoint = request.getfixturevalue("pretrained")[1]
    export_bert(checkpoint, str(tmp_path / "hf"))
    pairs = [pair for pair in made_pairs(260) if len(pair.bad) < 75] + [pair_of("the na☃ve list", "☃")]
    assert len(pairs) > 200
    scored = minimal_pairs.score_pairs(read_model(checkpoint), pairs, metric)
    assert scored[-1].n_unknown == 2
    for side in ("good", "bad"):
        expected = by_minicons(tmp_path / "hf", [getattr(pair, side) for pair in pairs], metric)
        assert [getattr(each, side) for each in scored] == pytest.approx(expected, abs=1e-4)


@pytest.mark.skipif(not BLIMP.exists(), reason="BLiMP is not beside this checkout")
def test_blimp_is_read_as_published(tmp_path):
    with tarfile.open(BLIMP) as archive:
        archive.extractall(tmp_path, filter="data")
    (place,) = {file.parent for file in tmp_path.rglob("*.jsonl")}
    pairs = read_pairs(str(place))
    assert len(pairs) == 67_000 and len({pair.paradigm for pair in pairs}) == 67
    assert len(read_pairs(str(place), 3)) == 201
    shutil.rmtree(place)


def test_the_vocabulary_of_these_tests_divides_words():
    """Else nothing above would tell the two metrics apart."""
    assert sum(token.startswith("##") for token in make_bert_vocabulary()) > 20
