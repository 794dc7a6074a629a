"""Text gets the same ids here and in transformers: SentencePiece as a fast tokenizer, WordPiece in a corpus."""

import io
import itertools
import json
import os
import random
import re

import pytest
import sentencepiece
import transformers
from builders.training import OURS, TINY, TRAINING, make_bert_vocabulary, parse, train
from fairseq import tasks
from fairseq.data.data_utils import load_indexed_dataset

from entropy_mask_plugin.corpus.build import prepare_corpus
from entropy_mask_plugin.corpus.docstrings import Docstrings
from entropy_mask_plugin.corpus.settings import CorpusSettings
from entropy_mask_plugin.corpus.sources import one_line
from entropy_mask_plugin.corpus.tokenizer_training import SCORE_UNIT, train_tokenizer
from entropy_mask_plugin.corpus.wordpiece import WordPieceTokenizer
from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.huggingface.sentencepiece_model import SentencePieceTokenizer
from entropy_mask_plugin.huggingface.tokenizer_files import bert_files, read_tokenizer_files
from entropy_mask_plugin.system.errors import UsageError

SENTENCES = [
    "Zürich, Ærøskøbing, Łódź und Ñuñoa: naïve façades", "Ελλάδα, Россия, Україна; ＦＵＬＬ　ＷＩＤＴＨ, half ｶﾅ",
    "Tiếng Việt có dấu: đường phố Hà Nội", "日本語のテキスト～テスト、中文文本。한국어 문장입니다.",
    "नमस्ते दुनिया, বাংলা লেখা, ไทยก็มี",
    "العَرَبِيَّة‎ עִבְרִית (right to left)", "e\u0301 a\u0308 o\u0302\u0301 decomposed, ﬁ ﬂ ligatures, ½ ² ™ ㎏ Ⅷ",
    "emoji 🙂👩‍👩‍👧 and 🇨🇭, maths ∑∫√≠𝔸𝒳, arrows →⇒",
    "tabs\tand  two blanks,\u00a0hard\u2003em\u200bzero\u00ad",
    "a (\u00a0\u0334\u00a0) b", "", "   ", " leading and trailing ", "0000 1000000 aaaaaaa .....", "▁ literal ▁blank▁",
]


@pytest.fixture(scope="module")
def lines():
    """10,000 lines of real text, and made ones of many scripts."""
    real = itertools.chain.from_iterable(document.lines for document in Docstrings().documents())
    real = (line for line in real if not re.search("<(s|/s|pad|unk|mask)>", line))
    draw = random.Random(0)
    words = [word for sentence in SENTENCES for word in sentence.split(" ")]
    made = [" ".join(draw.choices(words, k=12)) for _ in range(1000)]
    return list(itertools.islice(real, 10_000)) + SENTENCES + made


@pytest.fixture(scope="module")
def model(lines):
    return train_tokenizer(lines[:3000] + lines[-1000:], 1500, 1)


def foreign_model(lines, **options):
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=writer, vocab_size=800,
                                             control_symbols=["<pad>", "<mask>"], minloglevel=2, **options)
    return writer.getvalue()


def symbols_of(tokenizer):
    return ["<s>", "<pad>", "</s>", "<unk>", *(tokenizer.names[i] for i in tokenizer.dictionary_ids), "<mask>"]


def as_folder(files, folder):
    """What an exported model has of a tokenizer."""
    folder.mkdir()
    for name, content in files.files.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def exported(model, folder):
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model)
    tokenizer = SentencePieceTokenizer(model, "test")
    files = read_tokenizer_files(str(folder / "tokenizer.model"), symbols_of(tokenizer), 99)
    return tokenizer, as_folder(files, folder / "hf")


def differences(tokenizer, theirs, lines):
    """Lines that get other ids in transformers than <s>, what SentencePiece says, </s>."""
    ids = {symbol: i for i, symbol in enumerate(symbols_of(tokenizer))}
    expected = [[0, *(ids.get(tokenizer.names[i], 3) for i in encoded), 2] for encoded in tokenizer.encode(lines, 1)]
    return [line for line, one, other in zip(lines, expected, theirs(lines)["input_ids"]) if one != other]


@pytest.mark.slow
def test_sentencepiece_gives_the_same_ids_in_transformers_on_every_line(model, lines, tmp_path):
    tokenizer, theirs = exported(model, tmp_path / "t")
    assert differences(tokenizer, theirs, lines) == []
    assert theirs.mask_token == "<mask>" and theirs.mask_token_id == len(theirs) - 1
    assert theirs.model_max_length == 99


@pytest.mark.parametrize("options", [
    dict(model_type="bpe"), dict(model_type="bpe", byte_fallback=True), dict(byte_fallback=True),
    dict(normalization_rule_name="nfkc"), dict(normalization_rule_name="nmt_nfkc_cf"),
    dict(normalization_rule_name="identity"), dict(add_dummy_prefix=False),
    dict(remove_extra_whitespaces=False), dict(split_by_whitespace=False), dict(unk_piece="[UNK]"),
], ids=str)
def test_other_kinds_of_sentencepiece_models_too(options, lines, tmp_path):
    lines = [one_line(line) for line in lines[:1500] + lines[-1015:-600]  # as every line of a corpus is
             if "▁" not in line]
    tokenizer, theirs = exported(foreign_model(lines, **options), tmp_path / "t")
    assert len(differences(tokenizer, theirs, lines)) <= 2  # its scores are not exact: see `with_exact_scores`


