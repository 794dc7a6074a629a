"""Scores are scikit-learn's, collapsed runs are marked, intervals are right where they are known."""

import csv
import json
import math

import numpy as np
import pytest
from builders.glue import planted, write_settings, write_trial
from scipy import stats
from sklearn import metrics as reference

from entropy_mask_plugin.glue import bootstrap, report
from entropy_mask_plugin.glue.bootstrap import paired_bootstrap
from entropy_mask_plugin.glue.cells import read_fine_tuning_run, read_fine_tuning_runs
from entropy_mask_plugin.glue.metrics import (
    FUNCTIONS,
    Predictions,
    majority_baseline,
    official_score,
    read_predictions,
    score,
)
from entropy_mask_plugin.glue.paper import PAPER_CELLS, PAPER_ROWS
from entropy_mask_plugin.glue.table import score_records
from entropy_mask_plugin.glue.tasks import TASKS
from entropy_mask_plugin.system.errors import UsageError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """`base` and `better` over four tasks, two seeds; `lazy` collapsed on RTE in one."""
    monkeypatch.setattr(bootstrap, "RESAMPLES_OF_SCORES", 100)  # 1000 take seconds
    for run, right, first in (("base", 0.6, 1), ("better", 0.9, 11)):
        for name in ("cola", "mrpc", "sts-b", "mnli"):
            for seed in (1, 2):
                write_trial(tmp_path / run, name, seed, planted(TASKS[name], first + seed, right=right))
    for seed in (1, 2):
        gold = planted(TASKS["rte"], 0).gold
        write_trial(tmp_path / "lazy", "rte", seed, Predictions(gold, np.ones_like(gold) if seed == 1 else gold))
    for run in ("base", "better", "lazy"):
        write_settings(tmp_path / run)
    return tmp_path


@pytest.mark.parametrize("name", TASKS)
def test_scores_from_the_file_are_scikit_learns_and_scipys(name, tmp_path):
    task = TASKS[name]
    predictions = planted(task, 3)
    write_trial(tmp_path, name, 1, predictions)
    read = read_predictions(str(tmp_path / name / "seed1" / "predictions.tsv"), task)
    gold, predicted = predictions
    expected = {
        "pearson": lambda: stats.pearsonr(gold, predicted)[0], "spearman": lambda: stats.spearmanr(gold, predicted)[0],
        "accuracy": lambda: np.mean(gold == predicted), "mcc": lambda: reference.matthews_corrcoef(gold, predicted),
        "f1": lambda: reference.f1_score(gold, predicted),
    }
    for metric in {*task.official, *([task.paper] if task.paper else [])}:
        assert score(metric, read) == pytest.approx(100 * expected[metric](), abs=1e-9)
    assert official_score(task, read) == pytest.approx(np.mean([100 * expected[m]() for m in task.official]))


def test_f1_is_that_of_the_second_class_also_where_nobody_predicts_it():
    assert score("f1", Predictions(np.array([0, 1, 1]), np.array([0, 0, 0]))) == 0
    assert score("f1", Predictions(np.array([1, 1, 0]), np.array([1, 0, 0]))) == pytest.approx(200 / 3)
    assert set(FUNCTIONS) >= {metric for task in TASKS.values() for metric in task.official}


def test_a_correlation_of_a_constant_is_undefined_not_zero():
    assert math.isnan(score("pearson", Predictions(np.array([1.0, 2.0]), np.array([3.0, 3.0]))))


def test_the_majority_baseline_is_the_best_of_all_classes():
    gold = np.array([1] * 7 + [0] * 3)
    assert majority_baseline(["accuracy"], gold, TASKS["mrpc"]) == pytest.approx(70)
    assert majority_baseline(["f1"], gold, TASKS["mrpc"]) == pytest.approx(100 * 2 * 7 / (2 * 7 + 3))
    assert majority_baseline(["mcc"], gold, TASKS["cola"]) == 0
    assert majority_baseline(["accuracy"], np.array([2, 2, 0, 1]), TASKS["mnli"]) == 50


def test_the_majority_baseline_of_two_metrics_is_one_class_not_the_best_for_each():
    gold = np.array([0] * 6 + [1] * 4)  # all 0: F1 0, accuracy 60; all 1: F1 57.1, accuracy 40
    assert majority_baseline(["f1", "accuracy"], gold, TASKS["qqp"]) == pytest.approx((100 * 8 / 14 + 40) / 2)


