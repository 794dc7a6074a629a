"""Minimal pairs after each validation: made of a text, against planted text and loops; of files, against the command;
in the log of trainings, on two ranks, resumed, and without an effect on them."""

import json
import logging
import math
import re
from types import SimpleNamespace

import pytest
import torch
from builders.models import AnyTask, build, lively
from builders.processes import torchrun
from builders.training import MODULES, TINY, docstrings, run, train, weights
from fairseq.data import Dictionary

from entropy_mask_plugin.corpus.build import prepare_corpus
from entropy_mask_plugin.corpus.settings import CorpusSettings
from entropy_mask_plugin.evaluation import minimal_pairs, reading
from entropy_mask_plugin.evaluation.during_training import accuracy_sums, scoring, valid_pairs
from entropy_mask_plugin.evaluation.models import read_model
from entropy_mask_plugin.evaluation.text_pairs import SWAPS, cloze_credits, cloze_questions, spread
from entropy_mask_plugin.system.errors import UsageError

VALID = re.compile(r"epoch (\d+) \| valid on 'valid' subset \|.*?\| pairs_accuracy ([\d.]+) \|")
TEXT = ["--valid-pairs", "text"]
RANDOM = ["--mask-strategy", "random", "--batch-size", "32"]


def dictionary_of(words):
    dictionary = Dictionary()
    for word in words:
        dictionary.add_symbol(word)
    dictionary.add_symbol("<mask>")
    return dictionary


def questions_of(lines, limit=100, longest=100, words=()):
    """[(text with a mask, right, wrong)] of lines of symbols."""
    dictionary = dictionary_of(dict.fromkeys([*words, *(word for line in lines for word in line.split())]))
    blocks = [torch.tensor([dictionary.bos(), *map(dictionary.index, line.split()), dictionary.eos()])
              for line in lines]
    return [(" ".join(dictionary[i] for i in masked.tokens[1:-1]), dictionary[right], dictionary[wrong])
            for masked, right, wrong, _ in cloze_questions(blocks, dictionary, limit, longest)]


# ---- questions

def test_the_questions_of_a_planted_text_are_these():
    lines = ["this is a list", "these are an end", "it was and is", "we were here", "is it", "an an", "the has"]
    assert questions_of(lines) == [
        ("this <mask> a list", "is", "are"), ("these <mask> an end", "are", "is"),  # "is" at other places is left over
        ("it <mask> and is", "was", "were"), ("we <mask> here", "were", "was"),
        ("<mask> is a list", "this", "these"), ("<mask> are an end", "these", "this"),
        ("this is <mask> list", "a", "an"), ("these are <mask> end", "an", "a")]


@pytest.mark.parametrize("is_, are, longer, other", [
    ("is", "are", "is ##land", "are ##na"), ("▁is", "▁are", "▁is land", "▁are na"),
    ("Ġis", "Ġare", "Ġis land", "Ġare na"),
])
def test_a_word_that_goes_on_is_another_word(is_, are, longer, other):
    prefix = is_[0] if is_ != "is" else ""
    marked = " ".join(f"{prefix or '##'}{i}" for i in range(9))  # most symbols decide which prefix marks words
    lines = [f"{longer} {prefix}x", f"{other} {prefix}x", f"{is_} . {prefix}x", f"{are} {prefix}x", f"{is_} 's", marked]
    assert questions_of(lines) == [(f"<mask> . {prefix}x", is_, are), (f"<mask> {prefix}x", are, is_)]


def test_nothing_is_asked_before_an_unknown_word_or_at_the_end_of_a_block():
    dictionary = dictionary_of(["is", "are", "x"])
    is_, are, x = (dictionary.index(word) for word in ("is", "are", "x"))
    blocks = [torch.tensor(row) for row in ([0, is_, dictionary.unk(), x], [0, x, is_], [0, are, x], [0, is_, x, x, x])]
    (one, other) = cloze_questions(blocks, dictionary, 10, 5)
    assert (one.masked.tokens, one.masked.position) == ((0, dictionary.index("<mask>"), x, x, x), 1)
    assert other.right == are
    assert cloze_questions(blocks, dictionary, 10, 4) == []  # the block of five tokens is too long


