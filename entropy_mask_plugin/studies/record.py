"""record.json of a finished trial.

Costs are counted on four axes: updates, tokens, FLOPs and hours. FLOPs follow from the architecture (models/flops.py)
and from what each epoch computed: the training step; a model's own entropy pass in its self-masking epochs; the
teacher's, once over the data where a cache keeps its entropies, else in every epoch; the teacher's predictions while
it distils.
"""

import os
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from ..checkpoints.reading import read_checkpoint
from ..config import recorded_corruption, recorded_guided_fraction, recorded_lengths, source_schedule
from ..glue.protocols import arch_args, model_settings
from ..glue.tasks import TASKS
from ..masking.rates import mean_over, rate_at
from ..masking.scores import SCORES
from ..models.bert import BertModel
from ..models.flops import macs_of_step
from ..reporting.comparison import PAIRS
from ..reporting.drift import drift
from ..reporting.flops_table import build_meta_model
from ..reporting.records import LIST, NONE, NUMBER, OBJECT, TEXT, read_record
from ..reporting.training_log import (
    TRAIN_LOG,
    PretrainingRun,
    dictionary_unigram_entropy,
    event_of_length,
    read_pretraining_run,
)
from ..scoring import schedule
from ..scoring.sources import SOURCES, models_read
from ..system.atomic_files import read_bytes, write_json
from ..system.errors import require
from .options import StudyOptions
from .plan import FINISHED, Step, StudyTrial


def write_record(options: StudyOptions, trial: StudyTrial, steps: Sequence[Step], identity: Dict[str, Any]) -> None:
    """Write record.json of a trial whose steps are all finished."""
    before = read_trial_record(trial.record(options)) if os.path.exists(trial.record(options)) else None
    glue = (before["identity"]["glue"] if before else {}) | identity["glue"]  # a task that was added is one more
    folders = {step.kind: step.folder for step in steps}
    record = {"condition": trial.condition, "corruption": trial.corruption, "seed": trial.seed,
              "identity": identity | {"glue": glue}, "commands": [step.shell_line() for step in steps],
              "fine_tuning": finished(folders["fine-tuning"]) | {"drift": drift_by_task(steps[-1], trial)}}
    del record["fine_tuning"]["peak_memory_bytes"]  # of the script, not of the trainings that it starts
    if "pretraining" in folders:
        record["pretraining"] = finished(folders["pretraining"]) | account(folders["pretraining"])
    write_json(trial.record(options), record)


def finished(folder: str) -> Dict[str, Any]:
    """finished.json of a step."""
    return read_record(os.path.join(folder, FINISHED), {"peak_memory_bytes": (*NUMBER, *NONE)})


def read_trial_record(path: str) -> Dict[str, Any]:
    """A record.json.

    Raises:
        UsageError: damaged, or no record of a study.
    """
    return read_record(path, {"condition": TEXT, "identity": OBJECT, "commands": LIST, "fine_tuning": OBJECT})


def is_recorded(options: StudyOptions, trial: StudyTrial) -> bool:
    """Whether its record.json exists, with all tasks of the options."""
    path = trial.record(options)
    return os.path.exists(path) and set(options.tasks) <= read_trial_record(path)["fine_tuning"]["drift"].keys()


def account(folder: str) -> Dict[str, Any]:
    """Curves and costs of a pretraining, from the folder that fairseq-train left."""
    run = read_pretraining_run(folder)
    dictionary = os.path.join(run.flags["task"]["data"].split(":")[0], "dict.txt")
    costs = costs_of(run)
    valid = [{"updates": log["num_updates"], "tokens": tokens_at(costs, log["num_updates"]),
              "flops": flops_at(costs, log["num_updates"]), "hours": float(run.hours_at(log["num_updates"])),
              "loss_bits": log["loss"], "accuracy": log["accuracy"], **({PAIRS: log[PAIRS]} if PAIRS in log else {})}
             for log in run.valid]
    last, events = run.train[-1], run.events()
    return {
        "unigram_entropy_bits": dictionary_unigram_entropy(dictionary), "valid": valid, **valid[-1],
        "events": [{"updates": updates, "event": event} for updates, event in events],
        "events_not_reached": sorted(set(expected_events(run.flags)) - {event for _, event in events}),
        "train_loss_bits": last.get("loss"), "entropy_nats": last.get("entropy"),
        "masked_entropy_nats": last.get("entropy_masked"), "epochs": last["epoch"],
        "peak_gpu_memory_bytes": peak_gpu_memory_bytes(folder),
    }


def peak_gpu_memory_bytes(folder: str) -> Optional[float]:
    """From fairseq's log, which has it to a tenth of a GB: the GPU's memory less the least that was free; None without
    a GPU."""
    text = read_bytes(os.path.join(folder, TRAIN_LOG)).decode(errors="replace")
    free, total = re.findall(r"gb_free=([\d.]+)", text), re.findall(r"total memory = ([\d.]+) GB", text)
    return 2**30 * (max(map(float, total)) - min(map(float, free))) if free and total else None


