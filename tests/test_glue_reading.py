"""GLUE's files as they are shipped, quirks included, by hand-made examples of each."""

import os
from collections import Counter

import datasets
import pytest

from entropy_mask_plugin.glue import docstring_tasks
from entropy_mask_plugin.glue.binarize import truncate
from entropy_mask_plugin.glue.docstring_tasks import write_docstring_tasks
from entropy_mask_plugin.glue.reading import (
    Example,
    hub_dev_names,
    hub_example,
    missing_files,
    read_file,
    read_from_hub,
    read_task,
)
from entropy_mask_plugin.glue.tasks import GLUE, TASKS
from entropy_mask_plugin.system.errors import UsageError

MNLI_HEADER = ("index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
               "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n")
MNLI_DEV_HEADER = MNLI_HEADER.replace("label1\t", "label1\tlabel2\tlabel3\tlabel4\tlabel5\t")
FILES = {
    "cola": ("gj04\t1\t\tThe sailors rode.\ncj99\t0\t*\tThe more you \"would want.\n",
             [(["The sailors rode."], "1"), (['The more you "would want.'], "0")]),
    "sst-2": ("sentence\tlabel\nit 's a charming journey . \t1\n", [(["it 's a charming journey ."], "1")]),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t11\t22\tHe said\u2028so.\t\"He said no.\r\n",
             [(["He said so.", '"He said no.'], "1")]),
    "sts-b": ("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
              "0\tmain\tMSR\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t5.000\n",
              [(["A plane.", "An air plane."], "5.000")]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tHow?\t0\nbroken off\n\t\tstill\n"
            "4\t5\t6\tWho?\tWho?\t1\n", [(["Why?", "How?"], "0"), (["Who?", "Who?"], "1")]),
    "mnli": (MNLI_HEADER + "0\t1\t2\tfiction\t(\t(\t(\t(\tA man.\tA person.\tentailment\tneutral\n",
             [(["A man.", "A person."], "neutral")]),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\tWhat?\tThis.\tnot_entailment\n",
             [(["What?", "This."], "not_entailment")]),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tOne.\tTwo.\tentailment\n", [(["One.", "Two."], "entailment")]),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tI stuck a pin.\tIt hurt.\t1\n",
             [(["I stuck a pin.", "It hurt."], "1")]),
}


@pytest.mark.parametrize("name", GLUE)
def test_each_task_is_read_as_it_is_shipped(name, tmp_path):
    content, expected = FILES[name]
    (tmp_path / "train.tsv").write_bytes(content.encode())
    examples, n_malformed = read_file(str(tmp_path / "train.tsv"), TASKS[name])
    assert examples == [Example(*each) for each in expected]
    assert n_malformed == (2 if name == "qqp" else 0)


def test_mnli_has_two_dev_sets_with_columns_of_their_own_and_gold_labels_last(tmp_path):
    folder = tmp_path / "MNLI"
    folder.mkdir()
    (folder / "train.tsv").write_text(FILES["mnli"][0])
    votes = "neutral\tneutral\tneutral\tneutral\tneutral"
    for file, gold in (("dev_matched.tsv", "contradiction"), ("dev_mismatched.tsv", "entailment")):
        (folder / file).write_text(MNLI_DEV_HEADER + f"0\t1\t2\tfiction\t(\t(\t(\t(\tA.\tB.\t{votes}\t{gold}\n")
    splits, _ = read_task("mnli", str(tmp_path))
    assert [splits[split][0].label for split in ("train", "valid", "valid1")] == ["neutral", "contradiction",
                                                                                    "entailment"]
    assert TASKS["mnli"].labels == ("entailment", "neutral", "contradiction")  # class numbers 0, 1, 2 of GLUE


