"""GLUE-like files, and the files of finished fine-tunings."""

import json
import random

import numpy as np

from entropy_mask_plugin.glue.metrics import Predictions
from entropy_mask_plugin.glue.tasks import TASKS

WORDS = ["the", "value", "of", "a", "list", "return", "name", "file", "is", "string"]


def write_glue(folder):
    """RTE, STS-B and MNLI in GLUE's layout: the label is whether, or how often, the second text repeats the first."""
    draw = random.Random(0)
    pair = lambda: (" ".join(draw.choices(WORDS, k=4)), " ".join(draw.choices(WORDS, k=4)))  # noqa: E731
    def rows(columns, line, count):
        return "\t".join(columns) + "\n" + "".join("\t".join(line(i, *pair())) + "\n" for i in range(count))
    rte = lambda i, a, b: (str(i), a, a if i % 2 else b, ("not_entailment", "entailment")[i % 2])  # noqa: E731
    sts = lambda i, a, b: (str(i), a, a if i % 2 else b, str(5.0 * (i % 2)))  # noqa: E731
    mnli = lambda i, a, b: (a, b, TASKS["mnli"].labels[i % 3])  # noqa: E731
    tables = {
        "RTE": (("index", "sentence1", "sentence2", "label"), rte, ("dev",)),
        "STS-B": (("index", "sentence1", "sentence2", "score"), sts, ("dev",)),
        "MNLI": (("sentence1", "sentence2", "gold_label"), mnli, ("dev_matched", "dev_mismatched")),
    }
    for task, (columns, line, devs) in tables.items():
        (folder / task).mkdir(parents=True)
        (folder / task / "train.tsv").write_text(rows(columns, line, 48))
        for number, dev in enumerate(devs):
            (folder / task / f"{dev}.tsv").write_text(rows(columns, line, 15 + number))
    return folder


def planted(task, seed, examples=200, right=0.7):
    """Gold labels that a seed does not change, and predictions of which about `right` agree with them."""
    gold = np.random.default_rng(0).integers(0, max(2, len(task.labels)), examples)
    draw = np.random.default_rng(seed)
    wrong = draw.random(examples) > right
    predicted = np.where(wrong, (gold + 1) % max(2, len(task.labels)), gold)
    if task.regression:
        return Predictions(gold + draw.normal(0, 0.1, examples) * 0 + np.arange(examples) / 100, predicted + 0.5)
    return Predictions(gold, predicted)


def write_trial(run, name, seed, predictions):
    """What a finished trial leaves."""
    task = TASKS[name]
    folder = run / name / f"seed{seed}"
    folder.mkdir(parents=True)
    word = str if task.regression else lambda number: task.labels[number]
    for dev in task.dev:
        file = "predictions.tsv" if dev == next(iter(task.dev)) else f"predictions-{dev}.tsv"
        rows = [("index", "gold", "predicted")]
        rows += [(str(i), word(g), word(p)) for i, (g, p) in enumerate(zip(*map(np.ndarray.tolist, predictions)))]
        (folder / file).write_text("".join("\t".join(row) + "\n" for row in rows))
    (folder / "result.json").write_text(json.dumps({"seconds": 61, "n_train_examples": 3668}))


def write_settings(run, **different):
    protocol = {"learning_rates": [5e-5], "best": "loss"}
    settings = {"checkpoint": f"{run}.pt", "protocol": protocol, "freeze_encoder": False, "limit": None,
                "extra_args": [], **different}
    (run / "settings.json").write_text(json.dumps(settings))