def expected_events(flags: Dict[str, Any]) -> List[str]:
    """Those that the flags schedule for a later epoch than the first."""
    task, criterion = flags["task"], flags["criterion"]
    events = [event_of_length(length) for length in recorded_lengths(task)[1:]]
    if (source_schedule(task).switch or 0) > 1:
        events.append("self-masking begins")
    if criterion["kd_weight"] and criterion["kd_start_epoch"] > 1:
        events.append("distillation begins")
    return events


class Costs(NamedTuple):
    """Of a pretraining up to each of its points, the start and the epochs' ends; linear between them."""

    updates: List[float]
    tokens: List[float]
    flops: List[float]


def costs_of(run: PretrainingRun) -> Costs:
    costs = Costs([0.0], [0.0], [0.0])
    for log, per_token in zip(run.train, flops_per_token(run)):
        costs.updates.append(log["num_updates"])
        costs.tokens.append(float(run.tokens_at(log["num_updates"])))
        costs.flops.append(costs.flops[-1] + (costs.tokens[-1] - costs.tokens[-2]) * per_token)
    return costs


def tokens_at(costs: Costs, updates: float) -> float:
    return float(np.interp(updates, costs.updates, costs.tokens))


def flops_at(costs: Costs, updates: float) -> float:
    return float(np.interp(updates, costs.updates, costs.flops))


def flops_per_token(run: PretrainingRun) -> Iterator[float]:
    """FLOPs of a token in each epoch of a run."""
    task, criterion = run.flags["task"], run.flags["criterion"]
    longest = run.lengths()[-1]
    student = model_of_settings(run.flags["model"], run.vocabulary, longest)
    teacher = None
    if task["teacher"]:
        settings = model_settings(read_checkpoint(task["teacher"], "--teacher"), task["teacher"], "--teacher")
        teacher = model_of_settings(settings, run.vocabulary, longest)
    corruption = recorded_corruption(task)
    shards, sources, score = len(task["data"].split(":")), source_schedule(task), task.get("mask_score", "entropy")
    require(SCORES.flag, score, score in SCORES, SCORES.expected(score))
    for log, (begin, end) in zip(run.train, run.progress_of_epochs(), strict=True):
        name, length = sources.at(log["epoch"]), run.length_of(log["epoch"])
        since = run.first_epoch_like(log["epoch"])  # scores on disk are of blocks as long as these
        require(SOURCES.flag, name, name is None or name in SOURCES, SOURCES.expected(name))
        scored = set(models_read(name))
        if scored & {"self", "ema"} and log["epoch"] != schedule.epoch_of_self_entropies(
                log["epoch"], max(since, sources.first_epoch_of(name)), task.get("self_entropy_every", 1), shards):
            scored -= {"self", "ema"}  # kept from an earlier pass over the data
        if task["entropy_cache"] and log["epoch"] - since >= shards:
            scored -= {"teacher"}  # on disk since the first pass over the data
        distils = schedule.distils(log["epoch"], criterion["kd_weight"], criterion["kd_start_epoch"])

        def macs_at(progress, scored=tuple(scored), distils=distils, length=length):
            rate = task["mask_count"] / length if task["mask_count"] else rate_at(corruption.mask_prob, progress)
            fractions = corruption._replace(mask_prob=rate)
            return macs_of_step(student, length, fractions, teacher, scored, distils, SCORES[score].traits["needs"],
                                task.get("entropy_folds", 1), scored_rows_at(task, progress))

        yield 2 * mean_over(macs_at, begin, end)


def scored_rows_at(task: Dict[str, Any], progress: float) -> float:
    """The fraction of the sentences that are scored. task: its settings, as a checkpoint holds them."""
    guided = recorded_guided_fraction(task)
    return rate_at(guided, progress) if task.get("guided_by") == "sequences" else float(guided != 0)


def model_of_settings(settings: Dict[str, Any], vocabulary: int, length: int) -> BertModel:
    """settings: of `glue.protocols.model_settings`."""
    arch, *flags = arch_args(settings)[1:]
    return build_meta_model(arch, vocabulary, length, flags)


def drift_by_task(tuning: Step, trial: StudyTrial) -> Dict[str, List[List[Any]]]:
    """{task: [[part, component, relative Frobenius change, mean element-wise change in per cent]]} of all tasks that
    were fine-tuned."""
    before = read_checkpoint(tuning.command[tuning.command.index("--checkpoint") + 1], "--checkpoint")["model"]
    changes = {}
    for task in TASKS:
        folder = os.path.join(tuning.folder, task, f"seed{trial.seed}")
        if not os.path.exists(os.path.join(folder, "result.json")):
            continue
        chosen = read_record(os.path.join(folder, "result.json"), {"chosen": TEXT})["chosen"]
        after = read_checkpoint(os.path.join(folder, chosen, "checkpoint_best.pt"), "--out")["model"]
        changes[task] = [[*place, *change.values()] for place, change in drift(before, after).items()]
    return changes