@pytest.mark.parametrize("name, content, message", [
    ("cola", "a\t1\t\tfine\nb\t1\n", r"train.tsv, line 2: 2 columns found, expected 4"),
    ("cola", "a\t1\t\tfine\ttoo\n", r"train.tsv, line 1: 5 columns found, expected 4"),
    ("rte", "index\tsentence1\tsentence2\tlabel\n0\tA\ttab\tB\tentailment\n", "line 2: 5 columns found, expected 4"),
    ("rte", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n1\tA\n", "line 3: 2 columns found"),
    ("rte", "index\tsentence1\tsentence2\n0\tA\tB\n", "train.tsv is a file without labels"),
    ("rte", "index\ta\tb\tlabel\n0\tA\tB\tx\n", "is a file without the columns sentence1, sentence2"),
    ("sst-2", "sentence\tlabel\ngood\tpositive\n", "line 2: label 'positive' found, expected one of 0, 1"),
    ("sts-b", FILES["sts-b"][0].replace("5.000", "high"), "line 2: score 'high' found, expected a number from 0 to 5"),
    ("sts-b", FILES["sts-b"][0].replace("5.000", "nan"), "line 2: score 'nan' found, expected a number from 0 to 5"),
    ("sts-b", FILES["sts-b"][0].replace("5.000", "5.1"), "line 2: score '5.1' found, expected a number from 0 to 5"),
])
def test_a_file_that_is_not_the_tasks_is_refused_with_its_line(name, content, message, tmp_path):
    (tmp_path / "train.tsv").write_text(content)
    with pytest.raises(UsageError, match=f"^--glue: .*{message}"):
        read_file(str(tmp_path / "train.tsv"), TASKS[name])


def test_empty_lines_at_the_end_are_no_rows_and_other_bytes_than_utf8_are_refused(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text(FILES["rte"][0] + "\n\n")
    assert len(read_file(str(path), TASKS["rte"])[0]) == 1
    path.write_bytes(b"index\tsentence1\tsentence2\tlabel\n0\t\xff\tB\tentailment\n")
    with pytest.raises(UsageError, match="--glue: .*train.tsv is not UTF-8"):
        read_file(str(path), TASKS["rte"])


HUB_COLUMNS = {"cola": ["sentence"], "sst-2": ["sentence"], "qqp": ["question1", "question2"],
               "mnli": ["premise", "hypothesis"], "qnli": ["question", "sentence"]}


@pytest.mark.parametrize("name", GLUE)
def test_a_task_from_the_hub_has_its_splits_and_labels(name, monkeypatch):
    task, asked = TASKS[name], []
    columns = HUB_COLUMNS.get(name, ["sentence1", "sentence2"])
    number = 3.5 if task.regression else 1

    def load_dataset(*arguments):
        asked.append(arguments)
        rows = {**{column: [f"{column}  {i}" for i in range(4)] for column in columns},
                "label": [number] * 4, "idx": list(range(4))}
        splits = ["train", *hub_dev_names(task)]
        return {split: datasets.Dataset.from_dict(rows) for split in splits}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = read_from_hub(name, limit=2)
    assert asked == [("nyu-mll/glue", task.folder.lower().replace("-", ""))]
    assert list(splits) == ["train", "valid", "valid1"][:1 + len(task.dev)]
    expected = Example([f"{column} 1" for column in columns], "3.5" if task.regression else task.labels[1])
    assert all(len(part) == 2 and part[1] == expected for part in splits.values())


def test_an_example_of_the_hub_without_label_is_refused():
    with pytest.raises(UsageError, match="--from-hub: an example of RTE without label found"):
        hub_example({"sentence1": "A", "sentence2": "B", "label": -1, "idx": 0}, TASKS["rte"])


def test_an_empty_split_is_refused_and_a_limit_takes_the_first_rows(tmp_path):
    folder = tmp_path / "RTE"
    folder.mkdir()
    header = "index\tsentence1\tsentence2\tlabel\n"
    (folder / "train.tsv").write_text(header + "".join(f"{i}\tA{i}\tB\tentailment\n" for i in range(9)))
    (folder / "dev.tsv").write_text(header)
    with pytest.raises(UsageError, match="dev.tsv holds no examples, expected rows with labels"):
        read_task("rte", str(tmp_path))
    (folder / "dev.tsv").write_text(header + "0\tA\tB\tentailment\n")
    splits, _ = read_task("rte", str(tmp_path), limit=3)
    assert [example.texts[0] for example in splits["train"]] == ["A0", "A1", "A2"] and len(splits["valid"]) == 1


def test_all_missing_files_are_named_at_once(tmp_path):
    missing = missing_files(["cola", "mnli"], str(tmp_path))
    assert [path[len(str(tmp_path)) + 1:] for path in missing] == [
        "CoLA/train.tsv", "CoLA/dev.tsv", "MNLI/train.tsv", "MNLI/dev_matched.tsv", "MNLI/dev_mismatched.tsv"]


def test_the_hubs_rows_are_the_same_examples():
    assert hub_example({"premise": "A", "hypothesis": "B", "label": 2, "idx": 0}, TASKS["mnli"]) == Example(
        ["A", "B"], "contradiction")
    assert hub_example({"sentence1": "A", "sentence2": "B", "label": 3.8, "idx": 1}, TASKS["sts-b"]).label == "3.8"
    assert hub_dev_names(TASKS["mnli"]) == ["validation_matched", "validation_mismatched"]
    assert hub_dev_names(TASKS["rte"]) == ["validation"]


@pytest.mark.parametrize("lengths, room, expected", [((5, 3), 8, (5, 3)), ((9, 3), 8, (5, 3)), ((9, 9), 8, (4, 4)),
                                                     ((9,), 4, (4,)), ((0, 9), 4, (0, 4))])
def test_the_longer_of_two_texts_is_truncated(lengths, room, expected):
    texts = [list(range(length)) for length in lengths]
    assert [len(text) for text in truncate(texts, room)] == list(expected)
    assert all(text == list(range(len(text))) for text in truncate(texts, room))


@pytest.mark.slow
def test_docstring_tasks_are_balanced_the_same_each_time_and_do_not_name_their_answer(tmp_path, monkeypatch):
    small = ("email", "optim", "lib", "stats", "linear_model")  # of each library: all of it would take a minute
    roots = [os.path.join(*part) for part in zip(docstring_tasks.installed_roots(), small)]
    monkeypatch.setattr(docstring_tasks, "installed_roots", lambda: roots)
    for copy in "ab":
        write_docstring_tasks(str(tmp_path / copy), train=6, dev=3)
    for name in ("library", "order"):
        splits, _ = read_task(name, str(tmp_path / "a"))
        assert splits == read_task(name, str(tmp_path / "b"))[0]
        for split, each in (("train", 6), ("valid", 3)):
            counts = Counter(example.label for example in splits[split])
            assert set(counts) == set(TASKS[name].labels) and max(counts.values()) - min(counts.values()) <= 1
            assert sum(counts.values()) == 5 * each
        texts = [example.texts[0] for part in splits.values() for example in part]
        assert len(set(texts)) == len(texts)
    library, order = (read_task(name, str(tmp_path / "a"))[0]["train"] for name in ("library", "order"))
    assert not any(example.label in example.texts[0].lower() for example in library)
    for straight, other in zip(library, order):
        one, two = straight.texts[0].split(), other.texts[0].split()
        assert sorted(one) == sorted(two) and (one[0], one[-1]) == (two[0], two[-1])
        assert (straight.texts == other.texts) == (other.label == "intact")
