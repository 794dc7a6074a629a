"""What a finished row leaves: record.json.

Costs are counted on four axes: updates, tokens, FLOPs and hours. FLOPs follow from the architecture (flops.py) and from
what each epoch computed: the training step; a model's own entropy pass in its self-masking epochs; the teacher's, once
over the data where a cache keeps its entropies, else in every epoch; the teacher's predictions while it distils.
"""

import os
import re
from types import SimpleNamespace

import numpy as np

from ..checkpoints.reading import read_checkpoint
from ..config import recorded_corruption
from ..glue.protocols import model_flags, model_settings
from ..glue.tasks import TASKS
from ..models.flops import macs_of_step
from ..reporting.drift import drift
from ..reporting.flops_table import model_of
from ..reporting.training_log import LOG, read_run, unigram_entropy
from ..scoring import schedule
from ..scoring.sources import SOURCES
from ..system.atomic_files import read_json, write_json
from .plan import FINISHED


def write_record(options, unit, steps, identity):
    """Write record.json of a unit whose steps are all finished."""
    before = read_json(unit.record(options)) if os.path.exists(unit.record(options)) else {"identity": {"glue": {}}}
    glue = before["identity"]["glue"] | identity["glue"]  # a task that was added is one more
    folders = {step.kind: step.folder for step in steps}
    record = {"row": unit.row, "corruption": unit.corruption, "seed": unit.seed, "identity": identity | {"glue": glue},
              "commands": [step.line() for step in steps],
              "fine-tuning": finished(folders["fine-tuning"]) | {"drift": drifts(steps[-1], unit)}}
    del record["fine-tuning"]["peak memory"]  # of the script, not of the trainings that it starts
    if "pretraining" in folders:
        record["pretraining"] = finished(folders["pretraining"]) | account(folders["pretraining"])
    write_json(unit.record(options), record)


def finished(folder):
    return read_json(os.path.join(folder, FINISHED))


def is_recorded(options, unit):
    """Whether its record.json is there, with all tasks that are asked for now."""
    path = unit.record(options)
    return os.path.exists(path) and set(options.tasks) <= read_json(path)["fine-tuning"]["drift"].keys()


def account(folder):
    """Curves and costs of a pretraining, from the folder that fairseq-train left."""
    run = read_run(folder)
    dictionary = os.path.join(run.flags["task"]["data"].split(":")[0], "dict.txt")
    costs = costs_of(run)
    valid = [{"updates": log["num_updates"], "tokens": costs.tokens(log["num_updates"]),
              "flops": costs.flops(log["num_updates"]), "hours": float(run.hours_at(log["num_updates"])),
              "loss": log["loss"], "accuracy": log["accuracy"]} for log in run.valid]
    last, begun = run.train[-1], run.events()
    return {
        "unigram entropy": unigram_entropy(dictionary), "valid": valid, **valid[-1],
        "events": [{"updates": updates, "what": what} for updates, what in begun],
        "never begun": sorted(set(expected_events(run.flags)) - {what for _, what in begun}),
        "own loss": last.get("loss"), "entropy": last.get("entropy"),
        "entropy of the masks": last.get("entropy_masked"), "epochs": last["epoch"],
        "peak GPU memory": peak_gpu_memory(folder),
    }


def peak_gpu_memory(folder):
    """In bytes, as fairseq's log has it to a tenth of a GB: all there is less the least that torch left; None without a
    GPU."""
    with open(os.path.join(folder, LOG), encoding="utf-8", errors="replace") as file:
        text = file.read()
    free, total = re.findall(r"gb_free=([\d.]+)", text), re.findall(r"total memory = ([\d.]+) GB", text)
    return 2**30 * (max(map(float, total)) - min(map(float, free))) if free and total else None


def expected_events(flags):
    """What the flags say will begin, after the first epoch or later."""
    task, criterion = flags["task"], flags["criterion"]
    found = []
    if task["mask_strategy"] != "random" and (task["self_mask_from_epoch"] or 0) > 1:
        found.append("self-masking begins")
    if criterion["kd_weight"] and criterion["kd_start_epoch"] > 1:
        found.append("distillation begins")
    return found


def costs_of(run):
    """.tokens(updates) and .flops(updates), linear within an epoch.

    Args:
        run: a `training_log.Run`.
    """
    ends, tokens, flops = [0.0], [0.0], [0.0]
    for log, per_token in zip(run.train, flops_per_token(run)):
        new = log["wpb"] * (log["num_updates"] - ends[-1])
        ends.append(log["num_updates"])
        tokens.append(tokens[-1] + new)
        flops.append(flops[-1] + new * per_token)
    return SimpleNamespace(tokens=lambda updates: float(np.interp(updates, ends, tokens)),
                           flops=lambda updates: float(np.interp(updates, ends, flops)))


def flops_per_token(run):
    """FLOPs of a token in each epoch of a run."""
    task, criterion = run.flags["task"], run.flags["criterion"]
    length = task["tokens_per_sample"]
    student = model_of_flags(run.flags["model"], run.vocabulary, length)
    teacher = None
    if task["teacher"]:
        settings = model_settings(read_checkpoint(task["teacher"], "--teacher"), task["teacher"], "--teacher")
        teacher = model_of_flags(settings, run.vocabulary, length)
    corruption = recorded_corruption(task)
    if task["mask_count"]:
        corruption = corruption._replace(mask_prob=task["mask_count"] / length)
    shards = len(task["data"].split(":"))
    for log in run.train:
        name = schedule.source_of(task["mask_strategy"], log["epoch"], task["self_mask_from_epoch"],
                                  task.get("mask_source", "teacher"))
        source = name and SOURCES[name].traits["reads"]
        if source == "teacher" and task["entropy_cache"] and log["epoch"] > shards:
            source = None  # on disk since the first time
        distils = schedule.distils(log["epoch"], criterion["kd_weight"], criterion["kd_start_epoch"])
        yield 2 * macs_of_step(student, length, corruption, teacher, source, distils)


def model_of_flags(settings, vocabulary, length):
    arch, *flags = model_flags(settings)[1:]
    return model_of(arch, vocabulary, length, flags)


def drifts(tuning, unit):
    """{task: [[part, component, relative Frobenius change, mean element-wise change in per cent]]} of all tasks that
    were fine-tuned."""
    before = read_checkpoint(tuning.command[tuning.command.index("--checkpoint") + 1], "--checkpoint")["model"]
    found = {}
    for task in TASKS:
        folder = os.path.join(tuning.folder, task, f"seed{unit.seed}")
        if not os.path.exists(os.path.join(folder, "result.json")):
            continue
        chosen = read_json(os.path.join(folder, "result.json"))["chosen"]
        after = read_checkpoint(os.path.join(folder, chosen, "checkpoint_best.pt"), "--out")["model"]
        found[task] = [[*where, *change.values()] for where, change in drift(before, after).items()]
    return found