@pytest.mark.parametrize("limit, number", [(2, 1), (5, 2), (100, 7)])
def test_each_direction_is_asked_as_often_and_not_above_the_limit(limit, number):
    lines = [*("x is y" for _ in range(30)), *(f"are y{i}" for i in range(7))]
    questions = questions_of(lines, limit)
    assert [right for _, right, _ in questions] == ["is"] * number + ["are"] * number
    assert len({text for text, right, _ in questions if right == "are"}) == number
    assert spread(10, 4) == (0, 2, 5, 7)


def prefers(token):
    """A model that is surest of a token, whatever it reads."""
    model = lively(build())
    model.lm_head.bias.data[:] = 0
    model.lm_head.bias.data[token] = 1000
    return model.eval()


def word_level(frequencies, seed=5, length=14, size=60):
    """Blocks of random words, the swaps among them with some frequencies, and their dictionary."""
    words = [word for swap in SWAPS for word in swap]
    dictionary = dictionary_of([*words, *(f"w{i}" for i in range(50 - 5 - len(words)))])
    generator = torch.Generator().manual_seed(seed)
    odds = torch.ones(len(dictionary) - 5)
    odds[: len(words)] = torch.tensor(frequencies, dtype=torch.float)
    draws = torch.multinomial(odds, size * length, replacement=True, generator=generator) + 4
    return [torch.cat([torch.tensor([0]), row]) for row in draws.view(size, length)], dictionary


def test_a_model_that_prefers_by_frequency_has_exactly_half():
    blocks, dictionary = word_level([9, 1, 9, 2, 1, 5, 3, 7, 20, 2])
    questions = cloze_questions(blocks, dictionary, 200, 100)
    assert {question.swap for question in questions} == set(SWAPS)
    assert len({question.right for question in questions}) == 10 and len(questions) > 60
    for seed in range(3):
        model = prefers(0)
        bias = torch.randperm(len(dictionary), generator=torch.Generator().manual_seed(seed)).float()
        model.lm_head.bias.data[:] = 1000 * bias  # one word is always preferred, which one is random
        credits = cloze_credits(model, questions, 100)
        assert sum(credits) == len(questions) / 2 and set(credits) == {0, 1}


def test_answers_are_those_of_a_loop_in_batches_of_any_size():
    blocks, dictionary = word_level([3] * 10)
    questions = cloze_questions([*blocks, *(block[:9] for block in blocks)], dictionary, 100, 100)
    model, expected = lively(build()).eval(), []
    by_length = sorted(questions, key=lambda question: len(question.masked.tokens))
    for (tokens, position), right, wrong, _ in by_length:
        assert tokens[position] == dictionary.index("<mask>") == tokens[position]
        logits = model(torch.tensor([tokens]))[0][0, position]
        expected.append(float(logits[right] > logits[wrong]))
    for max_tokens in (1, 100, 10_000):
        assert cloze_credits(model, questions, max_tokens) == expected
    assert 0 < sum(expected) < len(expected)


def test_a_tie_is_one_half_and_what_is_no_number_is_no_wrong_answer():
    blocks, dictionary = word_level([3] * 10)
    questions = cloze_questions(blocks, dictionary, 10, 100)
    model = lively(build()).eval()
    model.lm_head.bias.data[:] = -1e30  # whatever is added is lost
    assert set(cloze_credits(model, questions, 100)) == {0.5}
    model.lm_head.bias.data[:] = math.nan
    assert all(map(math.isnan, cloze_credits(model, questions, 100)))


# ---- the model that is being trained

def test_a_model_of_halves_is_scored_in_fp32_and_left_as_it_was():
    blocks, dictionary = word_level([3] * 10)
    questions = cloze_questions(blocks, dictionary, 100, 100)
    model = lively(build()).half().train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    seen = []

    def credits(ready):
        seen.append((ready.training, {parameter.dtype for parameter in ready.parameters()}))
        return cloze_credits(ready, questions, 100)

    with torch.autocast("cpu", torch.bfloat16):
        sums = accuracy_sums(credits, model)
    assert seen == [(False, {torch.float32})] and model.training
    assert all(torch.equal(parameter, before[name]) and parameter.requires_grad
               for name, parameter in model.named_parameters())
    fp32 = cloze_credits(model.float().eval(), questions, 100)
    assert sums == {"pairs_correct": sum(fp32), "n_pairs": len(fp32)}


