"""Text to data-bin: what is a document, which split is it in, what is left after an error or an interrupt?"""

import glob
import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import datasets
import numpy as np
import pytest

from entropy_mask_plugin.corpus import build, parts, sources
from entropy_mask_plugin.corpus.binarize import binarize
from entropy_mask_plugin.corpus.build import prepare_corpus
from entropy_mask_plugin.corpus.docstrings import Docstrings
from entropy_mask_plugin.corpus.encoding import EncodedText, encode_corpus
from entropy_mask_plugin.corpus.index import read_sizes, write_index
from entropy_mask_plugin.corpus.public_datasets import PublicDatasetSource, detokenize_wikitext
from entropy_mask_plugin.corpus.settings import CorpusSettings
from entropy_mask_plugin.corpus.sources import Document, TextFiles, documents_of_file, one_line
from entropy_mask_plugin.corpus.splits import digest_of, split_of, validation_limit
from entropy_mask_plugin.corpus.survey import LineSample, survey
from entropy_mask_plugin.corpus.tokenizer_training import train_tokenizer
from entropy_mask_plugin.huggingface.sentencepiece_model import SentencePieceTokenizer
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.system.locks import exclusive_lock

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts", "prepare_corpus.py")
SPECIALS = "text that holds <mask> and <s> and </s> and <unk> and <pad> literally, x<mask>y (<unk>)"
VOCABULARY = 400


def made_documents(count, lines=6, words=25):
    """Nonsense with the letter statistics of words: documents of lines, all different."""
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    lexicon = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(800)]
    line = lambda: " ".join(rng.choices(lexicon, k=words))  # noqa: E731
    return [[line() for _ in range(lines)] + [SPECIALS] for _ in range(count)]


