"""One (task, seed) of a run: every point of the grid trained and predicted, the best one kept.

    RUN/data/TASK/                   binarised, shared by all seeds (or in a folder that several runs share)
    RUN/TASK/seedN/POINT/            train.log, predictions of a grid point, score.json when finished; its best
                                     checkpoint while the unit runs, without optimizer and of the best point afterwards
    RUN/TASK/seedN/                  predictions of the best point, result.json when finished
"""

import json
import math
import os
import shutil
import sys
from typing import NamedTuple, Optional

import torch

from ..checkpoints.reading import read_checkpoint
from ..system.atomic_files import atomic_path, remove, write_json
from ..system.processes import PACKAGE, run_logged
from .metrics import official_score, read_predictions
from .predict import predictions_file
from .protocols import Protocol, grid, training_command
from .tasks import TASKS


class Unit(NamedTuple):
    task: str
    seed: int
    rows: int  # training examples
    protocol: Protocol
    run: str  # folder of the whole run
    data: str  # folder of the binarised task
    checkpoint: str
    model: dict  # sizes, as the checkpoint holds them
    threads: int
    device: Optional[str] = None  # number of the GPU; None = whatever there is
    more: tuple = ()  # further words for fairseq-train

    @property
    def folder(self):
        return os.path.join(self.run, self.task, f"seed{self.seed}")

    @property
    def result(self):
        return os.path.join(self.folder, "result.json")

    def is_finished(self):
        return os.path.exists(self.result)


def run_unit(unit):
    """Bring a unit to its end from wherever it was. Raises ProcessFailed."""
    scores = {point.folder(): run_point(unit, point) for point in grid(unit.protocol)}
    best = chosen(scores, unit.protocol)
    for dev in TASKS[unit.task].dev:
        name = predictions_file(unit.task, dev)
        with atomic_path(os.path.join(unit.folder, name)) as tmp:
            shutil.copyfile(os.path.join(unit.folder, best, name), tmp)
    tidy(unit, scores, best)
    seconds = sum(score["seconds"] for score in scores.values())
    write_json(unit.result, {"task": unit.task, "seed": unit.seed, "chosen": best, "grid": scores, "seconds": seconds,
                             "training examples": unit.rows})


def chosen(scores, protocol):
    """The point whose best epoch is the best on the dev set, by what the protocol goes by. An undefined score loses."""
    if protocol.best == "loss":
        return min(scores, key=lambda folder: scores[folder]["loss"])
    return max(scores, key=lambda folder: -math.inf if scores[folder]["dev"] is None else scores[folder]["dev"])


def tidy(unit, folders, best):
    """Nobody will go on from these checkpoints: the best keeps its weights, the others go."""
    for folder in folders:
        path = os.path.join(unit.folder, folder, "checkpoint_best.pt")
        if folder != best:
            remove(path)
            continue
        state = read_checkpoint(path, "--out")
        if state.pop("last_optimizer_state", None) is not None:
            with atomic_path(path) as tmp:
                torch.save(state, tmp)


def run_point(unit, point):
    """Train, predict and score a point of the grid, or read what it had scored."""
    folder = os.path.join(unit.folder, point.folder())
    finished = os.path.join(folder, "score.json")
    if os.path.exists(finished):
        with open(finished, encoding="utf-8") as file:
            return json.load(file)
    os.makedirs(folder, exist_ok=True)
    training = training_command(unit.task, unit.protocol, point, unit.seed, unit.rows, unit.model, unit.checkpoint,
                                unit.data, folder, PACKAGE, unit.more)
    log = os.path.join(folder, "train.log")
    run_logged([sys.executable, "-m", "fairseq_cli.train", *training], log, unit.threads, unit.device)
    best = os.path.join(folder, "checkpoint_best.pt")
    predicting = ("import sys; from entropy_mask_plugin import register; register(); "
                  "from entropy_mask_plugin.glue.predict import predict; predict(*sys.argv[1:])")
    run_logged([sys.executable, "-c", predicting, unit.task, best, unit.data, folder],
               os.path.join(folder, "predict.log"), unit.threads, unit.device)
    first_dev = next(iter(TASKS[unit.task].dev))
    predictions = read_predictions(os.path.join(folder, predictions_file(unit.task, first_dev)), TASKS[unit.task])
    last = os.path.join(folder, "checkpoint_last.pt")
    after = read_checkpoint(last, "--out")["extra_state"]
    dev = official_score(TASKS[unit.task], predictions)
    score = {"dev": None if math.isnan(dev) else dev, unit.protocol.best: after["best"],
             "seconds": after["previous_training_time"]}  # over all interruptions
    write_json(finished, score)
    remove(last)  # only a run that goes on needs it
    return score