def test_another_arch_is_refused_by_name():
    with pytest.raises(UsageError, match="^--valid-pairs: the model in training is a Linear, expected one of this"), \
            scoring(torch.nn.Linear(1, 1)):
        pass


def test_nothing_is_drawn_at_random():
    blocks, dictionary = word_level([3] * 10)
    cfg = SimpleNamespace(valid_pairs="text", valid_pairs_limit=None)
    model = lively(build("--dropout", "0.5")).train()
    state = torch.get_rng_state()
    assert accuracy_sums(valid_pairs(cfg, dictionary, blocks, 16), model)["n_pairs"] > 100
    assert torch.equal(torch.get_rng_state(), state)


# ---- trainings

def accuracies(caplog):
    """[(epoch, accuracy on pairs)] as validation has logged them."""
    return [match.groups() for record in caplog.records
            if (match := VALID.search(f"{record.getMessage()} |"))]


def test_a_training_logs_the_pairs_and_is_the_same_with_them(data_bin, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    without = train(data_bin, str(tmp_path / "without"), *RANDOM, "--max-epoch", "2")
    assert accuracies(caplog) == []
    checkpoint = train(data_bin, str(tmp_path / "with"), *RANDOM, "--max-epoch", "2", *TEXT)
    (first, second) = accuracies(caplog)
    assert (first[0], second[0]) == ("001", "002")
    message = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("--valid-pairs"))
    assert re.fullmatch(r"--valid-pairs text: \d+ pairs \((\S+/\S+ \d+(, )?)+\), chance is 50 %", message)
    assert message_sum(message)
    one, other = weights(without), weights(checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)


def message_sum(message):
    """Whether the numbers of the swaps add up to that of the pairs."""
    total, *of_swaps = map(int, re.findall(r" (\d+)(?= pairs|,|\))", message))
    return total == sum(of_swaps) > 1