def write_text(path, documents):
    path.write_text("\n\n".join("\n".join(lines) for lines in documents) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", made_documents(60))


@pytest.fixture(scope="module")
def tokenizer():
    lines = [line for document in made_documents(60) for line in document]
    return SentencePieceTokenizer(train_tokenizer(lines, VOCABULARY, 1), "test")


@pytest.fixture(scope="module")
def tokenizer_file(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "some.model"
    path.write_bytes(tokenizer.model)
    return str(path)


@pytest.fixture
def without_fairseq(monkeypatch):
    """The data-bin stage only makes its folder: most tests are about what comes before."""
    monkeypatch.setattr(build, "binarize", lambda *arguments: os.mkdir(arguments[3]))


def encode(source, tokenizer, limit, shards, workers, folder):
    """The text encoded to `folder`; returns (counts, occurrences of each token)."""
    text = EncodedText(str(folder), tokenizer, limit, shards)
    encode_corpus(text, source, workers)
    return text.counts, text.token_counts


def contents(folder):
    """{path below the folder: bytes} of everything that has to be equal between two runs."""
    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name != "corpus.json"]
    return {os.path.relpath(path, folder): open(path, "rb").read() for path in files}


def encoded_lines(folder, name="train"):
    with open(os.path.join(folder, "encoded", name + ".txt"), encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


class InMemory:
    """A source made of documents."""

    unit, description = "document", {"--text memory": "made in a test"}

    def __init__(self, documents):
        self.all, self.length = documents, len(documents)

    def documents(self):
        return (Document(None, lines, i) for i, lines in enumerate(self.all, 1))


# ---- sources


def test_documents_end_at_blank_lines_and_at_the_end_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffone\r\ntwo \u0085 words\r\n \t\r\n\r\nthree".encode())
    (tmp_path / "b").write_bytes(b"\n\nfour\n")
    found = list(TextFiles([str(tmp_path / "a"), str(tmp_path / "b")]).documents())
    assert [document.lines for document in found] == [["one", "two words"], ["three"], ["four"]]
    assert found[-1].position == sum(os.path.getsize(tmp_path / name) for name in "ab")


def test_a_byte_that_is_not_utf8_is_named_with_its_offset(tmp_path):
    (tmp_path / "a").write_bytes("ä\n\nb".encode() + b"\xff\n")
    with pytest.raises(UsageError, match=r"a: byte 5 is not UTF-8"):
        list(TextFiles([str(tmp_path / "a")]).documents())


def test_a_text_without_blank_lines_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_DOCUMENT", 1 << 20)
    (tmp_path / "lines").write_text("short\n" * 200_000)
    (tmp_path / "line").write_text("a" * 1_200_000)
    for name in ("lines", "line"):
        with pytest.raises(UsageError, match="begins at byte 0 has more than 1 MiB"):
            list(TextFiles([str(tmp_path / name)]).documents())


def test_wikitext_documents_begin_at_level_one_headings_and_keep_their_splits(monkeypatch):
    rows = ["", " = E = mc² = \n", "", " first \n", " = = Section = = \n", " second \n", " = Other = \n", " third \n"]
    splits = {"train": rows, "validation": rows[:4], "test": rows[6:]}
    asked = []

    def load_dataset(*arguments, **named):
        asked.append(named)
        return {name: datasets.Dataset.from_dict({"text": texts}) for name, texts in splits.items()}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = PublicDatasetSource("wikitext-103")
    assert asked == [{"path": "Salesforce/wikitext", "name": "wikitext-103-raw-v1", "streaming": False}]
    assert [(document.split, document.lines) for document in source.documents()] == [
        ("train", ["= E = mc² =", "first", "= = Section = =", "second"]),
        ("train", ["= Other =", "third"]),
        ("valid", ["= E = mc² =", "first"]),
        ("test", ["= Other =", "third"]),
    ]
    assert survey(source, 0.99, 1).limit == 0  # nothing of the training split goes to validation


def test_bookcorpus_documents_are_512_sentences_without_official_split(monkeypatch):
    rows = datasets.Dataset.from_dict({"text": [f"sentence {i} ." for i in range(1100)]})
    monkeypatch.setattr(datasets, "load_dataset", lambda **named: {"train": rows} if "revision" in named else None)
    found = list(PublicDatasetSource("bookcorpus").documents())
    assert [len(document.lines) for document in found] == [512, 512, 76]
    assert {document.split for document in found} == {None} and found[-1].position == 1100


def test_a_dataset_that_cannot_be_fetched_is_named_in_one_line(monkeypatch, tmp_path):
    def no_network(**named):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(UsageError, match=r"^--dataset wikitext-2: cannot be downloaded \(ConnectionError: no route\)"):
        prepare_corpus(CorpusSettings(out=str(tmp_path / "out"), dataset="wikitext-2"))
    assert not (tmp_path / "out").exists()


ROWS = ["", " = One = \n", "", " The 15 @-@ year @-@ old ( 1 @,@ 990 ) said \" it 's 2 @.@ 5 \" . \n",
        " = = Plot = = \n", "More words here .", " = Two = \n", "And don 't forget : this one ; that one !", ""]
DOCUMENTS = [["= One =", one_line(ROWS[3]), "= = Plot = =", "More words here ."], ["= Two =", ROWS[7]]]


def local_copies(folder):
    """The same rows as parquet, as the original files, and as save_to_disk wrote them."""
    rows = datasets.Dataset.from_dict({"text": ROWS})
    hub, original = folder / "hub" / "wikitext-2-raw-v1", folder / "original"
    hub.mkdir(parents=True), original.mkdir()
    for split, short in (("train", "train"), ("validation", "valid"), ("test", "test")):
        rows.to_parquet(hub / f"{split}-00000-of-00001.parquet")
        (original / f"wiki.{short}.raw").write_text("\n".join(row.strip("\n") for row in ROWS), encoding="utf-8")
    datasets.DatasetDict({split: rows for split in ("train", "validation", "test")}).save_to_disk(folder / "saved")
    return {"parquet": folder / "hub", "original": original, "saved": folder / "saved"}


def test_a_local_copy_is_read_whatever_its_kind_and_without_a_network(tmp_path):
    for kind, folder in local_copies(tmp_path).items():
        for stream in (False, True):
            source = PublicDatasetSource("wikitext-2", str(folder), stream)
            found = list(source.documents())
            assert [(document.split, document.lines) for document in found] == [
                (split, lines) for split in ("train", "valid", "test") for lines in DOCUMENTS], kind
            assert source.length in (None, found[-1].position)
    (tmp_path / "original" / "wiki.test.raw").unlink()
    with pytest.raises(UsageError, match="--dataset-dir: no file of the split 'test' found in .*original"):
        PublicDatasetSource("wikitext-2", str(tmp_path / "original"))
    with pytest.raises(UsageError, match="--dataset-dir: nowhere is not a folder, expected one that holds wikitext-2"):
        PublicDatasetSource("wikitext-2", "nowhere")


def test_the_one_split_of_bookcorpus_may_have_been_saved_alone(tmp_path):
    datasets.Dataset.from_dict({"text": ["a sentence ."] * 600}).save_to_disk(tmp_path / "saved")
    found = list(PublicDatasetSource("bookcorpus", str(tmp_path / "saved")).documents())
    assert [len(document.lines) for document in found] == [512, 88]


def test_one_split_means_that_every_file_belongs_to_it(tmp_path):
    for name in ("books_large_p1.txt", "books_large_p2.txt"):
        (tmp_path / name).write_text("a sentence .\n" * 600)
    found = list(PublicDatasetSource("bookcorpus", str(tmp_path)).documents())
    assert [len(document.lines) for document in found] == [512, 512, 176]


def test_wikitext_without_its_rare_words_is_warned_of_once(tmp_path, capsys):
    for split in ("train", "valid", "test"):
        (tmp_path / f"wiki.{split}.tokens").write_text("= One =\nThe <unk> lobster .\n= Two =\nA crab .\n")
    source = PublicDatasetSource("wikitext-2", str(tmp_path))
    assert [len(list(source.documents())) for _ in range(2)] == [6, 6]
    assert capsys.readouterr().err.count("3 lines with <unk> for rare words; the raw version of the dataset") == 1


def test_wikitext_can_be_detokenized_and_is_not_unless_asked():
    assert detokenize_wikitext(DOCUMENTS[0][1]) == 'The 15-year-old (1,990) said "it\'s 2.5".'
    assert [detokenize_wikitext(line) for line in ("= One =", "= = Plot = =", "a = b", ROWS[7])] == [
        "One", "Plot", "a = b", "And don't forget: this one; that one!"]


def test_a_detokenized_copy_is_another_corpus(tmp_path, without_fairseq):
    folder = str(local_copies(tmp_path)["parquet"])
    asked = dict(dataset="wikitext-2", dataset_dir=folder, vocab_size=55)
    for name, extra in (("plain", {}), ("words", dict(detokenize=True))):
        prepare_corpus(CorpusSettings(out=str(tmp_path / name), **asked, **extra))
    assert any("@" in line for line in encoded_lines(tmp_path / "plain"))
    assert not any("@" in line for line in encoded_lines(tmp_path / "words"))
    with pytest.raises(UsageError, match="holds another corpus .*detokenized"):
        prepare_corpus(CorpusSettings(out=str(tmp_path / "plain"), **asked, detokenize=True))


@pytest.mark.parametrize("wrong, reason", [
    (dict(text=["x"], dataset_dir="d"), "--dataset-dir: no --dataset found"),
    (dict(text=["x"], stream=True), "--stream: no --dataset found"),
    (dict(dataset="bookcorpus", detokenize=True), "--detokenize: --dataset bookcorpus found, expected --dataset wikit"),
    (dict(docstrings=True, detokenize=True), "--detokenize: --dataset None found"),
])
def test_flags_of_datasets_need_one(wrong, reason):
    with pytest.raises(UsageError, match=reason):
        CorpusSettings(out="out", **wrong)


def test_docstrings_become_paragraphs_without_examples_repeats_and_crumbs(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "left_out.py").write_text('"""This one is in a folder of tests."""')
    (tmp_path / "broken.py").write_text("print 'an old Python'")
    (tmp_path / "module.py").write_text('''
"""The first line goes on
here.

    Heading
    -------
    An indented text.
    >>> 1 + 1  # an example
    2

The end. \\ud800
"""
if True:
    class A:
        "Too few words."
        def f(self):
            "Another one has five words."
        async def g(self):
            "Another one has five words."
''')
    assert [document.lines for document in Docstrings([str(tmp_path)]).documents()] == [
        ["The first line goes on here.", "Heading An indented text.", "The end."],
        ["Another one has five words."],
    ]


def test_the_standard_library_has_docstrings_in_a_fixed_order():
    root = os.path.dirname(json.__file__)
    first, second = (list(Docstrings([root]).documents()) for _ in range(2))
    assert first == second and any("JSON" in line for document in first for line in document.lines)


# ---- splits and the sample


def test_identical_documents_never_straddle_the_splits():
    documents = [["some text", str(i % 50)] for i in range(500)]
    random.Random(0).shuffle(documents)
    limit = survey(InMemory(documents), 0.2, 1).limit
    sides = {}
    for lines in documents:
        sides.setdefault(tuple(lines), set()).add(split_of(Document(None, lines, 0), limit))
    assert all(len(side) == 1 for side in sides.values())
    assert 2 <= sum(side == {"valid"} for side in sides.values()) <= 20
    assert survey(InMemory(sorted(documents)), 0.2, 7).limit == limit  # neither the order nor the seed matters


@pytest.mark.parametrize("fraction", [1e-9, 0.05, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_even_two_documents_give_both_splits(count, fraction):
    digests = [digest_of([f"document {i}"]) for i in range(count)]
    limit = validation_limit(fraction, min(digests), max(digests))
    assert 1 <= sum(digest < limit for digest in digests) <= count - 1


def test_the_validation_share_is_the_one_asked_for():
    digests = [digest_of([f"document {i}"]) for i in range(20_000)]
    limit = validation_limit(0.05, min(digests), max(digests))
    assert abs(sum(digest < limit for digest in digests) / 20_000 - 0.05) < 0.006  # four standard deviations


def test_one_document_however_often_is_refused():
    with pytest.raises(UsageError, match="one distinct document found.*blank lines"):
        survey(InMemory([["the same"]] * 5), 0.05, 1)


def test_the_sample_is_bounded_and_uniform():
    sample = LineSample(20_000, seed=1)
    for i in range(10_000):
        sample.offer(0, [f"{i:09d}"])
    kept = [int(line) for _, _, line in sample.kept]
    assert 0.85 * 20_000 <= sum(len(line) for _, _, line in sample.kept) <= 20_000
    assert abs(sum(kept) / len(kept) - 5000) < 4 * 2887 / len(kept) ** 0.5


def test_the_tokenizer_learns_from_training_documents_only():
    documents = made_documents(40)
    found = survey(InMemory(documents), 0.3, 1)
    training = {line for lines in documents if digest_of(lines) >= found.limit for line in lines}
    assert set(found.sample) == training
    assert len(survey(InMemory(documents), 0.3, 1, sample_bytes=2000).sample) < 30


# ---- tokenizer


def test_training_twice_gives_the_same_bytes(tokenizer):
    lines = [line for document in made_documents(60) for line in document]
    assert train_tokenizer(lines, VOCABULARY, 1) == tokenizer.model


def test_a_paragraph_longer_than_sentencepieces_limit_is_learned_from():
    line = " ".join(["entropy"] * 2000)  # 16,000 bytes; SentencePiece leaves out lines of more than 4192
    assert "▁entropy" in SentencePieceTokenizer(train_tokenizer([line] * 3, 23, 1), "test").names


def test_the_dictionary_has_exactly_the_entries_asked_for(tokenizer, tmp_path):
    from fairseq.data import Dictionary

    (tmp_path / "dict.txt").write_text(tokenizer.dictionary({}), encoding="utf-8")
    dictionary = Dictionary.load(str(tmp_path / "dict.txt"))
    dictionary.add_symbol("<mask>")
    assert len(dictionary) == tokenizer.dictionary_size == VOCABULARY
    assert not [symbol for symbol in dictionary.symbols if symbol.startswith("madeupword")]


def test_the_largest_and_the_smallest_possible_vocabularies_are_named_and_work():
    lines = [line for document in made_documents(3) for line in document]
    for wrong, word in ((30_000, "most"), (7, "least")):
        with pytest.raises(UsageError, match=rf"--vocab-size {wrong}: too .*expected at {word} \d+$") as raised:
            train_tokenizer(lines, wrong, 1)
        possible = int(str(raised.value).split()[-1])
        assert SentencePieceTokenizer(train_tokenizer(lines, possible, 1), "test").dictionary_size == possible


def foreign_tokenizer(**options):
    import io

    import sentencepiece

    model = io.BytesIO()
    lines = [line for document in made_documents(5) for line in document]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=100, minloglevel=2, **options
    )
    return model.getvalue()


@pytest.mark.parametrize("symbol, reason", [("<mask>", "<mask> is an ordinary token"), ("a b", "contains white space")])
def test_a_tokenizer_that_fairseq_would_misread_is_refused(symbol, reason):
    with pytest.raises(UsageError, match=rf"--tokenizer x: .*{reason}"):
        SentencePieceTokenizer(foreign_tokenizer(user_defined_symbols=[symbol]), "--tokenizer x")


@pytest.mark.parametrize("model", [b"", b"no model"])
def test_a_file_that_is_no_tokenizer_is_refused(model):
    with pytest.raises(UsageError, match="--tokenizer x: not a SentencePiece model"):
        SentencePieceTokenizer(model, "--tokenizer x")


def test_unknown_pieces_of_a_foreign_tokenizer_become_fairseqs_unk(tmp_path):
    model = foreign_tokenizer(unk_piece="[UNK]", control_symbols=["[CLS]"], normalization_rule_name="identity")
    foreign, source = SentencePieceTokenizer(model, "x"), InMemory([["bada \u4f60\u2028 bada"], ["bada"]])
    limit = validation_limit(0.5, *sorted(map(digest_of, source.all)))
    encode(source, foreign, limit, 1, 1, tmp_path)
    words = (tmp_path / "train.txt").read_text().split() + (tmp_path / "valid.txt").read_text().split()
    assert "<unk>" in words and not {"[UNK]", "[CLS]", "\u4f60"} & set(words)
    assert "[CLS]" not in foreign.dictionary({}) and foreign.dictionary_size == 100 - 4 + 5


# ---- encoding


def test_the_encoded_text_does_not_depend_on_the_number_of_workers(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.corpus.encoding.BATCH_CHARACTERS", 3000)
    source, limit = InMemory(made_documents(40)), 2**62
    first = encode(source, tokenizer, limit, 2, 1, tmp_path / "1")
    assert encode(source, tokenizer, limit, 2, 5, tmp_path / "5") == first
    assert contents(tmp_path / "1") == contents(tmp_path / "5")


def test_a_line_that_encodes_to_nothing_does_not_end_a_document(tokenizer, tmp_path):
    source = InMemory([["bada", "\u200b", "dada"], ["\u200b\u200b"], ["gaga"], ["kaka"]])
    digests = [digest_of(lines) for lines in source.all]
    limit = digests[2] + 1 if digests[2] < digests[0] else digests[0]
    counts, _ = encode(source, tokenizer, limit, 1, 1, tmp_path)
    assert sum(counted["documents"] for counted in counts.values()) == 3
    for name, counted in counts.items():
        assert (tmp_path / f"{name}.txt").read_text().split("\n").count("") == counted["documents"]


def test_the_dictionary_counts_the_training_text(text, tokenizer_file, tmp_path, without_fairseq):
    prepare_corpus(CorpusSettings(out=str(tmp_path), text=[text], tokenizer=tokenizer_file, valid_fraction=0.2))
    expected = Counter(piece for line in encoded_lines(tmp_path) for piece in line.split())
    counted = dict(line.rsplit(" ", 1) for line in (tmp_path / "dict.txt").read_text(encoding="utf-8").splitlines())
    assert {piece: int(count) for piece, count in counted.items() if count != "0"} == expected
    split = json.loads((tmp_path / "corpus.json").read_text())["splits"]["train"]
    assert split["tokens"] == sum(expected.values()) and split["unk_share"] == 0
    assert split["documents"] == encoded_lines(tmp_path).count("") + 1


# ---- stages


@pytest.mark.parametrize("wrong, reason", [
    (dict(valid_fraction=0.0), "--valid-fraction: 0.0 found, expected"),
    (dict(valid_fraction=1.0), "--valid-fraction: 1.0 found, expected"),
    (dict(valid_fraction=float("nan")), "--valid-fraction: nan found, expected"),
    (dict(vocab_size=5), "--vocab-size: 5 found, expected 6 or more"),
    (dict(shards=0), "--shards: 0 found, expected 1 to 10,000"),
    (dict(shards=1000), "--shards 1000: fewer documents"),
    (dict(workers=0), "--workers: 0 found, expected"),
    (dict(seed=-1), "--seed: -1 found, expected"),
    (dict(text=["/nowhere"]), "--text /nowhere: is not a file"),
    (dict(text=["/"]), "--text /: is not a file"),
    (dict(docstrings=True), "expected one of --text, --dataset and --docstrings"),
    (dict(tokenizer="/nowhere"), "--tokenizer /nowhere: No such file"),
    (dict(vocab_size=77), "--vocab-size 77: .*a dictionary of 400 entries"),
    (dict(out="/dev/null"), r"--out: /dev/null \(File exists\), expected a folder"),
    (dict(out="a:b"), "--out: a:b found, expected"),
])
def test_a_mistake_ends_in_one_line_that_names_the_flag(wrong, reason, text, tokenizer_file, tmp_path, without_fairseq):
    arguments = dict(out=str(tmp_path / "out"), text=[text], tokenizer=tokenizer_file, workers=1)
    with pytest.raises(UsageError, match=rf"^[^\n]*{reason}[^\n]*$"):
        prepare_corpus(CorpusSettings(**{**arguments, **wrong}))
    assert not (tmp_path / "out" / "bin").exists() and not (tmp_path / "out" / "corpus.json").exists()


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UsageError, match="empty.txt: no text found"):
        prepare_corpus(CorpusSettings(out=str(tmp_path / "out"), text=[str(tmp_path / "empty.txt")]))


def test_a_finished_corpus_is_neither_repeated_nor_overwritten(text, tmp_path, without_fairseq, capsys, monkeypatch):
    settings = dict(out=str(tmp_path / "out"), text=[text], vocab_size=VOCABULARY)
    path = prepare_corpus(CorpusSettings(**settings))
    before = contents(tmp_path)
    monkeypatch.setattr(build, "run_corpus_stages", None)
    assert prepare_corpus(CorpusSettings(**settings, workers=1)) == path
    assert "already there" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"holds another corpus \(--seed: 1 there, 2 requested\)"):
        prepare_corpus(CorpusSettings(**settings, seed=2))
    (tmp_path / "more.txt").write_text("more")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"--text .*more.txt: nothing there, 4 bytes requested\)"):
        prepare_corpus(CorpusSettings(**{**settings, "text": [text, str(tmp_path / "more.txt")]}))
    assert contents(tmp_path) == before


def test_a_text_that_changed_but_not_in_size_is_another_corpus(tmp_path, tokenizer_file, without_fairseq):
    settings = CorpusSettings(out=str(tmp_path / "out"), text=[str(tmp_path / "text.txt")], tokenizer=tokenizer_file)
    write_text(tmp_path / "text.txt", [["bada"], ["dada"]])
    prepare_corpus(settings)
    write_text(tmp_path / "text.txt", [["bada"], ["kaka"]])
    with pytest.raises(UsageError, match="content of the source"):
        prepare_corpus(settings)


def test_an_unfinished_corpus_resumes_or_starts_again_with_other_parameters(
    text, tmp_path, without_fairseq, monkeypatch, capsys
):
    settings = dict(out=str(tmp_path / "out"), text=[text])
    with monkeypatch.context() as interrupted:
        interrupted.setattr(build, "data_bin_stage", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus(CorpusSettings(**settings, vocab_size=VOCABULARY))
    with monkeypatch.context() as continued:
        continued.setattr(build, "trained_tokenizer", None)
        continued.setattr(build, "encode_corpus", None)
        prepare_corpus(CorpusSettings(**settings, vocab_size=VOCABULARY))
    os.rename(tmp_path / "out" / "corpus.json", tmp_path / "out" / "unfinished.json")
    prepare_corpus(CorpusSettings(**settings, vocab_size=200))
    assert "starting again" in capsys.readouterr().out
    assert len((tmp_path / "out" / "dict.txt").read_text().splitlines()) == 200 - 5
    assert not list(tmp_path.glob("out/*.partial")) and not (tmp_path / "out" / "unfinished.json").exists()


def test_files_of_someone_else_are_not_overwritten(text, tmp_path):
    (tmp_path / "dict.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds dict.txt but no corpus.json"):
        prepare_corpus(CorpusSettings(out=str(tmp_path), text=[text]))
    assert contents(tmp_path) == {"dict.txt": b"precious"}


def test_two_runs_do_not_write_to_one_folder(text, tmp_path):
    with exclusive_lock(str(tmp_path)), pytest.raises(UsageError, match="another run is writing there"):
        prepare_corpus(CorpusSettings(out=str(tmp_path), text=[text]))


def error_in_child(work):
    """The message of the UsageError that `work` ends with, in a process whose limits may be changed."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def run():
        try:
            send.send(work())
        except UsageError as error:
            send.send(str(error))

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    return receive.recv() if receive.poll() else None


def prepare_with_small_files(settings, largest):
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    prepare_corpus(settings)


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written_at_any_stage(tmp_path, monkeypatch):
    documents = made_documents(400)
    text = write_text(tmp_path / "text.txt", documents)
    settings = CorpusSettings(out=str(tmp_path / "out"), text=[text], vocab_size=200)
    trouble = "cannot be written (File too large), expected a higher limit on the size of files"

    def left():
        return sorted(os.listdir(settings.out)) if os.path.exists(settings.out) else []

    tried = error_in_child(lambda: prepare_with_small_files(settings, 100_000))
    assert tried == f"{settings.out}/tokenizer.model: {trouble}" and left() == []
    tried = error_in_child(lambda: prepare_with_small_files(settings, 400_000))
    assert tried == f"{settings.out}/encoded: {trouble}"
    assert left() == ["tokenizer.model", "tokenizer.vocab", "unfinished.json"]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(build, "data_bin_stage", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus(settings)
    tried = error_in_child(lambda: prepare_with_small_files(settings, 100_000))
    assert tried == f"{settings.out}/bin: {trouble}"
    assert left() == ["dict.txt", "encoded", "tokenizer.model", "tokenizer.vocab", "unfinished.json"]


# ---- end to end


def command_line(text, out):
    options = ["--vocab-size", str(VOCABULARY), "--valid-fraction", "0.2"]
    return [sys.executable, SCRIPT, "--text", text, "--out", out, *options]


@pytest.fixture(scope="module")
def corpus(text, tmp_path_factory):
    """The command line, started in another folder."""
    folder = tmp_path_factory.mktemp("corpus")
    done = subprocess.run(command_line(text, "out"), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "for fairseq-train: out/bin"
    return str(folder / "out")


def decoded_documents(data_bin, split, tokenizer, dictionary):
    """What fairseq reads, as text: documents of lines."""
    from fairseq.data.data_utils import load_indexed_dataset

    items = [item.tolist() for item in load_indexed_dataset(os.path.join(data_bin, split), dictionary)]
    assert all(item[-1] == dictionary.eos() for item in items)
    assert not {i for item in items for i in item[:-1]} & set(range(dictionary.nspecial))
    lines = [tokenizer.processor.decode([dictionary[i] for i in item[:-1]]) for item in items]
    return [list(group) for is_text, group in itertools.groupby(lines, bool) if is_text]


@pytest.mark.slow
def test_fairseq_reads_back_the_text_and_literal_specials_are_no_special_symbols(corpus):
    from fairseq.data import Dictionary

    with open(os.path.join(corpus, "tokenizer.model"), "rb") as file:
        tokenizer = SentencePieceTokenizer(file.read(), "test")
    dictionary = Dictionary.load(os.path.join(corpus, "bin", "dict.txt"))
    assert len(dictionary) == VOCABULARY - 1 and "<mask>" not in dictionary
    made, found = made_documents(60), 0
    for split in ("train", "valid"):
        documents = decoded_documents(os.path.join(corpus, "bin"), split, tokenizer, dictionary)
        assert documents == [lines for lines in made if lines in documents]  # their text and their order
        found += len(documents)
    assert found == 60


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_like_a_straight_one(text, corpus, tmp_path):
    out = tmp_path / "out"
    killed = subprocess.Popen(command_line(text, str(out)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and not list(out.glob("bin.*.partial")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (out / "unfinished.json").exists() and not (out / "bin").exists() and not (out / "corpus.json").exists()
    stages = {name: (out / name).stat().st_mtime_ns for name in ("tokenizer.model", "encoded")}
    prepare_corpus(CorpusSettings(out=str(out), text=[text], vocab_size=VOCABULARY, valid_fraction=0.2, workers=1))
    assert {name: (out / name).stat().st_mtime_ns for name in stages} == stages
    assert contents(out) == contents(corpus)


@pytest.mark.slow
def test_shards_hold_each_training_document_once_and_the_first_one_the_validation(text, corpus, tmp_path):
    settings = CorpusSettings(out=str(tmp_path), text=[text], vocab_size=VOCABULARY, valid_fraction=0.2, shards=2)
    path = prepare_corpus(settings)
    assert path == f"{tmp_path}/bin/shard0:{tmp_path}/bin/shard1"
    documents = ["\n".join(encoded_lines(tmp_path, f"shard{shard}/train")).split("\n\n") for shard in range(2)]
    assert abs(len(documents[0]) - len(documents[1])) <= 1
    assert sorted(documents[0] + documents[1]) == sorted("\n".join(encoded_lines(corpus)).split("\n\n"))
    assert os.path.exists(tmp_path / "bin/shard0/valid.bin") and not os.path.exists(tmp_path / "bin/shard1/valid.bin")
    whole, dealt = (json.load(open(os.path.join(folder, "corpus.json"))) for folder in (corpus, tmp_path))
    assert whole["splits"] == dealt["splits"]


@pytest.mark.slow
def test_a_stream_made_in_parts_gives_the_same_data_bin_and_keeps_no_text(text, tokenizer_file, tmp_path, monkeypatch):
    rows = [row for document in documents_of_file(text) for row in ["= Title =", *document[0]]]
    copy, held = tmp_path / "copy", []
    copy.mkdir()
    for split in ("train", "validation", "test"):
        datasets.Dataset.from_dict({"text": rows}).to_parquet(copy / f"{split}.parquet")
    asked = dict(dataset="wikitext-2", dataset_dir=str(copy), tokenizer=tokenizer_file, shards=2)
    prepare_corpus(CorpusSettings(out=str(tmp_path / "plain"), **asked))

    def look(encoded, *arguments, **named):
        held.append(sum(map(os.path.getsize, glob.glob(f"{encoded}/**/*.txt", recursive=True))))
        binarize(encoded, *arguments, **named)

    whole = sum(map(os.path.getsize, glob.glob(f"{tmp_path}/plain/encoded/**/*.txt", recursive=True)))
    monkeypatch.setattr(parts, "binarize", look)
    monkeypatch.setattr(parts, "PART_BYTES", whole * 3 // 5)
    prepare_corpus(CorpusSettings(out=str(tmp_path / "stream"), stream=True, **asked))
    assert len(held) == 2 and max(held) < 0.65 * whole and sum(held) == whole
    expected = {name: content for name, content in contents(tmp_path / "plain").items() if "encoded" not in name}
    assert contents(tmp_path / "stream") == expected
    assert set(os.listdir(tmp_path / "stream")) == set(os.listdir(tmp_path / "plain")) - {"encoded"}
    records = [json.load(open(tmp_path / name / "corpus.json")) for name in ("plain", "stream")]
    assert records[0] == records[1]


@pytest.mark.parametrize("width, dtype", [(2, np.uint16), (4, np.int32)])
def test_the_index_is_fairseqs_and_right_beyond_two_gibibytes(width, dtype, tmp_path):
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    small, large = np.array([3, 1, 4, 1, 5], np.int32), np.full(5, 2**30, np.int32)
    write_index(tmp_path / "ours", small, width)
    with MMapIndexedDataset.Index.writer(tmp_path / "fairseqs", dtype) as index:
        index.write(small.tolist())
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "fairseqs").read_bytes()
    assert (read_sizes(tmp_path / "ours") == small).all()
    write_index(tmp_path / "large", large, width)
    index = MMapIndexedDataset.Index(str(tmp_path / "large"))
    assert [index[i] for i in range(5)] == [(i * width * 2**30, 2**30) for i in range(5)]
