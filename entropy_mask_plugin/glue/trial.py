"""One (task, seed) of a run: every point of the grid trained and predicted, the best one kept.

    RUN/data/TASK/                   binarised, shared by all seeds (or in a folder that several runs share)
    RUN/TASK/seedN/POINT/            train.log, predictions of a grid point, score.json when finished; its best
                                     checkpoint while the trial runs, without optimizer and of the best point afterwards
    RUN/TASK/seedN/                  predictions of the best point, result.json when finished
"""

import math
import os
import shutil
import sys
from typing import Any, Dict, Iterable, NamedTuple, Optional, Tuple

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.writing import write_checkpoint
from ..reporting.records import NONE, NUMBER, read_record
from ..system.atomic_files import atomic_path, remove, write_json
from ..system.processes import PACKAGE, run_logged
from .metrics import official_score, read_predictions
from .predict import predictions_file
from .protocols import Point, Protocol, glue_train_command, grid
from .tasks import TASKS

PREDICT = ("import sys; from entropy_mask_plugin import register; register(); "
           "from entropy_mask_plugin.glue.predict import predict; predict(*sys.argv[1:])")
SCORE_KEY = {"loss": "loss_bits", "metric": "metric"}  # `Protocol.best` -> its key in score.json


class GlueTrial(NamedTuple):
    task: str
    seed: int
    n_train_examples: int
    protocol: Protocol
    run: str  # folder of the whole run
    data: str  # folder of the binarised task
    checkpoint: str
    model: Dict[str, Any]  # arch and sizes, as the checkpoint holds them
    threads: int
    device: Optional[str] = None  # number of the GPU; None = whatever there is
    extra_args: Tuple[str, ...] = ()  # for fairseq-train

    @property
    def folder(self) -> str:
        return os.path.join(self.run, self.task, f"seed{self.seed}")

    @property
    def result(self) -> str:
        return os.path.join(self.folder, "result.json")

    def is_finished(self) -> bool:
        return os.path.exists(self.result)


def run_trial(trial: GlueTrial) -> None:
    """Bring a trial to its end from wherever it was.

    Raises:
        ProcessFailed: a training or a prediction did.
    """
    scores = {point.folder(): run_point(trial, point) for point in grid(trial.protocol)}
    best = best_point(scores, trial.protocol)
    for dev in TASKS[trial.task].dev:
        name = predictions_file(trial.task, dev)
        with atomic_path(os.path.join(trial.folder, name)) as tmp:
            shutil.copyfile(os.path.join(trial.folder, best, name), tmp)
    prune_checkpoints(trial, scores, best)
    seconds = sum(score["seconds"] for score in scores.values())
    write_json(trial.result, {"task": trial.task, "seed": trial.seed, "chosen": best, "grid": scores,
                              "seconds": seconds, "n_train_examples": trial.n_train_examples})


def best_point(scores: Dict[str, Dict[str, Any]], protocol: Protocol) -> str:
    """The point whose best epoch is the best on the dev set, by the protocol's criterion. An undefined score loses.

    Args:
        scores: {folder of a point: its score.json}.
        protocol: whose `best` is the criterion.
    """
    if protocol.best == "loss":
        return min(scores, key=lambda folder: scores[folder]["loss_bits"])
    dev = {folder: score["dev_score_pct"] for folder, score in scores.items()}
    return max(scores, key=lambda folder: -math.inf if dev[folder] is None else dev[folder])


def prune_checkpoints(trial: GlueTrial, folders: Iterable[str], best: str) -> None:
    """No training resumes from these checkpoints: the best keeps its weights, the others are deleted."""
    for folder in folders:
        path = os.path.join(trial.folder, folder, "checkpoint_best.pt")
        if folder != best:
            remove(path)
            continue
        state = read_checkpoint(path, "--out")
        if state.pop("last_optimizer_state", None) is not None:
            with atomic_path(path) as tmp:
                write_checkpoint(tmp, state)


def run_point(trial: GlueTrial, point: Point) -> Dict[str, Any]:
    """Train, predict and score a point of the grid, or read its score.json: the official score on the dev set in per
    cent (None = undefined), the best loss or metric that fairseq saw there, seconds of training."""
    folder = os.path.join(trial.folder, point.folder())
    finished = os.path.join(folder, "score.json")
    if os.path.exists(finished):
        return read_record(finished, {"dev_score_pct": (*NUMBER, *NONE), SCORE_KEY[trial.protocol.best]: NUMBER,
                                      "seconds": NUMBER})
    os.makedirs(folder, exist_ok=True)
    command = glue_train_command(trial.task, trial.protocol, point, trial.seed, trial.n_train_examples, trial.model,
                                 trial.checkpoint, trial.data, folder, PACKAGE, trial.extra_args)
    run_logged([sys.executable, "-m", "fairseq_cli.train", *command], os.path.join(folder, "train.log"), trial.threads,
               trial.device)
    run_logged([sys.executable, "-c", PREDICT, trial.task, os.path.join(folder, "checkpoint_best.pt"), trial.data,
                folder], os.path.join(folder, "predict.log"), trial.threads, trial.device)
    first_dev = next(iter(TASKS[trial.task].dev))
    predictions = read_predictions(os.path.join(folder, predictions_file(trial.task, first_dev)), TASKS[trial.task])
    last = os.path.join(folder, "checkpoint_last.pt")
    state = read_checkpoint(last, "--out")["extra_state"]
    dev = official_score(TASKS[trial.task], predictions)
    score = {"dev_score_pct": None if math.isnan(dev) else dev, SCORE_KEY[trial.protocol.best]: state["best"],
             "seconds": state["previous_training_time"]}  # over all interruptions
    write_json(finished, score)
    remove(last)  # only a resumed run needs it
    return score