@pytest.mark.parametrize("predicted, expected", [
    ([0] * 100, True), ([1] + [0] * 99, True), ([1, 1] + [0] * 98, False), ([2.5] * 100, True),
    (np.linspace(2.4999, 2.5001, 100), True), (np.linspace(2, 3, 100), False),
])
def test_nearly_collapsed_is_collapsed(predicted, expected):
    assert Predictions(np.arange(100) % 6, np.array(predicted)).is_collapsed() == expected


def test_the_bootstrap_interval_is_the_binomials_where_only_one_run_errs():
    """Accuracies 100 % and 80 % over n examples: the difference is a binomial share of mean 0.2."""
    n = 400
    gold = np.zeros(n, dtype=int)
    wrong = (np.arange(n) % 5 == 0).astype(int)
    difference, low, high = paired_bootstrap(TASKS["rte"], [Predictions(gold, gold)], [Predictions(gold, wrong)])
    spread = 100 * 1.96 * math.sqrt(0.2 * 0.8 / n)
    assert difference == pytest.approx(20)
    assert low == pytest.approx(20 - spread, abs=0.4) and high == pytest.approx(20 + spread, abs=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cola", "mrpc", "rte", "mnli"])
def test_counts_of_patterns_give_the_interval_of_drawing_rows(name):
    """Against rows drawn one by one and scikit-learn's metrics, two seeds each."""
    task = TASKS[name]
    ours, theirs = ([planted(task, seed, 150, right) for seed in seeds] for seeds, right in (((1, 2), 0.8),
                                                                                             ((3, 4), 0.6)))
    difference, low, high = paired_bootstrap(task, ours, theirs)
    of = lambda seeds, rows: np.mean([official_score(task, seed.at(rows)) for seed in seeds])  # noqa: E731
    draws = np.random.default_rng(2).integers(0, 150, (500, 150))
    plain = np.array([of(ours, rows) - of(theirs, rows) for rows in draws])
    assert difference == pytest.approx(of(ours, np.arange(150)) - of(theirs, np.arange(150)))
    assert (low, high) == pytest.approx(tuple(np.percentile(plain, (2.5, 97.5))), abs=0.25 * (high - low))
    assert np.mean(bootstrap.resampled(task, ours, theirs)) == pytest.approx(plain.mean(), abs=0.1 * (high - low))


@pytest.mark.parametrize("metric", bootstrap.FROM_COUNTS)
@pytest.mark.parametrize("gold, predicted", [([0, 1, 1, 0], [0, 1, 0, 0]), ([0, 1, 0], [0, 0, 0]), ([1, 1], [1, 1]),
                                             ([0, 0, 0], [0, 0, 1]), ([0, 0], [0, 0])])
def test_scores_from_counts_are_scikit_learns(metric, gold, predicted):
    confusion = np.zeros((1, 2, 2))
    np.add.at(confusion[0], (gold, predicted), 1)
    expected = score(metric, Predictions(np.array(gold), np.array(predicted)))
    assert 100 * bootstrap.FROM_COUNTS[metric](confusion)[0] == pytest.approx(expected)


def test_runs_over_different_examples_are_not_compared():
    with pytest.raises(UsageError, match="RTE: the two runs are over different dev sets"):
        paired_bootstrap(TASKS["rte"], [planted(TASKS["rte"], 1)], [planted(TASKS["rte"], 1, examples=100)])


def test_every_cell_has_its_majority_baseline_its_seeds_and_the_difference_to_the_baseline(runs):
    base, better = read_fine_tuning_runs([str(runs / "base"), str(runs / "better")])
    rows = score_records([base, better], base)
    cells = {(row["task"], row["run"]): row for row in rows if "n_examples" in row}
    assert {task for task, _ in cells} == {"CoLA", "MRPC", "STS-B", "MNLI-matched", "MNLI-mismatched"}  # none invented
    cola = cells["CoLA", "better"]
    seeds = [official_score(TASKS["cola"], planted(TASKS["cola"], seed, right=0.9)) for seed in (12, 13)]
    assert cola["official_score_pct"] == pytest.approx(np.mean(seeds))
    assert cola["official_std_pct"] == pytest.approx(np.std(seeds, ddof=1))
    assert cola["paper_metric"] == "accuracy" and cola["official_metric"] == "mcc" and cola["seconds"] == 122
    base_score = cells["CoLA", "base"]["official_score_pct"]
    assert cola["difference_points"] == pytest.approx(cola["official_score_pct"] - base_score)
    assert 0 < cola["difference_low_points"] < cola["difference_points"] < cola["difference_high_points"]
    assert "difference_points" not in cells["CoLA", "base"]
    assert "paper_score_pct" not in cells["STS-B", "base"]  # the paper has none


def test_averages_are_those_of_the_cells_and_say_over_how_many(runs):
    (base,) = read_fine_tuning_runs([str(runs / "base")])
    (average,) = [row for row in score_records([base]) if "n_examples" not in row]
    assert average["task"] == "mean of 4 tasks, of 3 in the paper"
    official = {row["task"]: row["official_score_pct"] for row in score_records([base]) if "n_examples" in row}
    mnli = np.mean([official.pop("MNLI-matched"), official.pop("MNLI-mismatched")])
    paper = [row["paper_score_pct"] for row in score_records([base]) if row["task"] in PAPER_CELLS]
    assert average["official_score_pct"] == pytest.approx(np.mean([*official.values(), mnli]))
    assert average["paper_score_pct"] == pytest.approx(np.mean(paper))


def test_averages_of_several_runs_are_over_the_tasks_that_all_have_a_score_for(runs):
    write_trial(runs / "better", "rte", 1, planted(TASKS["rte"], 5))
    constant = planted(TASKS["sts-b"], 1)._replace(predicted=np.full(200, 2.5))
    write_trial(runs / "base", "qqp", 1, planted(TASKS["qqp"], 5))
    write_trial(runs / "undefined", "sts-b", 1, constant)
    write_trial(runs / "undefined", "cola", 1, planted(TASKS["cola"], 5))
    read = read_fine_tuning_runs([str(runs / name) for name in ("base", "better", "undefined")])
    records = score_records(read, read[0], ["BERT high"])
    means = [record for record in records if "n_examples" not in record and "n_seeds" not in record]
    assert [row["task"] for row in means] == ["mean of 1 task, of 1 in the paper"] * 3 + ["mean of 1 in the paper"]
    assert means[2]["official_score_pct"] == official_score(TASKS["cola"], planted(TASKS["cola"], 5))
    folders = [str(runs / name) for name in ("base", "better", "undefined")]
    text = report.write_glue_report(folders, str(runs / "out"), "base")
    (line,) = [line for line in text.splitlines() if line.startswith("| STS-B") and "| undefined |" in line]
    assert "undefined COLLAPSED" in line and "nan" not in text


def test_runs_of_different_settings_are_marked(runs):
    write_settings(runs / "better", limit=100)
    text = report.write_glue_report([str(runs / "base"), str(runs / "better")], str(runs / "out"), "base")
    assert "better: learning rates 5e-05, best loss; LIMITED to the first 100 examples." in text
    assert "CAUTION: better and base have different settings (limit)" in text and text.count("| better LIMITED") == 5
    text = report.write_glue_report([str(runs / "base"), str(runs / "lazy")], str(runs / "out"), "base")
    assert "CAUTION" not in text


def test_runs_of_one_name_are_told_apart_and_a_folder_may_be_the_baseline(runs):
    (runs / "elsewhere").mkdir()
    (runs / "better").rename(runs / "elsewhere" / "base")
    folders = [str(runs / "base"), str(runs / "elsewhere" / "base")]
    assert [run.name for run in read_fine_tuning_runs(folders)] == [f"{runs.name}/base", "elsewhere/base"]
    assert "[" in report.write_glue_report(folders, str(runs / "out"), folders[0])
    with pytest.raises(UsageError, match="^RUN: .* found, expected different folders"):
        read_fine_tuning_runs([folders[0], folders[0] + "/"])


def test_unfinished_seeds_are_counted_and_other_folders_are_none(runs):
    (runs / "base" / "cola" / "seed3").mkdir()
    (runs / "base" / "cola" / "seed1.bak").mkdir()
    text = report.write_glue_report([str(runs / "base")], str(runs / "out"))
    (line,) = [line for line in text.splitlines() if line.startswith("| CoLA")]
    assert "| 2 of 3" in line and "| 3,668" in line


def test_collapsed_predictions_are_marked_whatever_their_score(runs):
    text = report.write_glue_report([str(runs / "lazy")], str(runs / "out"))
    (line,) = [line for line in text.splitlines() if line.startswith("| RTE")]
    assert line.count("COLLAPSED in 1 of 2") == 2


def test_the_papers_rows_can_be_put_beside_with_true_means(runs):
    rows = score_records(read_fine_tuning_runs([str(runs / "base")]), with_paper=["BERTlet marginal"])
    assert [row["paper_score_pct"] for row in rows if row["run"] == "paper: BERTlet marginal"][:2] == [69.03, 79.94]
    assert np.mean(PAPER_ROWS["BERTlet marginal"]) == pytest.approx(71.77, abs=0.01)  # printed: 64.17


def test_a_single_class_score_in_the_paper_is_marked(runs):
    gold = np.array([0] * 131 + [1] * 146)  # GLUE's RTE: 52.71 % of the dev set are one class
    write_trial(runs / "ours", "rte", 1, Predictions(gold, gold))
    text = report.write_glue_report([str(runs / "ours")], str(runs / "out"), None, ["BERT mid", "BERT low"])
    paper = [line for line in text.splitlines() if line.startswith("| RTE") and "paper:" in line]
    assert "52.71 COLLAPSED" in paper[0] and "54.51" in paper[1] and "COLLAPSED" not in paper[1]


def test_the_same_table_comes_as_markdown_csv_json_latex_and_picture(runs):
    folders = [str(runs / name) for name in ("base", "better")]
    text = report.write_glue_report(folders, str(runs / "out"), "base", ["BERTlet random"])
    assert (runs / "out" / "table.md").read_text() == text and "paper: BERTlet random" in text
    with open(runs / "out" / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    as_json = json.loads((runs / "out" / "table.json").read_text())
    assert [row["task"] for row in rows] == [row["task"] for row in as_json["records"]]
    assert float(rows[0]["official_score_pct"]) == as_json["records"][0]["official_score_pct"]
    assert len(as_json["notes"]) == 3
    comments, tabular = (runs / "out" / "table.tex").read_text().split("\\begin{tabular}")
    assert "COLLAPSED" in comments and "difference [95" in tabular and "Δ" not in tabular
    assert (runs / "out" / "table.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("arguments, message", [
    (("base",), "--baseline: base found, expected one of lazy"),
    ((None, ["BERT"]), "--paper: BERT found, expected one of"),
])
def test_names_that_are_not_there_are_refused(arguments, message, runs):
    with pytest.raises(UsageError, match=message):
        report.write_glue_report([str(runs / "lazy")], str(runs / "out"), *arguments)
    with pytest.raises(UsageError, match="no finished fine-tuning found, expected TASK/seedN/result.json"):
        read_fine_tuning_run(str(runs), "runs")
    (runs / "lazy" / "settings.json").write_text("{")
    with pytest.raises(UsageError, match="settings.json is damaged"):
        read_fine_tuning_runs([str(runs / "lazy")])
    with pytest.raises(UsageError, match="^--out: .*/settings.json "):
        report.write_glue_report([str(runs / "base")], str(runs / "base" / "settings.json"))


OLD_SETTINGS = {"checkpoint": "base.pt", "content of the checkpoint": "c0ffee", "freeze encoder": True, "limit": 100,
                "protocol": {"learning_rates": [5e-5], "best": "loss"}, "more flags": ["--cpu"]}


def test_a_run_of_an_older_version_is_read_as_one_of_this(runs):
    (runs / "base" / "settings.json").write_text(json.dumps(OLD_SETTINGS))
    for path in (runs / "base").glob("*/seed*/result.json"):
        path.write_text(json.dumps({"seconds": 61, "training examples": 3668}))
    text = report.write_glue_report([str(runs / "base")], str(runs / "out"))
    assert "base: learning rates 5e-05, best loss; encoder frozen; LIMITED to the first 100 examples; --cpu." in text
    (line,) = [line for line in text.splitlines() if line.startswith("| CoLA")]
    assert "| 3,668" in line and "2 min 2 s" in line


def test_records_that_cannot_be_read_are_named_with_what_is_missing(runs):
    (runs / "base" / "settings.json").write_text(json.dumps({"more flags": [], "lr": 1}))
    with pytest.raises(UsageError, match=r"base/settings.json: a record with extra_args, lr found, expected protocol, "
                                         "freeze_encoder, limit in it"):
        read_fine_tuning_runs([str(runs / "base")])
    (runs / "base" / "cola" / "seed1" / "result.json").write_text("[]")
    with pytest.raises(UsageError, match=r"seed1/result.json is damaged \(a list\), expected JSON as it was written"):
        read_fine_tuning_runs([str(runs / "base")])


def test_predictions_without_a_line_are_refused(tmp_path):
    (tmp_path / "predictions.tsv").write_text("index\tgold\tpredicted\n")
    with pytest.raises(UsageError, match="predictions.tsv: no predictions found, expected a line for each example"):
        read_predictions(str(tmp_path / "predictions.tsv"), TASKS["sts-b"])