def test_models_that_cannot_become_fast_tokenizers_are_refused(lines, tmp_path):
    for options, reason in ((dict(model_type="char"), "its type is neither unigram nor bpe"),
                            (dict(user_defined_symbols=["◊"]), "it has user-defined symbols"),
                            (dict(treat_whitespace_as_suffix=True), "it marks the end of words")):
        (tmp_path / "m.model").write_bytes(foreign_model(lines[:300], **options, hard_vocab_limit=False))
        tokenizer = SentencePieceTokenizer((tmp_path / "m.model").read_bytes(), "test")
        with pytest.raises(UsageError, match=f"--tokenizer: .* cannot become a fast tokenizer: {reason}"):
            read_tokenizer_files(str(tmp_path / "m.model"), symbols_of(tokenizer), 99)


def test_a_mask_in_the_text_keeps_the_blanks_around_it(model, tmp_path):
    tokenizer, theirs = exported(model, tmp_path / "t")
    tokens = theirs.convert_ids_to_tokens(theirs("return the <mask> of the <mask>.")["input_ids"])
    at = [i for i, token in enumerate(tokens) if token == "<mask>"]
    assert len(at) == 2 and tokens[at[0] + 1].startswith("▁") and not tokens[at[1] + 1].startswith("▁")


def test_scores_are_sums_that_fp32_holds_exactly(model):
    processor = SentencePieceTokenizer(model, "test").processor
    scores = [processor.get_score(i) / SCORE_UNIT for i in range(len(processor))]
    assert all(score == round(score) for score in scores) and len(set(scores)) > 500