def test_a_resumed_training_logs_the_same(data_bin, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    flags = [*RANDOM, *TEXT, "--valid-pairs-limit", "50"]
    train(data_bin, str(tmp_path / "straight"), *flags, "--max-epoch", "3")
    straight = accuracies(caplog)
    caplog.clear()
    train(data_bin, str(tmp_path / "resumed"), *flags, "--max-epoch", "2")
    train(data_bin, str(tmp_path / "resumed"), *flags, "--max-epoch", "3")
    assert len(straight) == 3 and accuracies(caplog) == straight


@pytest.mark.parametrize("arch", [["--arch", "roberta", *TINY[2:8], "--encoder-attention-heads", "2",
                                   "--max-positions", "16"], [*TINY, "--mask-decoder-layers", "2"]])
def test_other_archs_log_the_pairs_and_they_may_choose_the_checkpoint(arch, data_bin, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(data_bin, str(tmp_path), *RANDOM, "--max-epoch", "2", *TEXT, "--best-checkpoint-metric", "pairs_accuracy",
          "--maximize-best-checkpoint-metric", "--precision", "bf16", model=arch)
    best = torch.load(tmp_path / "checkpoint_best.pt", weights_only=True)["extra_state"]["best"]
    assert best == max(float(accuracy) for _, accuracy in accuracies(caplog))


@pytest.mark.slow
def test_a_text_without_the_words_is_said_so_once_and_nothing_is_logged(data_bin, tmp_path, caplog):
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "valid"):
        (folder / split).write_text("der Hund ist hier und die Katzen sind dort\n" * 40)
    done = run("fairseq_cli.preprocess", "--only-source", "--trainpref", folder / "train", "--validpref",
               folder / "valid", "--destdir", folder / "bin", "--padding-factor", "1")
    assert done.returncode == 0, done.stderr
    caplog.set_level(logging.INFO)
    train(str(folder / "bin"), str(tmp_path / "run"), *RANDOM, *TEXT, "--max-epoch", "1")
    said = [record.getMessage() for record in caplog.records if "--valid-pairs" in record.getMessage()]
    assert said == ["--valid-pairs text: no pairs, the validation text does not have both of is/are, was/were, "
                    "has/have, this/these, a/an as whole tokens; nothing is logged of them"]
    assert accuracies(caplog) == [] and "pairs_accuracy" not in caplog.text


@pytest.mark.slow
def test_two_ranks_log_what_one_logs(data_bin, tmp_path, caplog):
    """Weights that do not change; batches of validation that do not go into two ranks."""
    caplog.set_level(logging.INFO)
    flags = ["--mask-strategy", "random", "--lr", "0", "--max-update", "2", "--batch-size", "40", "--init-std", "0.5",
             *TEXT]
    train(data_bin, str(tmp_path / "one"), *flags)
    torchrun(2, data_bin, tmp_path / "two", *flags, "--ddp-backend", "c10d", "--log-file", str(tmp_path / "log"),
             cwd=tmp_path)
    two = VALID.findall((tmp_path / "log").read_text())
    assert len(two) == 1 and two == accuracies(caplog) and 0 < float(two[0][1]) < 1


# ---- files

@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A data-bin with its tokenizer beside it."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [" ".join(words) for name in MODULES[:4] for words in docstrings(name) if len(words) > 8]
    (folder / "text.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    prepare_corpus(CorpusSettings(str(folder / "out"), [str(folder / "text.txt")], vocab_size=600, workers=1))
    return str(folder / "out" / "bin")


PAIRS = [("the value of a list", "value the list a of"), ("an item", "a item"), ("the same", "the same"),
         ("a", "the a"), ("this is the ☃", "these is the ☃"), ("a very long sentence " * 20, "short"),
         ("words", "word words")]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name, pairs in (("first", PAIRS), ("second", [(bad, good) for good, bad in PAIRS[::-1]])):
        lines = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def test_pairs_of_files_have_the_accuracy_that_the_command_finds(corpus, files, tmp_path, caplog):
    """But for those that are longer than a block. Ties, unknown words, one token and unequal lengths are among them."""
    caplog.set_level(logging.INFO)
    checkpoint = train(corpus, str(tmp_path / "run"), *RANDOM, "--max-update", "20", "--valid-pairs", files,
                       "--valid-pairs-limit", "6")
    (_, accuracy), = accuracies(caplog)
    pairs = [pair for pair in reading.read_pairs(files, 6) if max(len(pair.good), len(pair.bad)) < 100]
    scored = minimal_pairs.score_pairs(read_model(checkpoint), pairs)
    assert len(scored) == 10 and 0.5 in {each.credit for each in scored}
    assert float(accuracy) == pytest.approx(sum(each.credit for each in scored) / 10, abs=1e-3)
    assert "--valid-pairs: pairs 10, paradigms 2, pairs with <unk> 2, left out as longer than a block 2;" in caplog.text


@pytest.mark.parametrize("flags, message", [
    (["--valid-pairs", "missing"], "^--valid-pairs: missing does not exist, expected a file of JSON lines, or"),
    (["--valid-pairs", "text", "--valid-pairs-limit", "1"], "^--valid-pairs-limit: 1 found, expected 2 or more$"),
])
def test_wrong_flags_are_refused_before_the_training(flags, message, corpus, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(corpus, str(tmp_path), *RANDOM, *flags)


def test_files_without_a_tokenizer_or_a_short_pair_are_refused(corpus, data_bin, files, tmp_path):
    with pytest.raises(UsageError, match="^--tokenizer: none found in .*, expected tokenizer.model"):
        train(data_bin, str(tmp_path), *RANDOM, "--valid-pairs", files)
    (tmp_path / "long.jsonl").write_text(json.dumps({"sentence_good": "a " * 99, "sentence_bad": "a"}) + "\n")
    with pytest.raises(UsageError, match="^--valid-pairs: .*long.jsonl without a pair that fits into --tokens"):
        train(corpus, str(tmp_path), *RANDOM, "--valid-pairs", str(tmp_path / "long.jsonl"))


def test_the_builders_of_these_tests_have_a_dictionary_of_the_models_size():
    assert len(word_level([1] * 10)[1]) == len(AnyTask().source_dictionary)