def test_a_tokenizer_of_another_vocabulary_is_refused(model, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    symbols = symbols_of(SentencePieceTokenizer(model, "test"))
    with pytest.raises(UsageError, match="--tokenizer: .* 1500 symbols as expected, but at id 7 it has"):
        read_tokenizer_files(str(tmp_path / "tokenizer.model"), [*symbols[:7], "other", *symbols[8:]], 99)


# ---- WordPiece


def write_vocabulary(folder, cased):
    folder.mkdir()
    tokens = make_bert_vocabulary()
    if cased:
        tokens += [letter.upper() for letter in "abcdefghij"] + ["The", "Return", "##Error"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cased", [False, True])
def test_wordpiece_ids_are_those_of_transformers(cased, lines, tmp_path):
    folder = write_vocabulary(tmp_path / "v", cased)
    ours = WordPieceTokenizer(str(folder / "vocab.txt"))  # nothing but the vocabulary says whether it is cased
    slow_words = transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=not cased)
    lines = [line for line in lines if "[" not in line]  # transformers takes "[SEP]" in a text for the special token
    expected = slow_words(lines, add_special_tokens=False)["input_ids"]
    assert ours.encode(lines, 2) == expected
    theirs = as_folder(bert_files(str(folder / "vocab.txt"), "--hf"), tmp_path / "hf")
    assert theirs(lines, add_special_tokens=False)["input_ids"] == expected
    assert theirs("the", "name")["token_type_ids"] == [0, 0, 0, 1, 1]
    slow_words.save_pretrained(tmp_path / "saved")
    assert WordPieceTokenizer(str(tmp_path / "saved")).encode(lines, 2) == expected


def test_files_that_do_not_say_everything_mean_what_transformers_takes_them_for(lines, tmp_path):
    """A config without do_lower_case; a tokenizer.json without the type of its model; a word that was added."""
    lines = [line for line in lines[:500] if "[" not in line] + ["the covid19 file"]
    folder = write_vocabulary(tmp_path / "v", cased=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert WordPieceTokenizer(str(folder)).encode(lines, 1) == theirs(lines, add_special_tokens=False)["input_ids"]

    theirs.add_tokens(["covid19"])
    theirs.save_pretrained(tmp_path / "added")
    path = tmp_path / "added" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"].pop("type", None)
    path.write_text(json.dumps(content))
    ours = WordPieceTokenizer(str(tmp_path / "added"))
    assert ours.encode(lines, 1) == theirs(lines, add_special_tokens=False)["input_ids"]
    assert "covid19" in [ours.names[i] for i in ours.encode(lines, 1)[-1]]


def test_words_that_are_cut_by_other_rules_are_refused(tmp_path):
    folder = write_vocabulary(tmp_path / "v", cased=False)
    (folder / "tokenizer_config.json").write_text(json.dumps({"word_tokenizer_type": "mecab"}))
    with pytest.raises(UsageError, match="--bert-vocab: .*word_tokenizer_type 'mecab' found, expected 'basic'"):
        WordPieceTokenizer(str(folder))


def test_an_uncased_vocabulary_may_have_specials_in_capitals(tmp_path):
    folder = write_vocabulary(tmp_path / "v", cased=False)
    (folder / "vocab.txt").open("a", encoding="utf-8").write("<S>\n<T>\n")
    assert WordPieceTokenizer(str(folder / "vocab.txt")).encode(["The"], 1) == WordPieceTokenizer(
        str(folder / "vocab.txt")).encode(["the"], 1)


def test_special_tokens_in_a_text_are_text(tmp_path):
    ours = WordPieceTokenizer(str(write_vocabulary(tmp_path / "v", False)))
    (ids,) = ours.encode(["the [SEP] </s> [MASK]"], 1)
    assert not {"<s>", "</s>", "<pad>", "<mask>"} & {ours.names[i] for i in ids}


def test_a_wordpiece_corpus_has_the_dictionary_and_the_files_of_its_vocabulary(tmp_path, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.corpus.build.binarize", lambda *arguments: os.mkdir(arguments[3]))
    folder = write_vocabulary(tmp_path / "v", False)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Return the value number {i}, {'x' * 200}." for i in range(20)), encoding="utf-8")
    out = str(tmp_path / "out")
    prepare_corpus(CorpusSettings(out=out, text=[str(text)], bert_vocab=str(folder), valid_fraction=0.2))
    pieces = [line.rsplit(" ", 1) for line in (tmp_path / "out" / "dict.txt").read_text(encoding="utf-8").splitlines()]
    tokens = make_bert_vocabulary()
    assert [piece for piece, _ in pieces] == [t for t in tokens if not re.fullmatch(r"\[[A-Z]+\]", t)]
    train_text = (tmp_path / "out" / "encoded" / "train.txt").read_text(encoding="utf-8")
    assert dict(pieces)["return"] == str(train_text.split().count("return")) != "0"
    assert "<unk>" in train_text.split() and "[UNK]" not in train_text  # a word of more than 100 letters
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    assert (tmp_path / "out" / "tokenizer.json").exists()
    with pytest.raises(UsageError, match="--vocab-size 7: .* makes a dictionary of"):
        prepare_corpus(CorpusSettings(out=str(tmp_path / "b"), text=[str(text)], bert_vocab=str(folder), vocab_size=7))
    with pytest.raises(UsageError, match="--tokenizer and --bert-vocab: both found"):
        CorpusSettings(out=str(tmp_path / "b"), text=[str(text)], bert_vocab=str(folder), tokenizer="x")
    with pytest.raises(UsageError, match="--bert-vocab: .*nowhere has no vocabulary"):
        prepare_corpus(CorpusSettings(out=str(tmp_path / "b"), text=[str(text)], bert_vocab=str(tmp_path / "nowhere")))


@pytest.mark.slow
def test_fairseq_reads_a_data_bin_of_berts_size_with_the_ids_of_the_vocabulary(tmp_path):
    """30,522 symbols, no made-up words, <mask> last; through fairseq-preprocess itself."""
    tokens = make_bert_vocabulary(30_522)
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    documents = [f"Return the value number {i} of the list." for i in range(20)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    prepare_corpus(CorpusSettings(out=str(tmp_path / "out"), text=[str(tmp_path / "text.txt")],
                            bert_vocab=str(tmp_path / "vocab.txt"), valid_fraction=0.2))
    flags = [*TRAINING, *OURS, *TINY, "--mask-strategy", "random"]
    task = tasks.setup_task(parse([tmp_path / "out" / "bin", *flags]).task)
    symbols = task.source_dictionary.symbols
    assert len(symbols) == 30_522 and symbols[-1] == "<mask>" and not any("madeupword" in symbol for symbol in symbols)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    lines = load_indexed_dataset(str(tmp_path / "out" / "bin" / "train"), task.source_dictionary)
    read = [[symbols[i] for i in line.tolist()[:-1]] for line in lines if len(line) > 1]
    assert read and all(line in [reference.tokenize(document) for document in documents] for line in read)


# ---- end to end


@pytest.mark.slow
def test_a_sentencepiece_model_goes_out_fills_masks_and_comes_in_again(lines, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(lines[:400]), encoding="utf-8")
    corpus = tmp_path / "corpus"
    prepare_corpus(CorpusSettings(out=str(corpus), text=[str(text)], vocab_size=400, valid_fraction=0.1))
    checkpoint = train(str(corpus / "bin"), str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "3",
                       model=TINY, task=OURS)
    export_bert(checkpoint, str(tmp_path / "out"))  # the tokenizer is found beside the data-bin
    (best, *_) = transformers.pipeline("fill-mask", str(tmp_path / "out"))("return the <mask> of the list")
    assert 0 < best["score"] < 1 and best["sequence"].startswith("return the")
    bert = import_bert(str(tmp_path / "out"), str(tmp_path / "in"))
    assert bert.vocabulary.symbols()[4:-1] == [
        line.rsplit(" ", 1)[0] for line in (corpus / "dict.txt").read_text(encoding="utf-8").splitlines()]
    assert (tmp_path / "in" / "tokenizer.model").read_bytes() == (corpus / "tokenizer.model").read_bytes()
