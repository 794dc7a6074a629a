"""Several runs side by side: a Markdown table and a picture of their curves."""

from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..config import (
    recorded_corruption,
    recorded_defaults,
    recorded_guided_fraction,
    recorded_lengths,
    source_schedule,
)
from ..masking.rates import Ramp, rate_at
from ..scoring import schedule
from ..system.errors import require
from ..training.plateau import is_on_plateau, plateau_warning
from .figures import pyplot, save
from .table import Table
from .training_log import PretrainingRun

DEFAULTS = recorded_defaults()
PAIRS = "pairs_accuracy"  # in the log of a run with --valid-pairs


def comparison_table(runs: Sequence[PretrainingRun], plateau: Optional[float],
                     tuned: Optional[Mapping[str, Any]] = None) -> Table:
    """One row for each run.

    Args:
        runs: in the order of the table.
        plateau: unigram entropy of the training text in bits; None = unknown.
        tuned: {name of a run: its `glue.cells.FineTuningRun`}, where there are such.
    """
    header = ["run", "masks", "valid loss", "valid accuracy", "tokens/s", "mean entropy: masked tokens",
              "all tokens", "updates"]
    rows = [run_row(run, plateau) for run in runs]
    if any(PAIRS in log for run in runs for log in run.valid):
        header.append("minimal pairs")
        rows = [[*cells, pairs_text(run)] for run, cells in zip(runs, rows)]
    for cell in next(iter(tuned.values())).cells.values() if tuned else ():
        header.append(f"{cell.name} (majority: {cell.majority_baseline('official'):.1f}%)")
        rows = [[*cells, tuned_score(tuned.get(run.name), cell.name)] for run, cells in zip(runs, rows)]
    note = ("Valid: random masks, all <mask>, the same for every run; in bits. Entropies: in nats, last epoch, by the "
            f"model that chose the masks. The unigram entropy of the text is {in_bits(plateau)}.")
    return Table("", header, rows, note)


def run_row(run: PretrainingRun, plateau: Optional[float]) -> List[str]:
    valid, train = run.valid[-1], next((log for log in reversed(run.train) if "loss" in log), run.train[-1])
    speed = run.tokens_per_second() and round(run.tokens_per_second(), -2)  # fairseq rounds the time to seconds
    mark = " ON THE PLATEAU" if is_on_plateau(valid["loss"], plateau) else ""
    return [run.name, describe_masks(run.flags), f"{valid['loss']:.3f}{mark}", f"{valid['accuracy']:.1%}",
            f"{speed:,.0f}" if speed else "–",
            entropy_text(train, "entropy_masked"), entropy_text(train, "entropy"), f"{valid['num_updates']:.0f}"]


def pairs_text(run: PretrainingRun) -> str:
    """The accuracy on minimal pairs in the last validation that has it."""
    values = [log[PAIRS] for log in run.valid if PAIRS in log]
    return f"{values[-1]:.1%}" if values else "–"


def in_bits(plateau: Optional[float]) -> str:
    return "unknown (no counts in dict.txt)" if plateau is None else f"{plateau:.2f} bits"


def tuned_score(tuned: Any, name: str) -> str:
    """Mean over seeds, per cent; marked where a seed predicted one class for every example."""
    if tuned is None or name not in tuned.cells:
        return "–"
    cell = tuned.cells[name]
    values = cell.values("official")
    return f"{sum(values) / len(values):.1f}%" + (" COLLAPSED" if cell.n_collapsed() else "")


def entropy_text(log: Dict[str, float], name: str) -> str:
    """name: as logged for entropy; another score's mean where the run has that."""
    value = log.get(name, log.get(name.replace("entropy", "score")))
    return "–" if value is None else f"{value:.2f}"


def describe_masks(flags: Dict[str, Any]) -> str:
    """For people: strategy, source of the scores, how much is guided, a rate that changes, distillation."""
    task, criterion = flags["task"], flags["criterion"]
    replays = task.get("replay_masks")
    text, sources = f"replays {replays}" if replays else task["mask_strategy"], source_schedule(task)
    if not replays and schedule.is_scored(text):
        first, switch = sources.first or "random", sources.switch
        text += {None: f", {first}", 1: f", {sources.then}"}.get(
            switch, f", {first}, {sources.then} from epoch {switch}")
        text += "".join(f", {name.split('_')[1]} {task[name]}" for name in ("mask_score", "mask_unit", "entropy_folds")
                        if task.get(name, DEFAULTS[name]) != DEFAULTS[name])
        guided = recorded_guided_fraction(task)
        text += "" if guided == 1 else f", {guided} guided" + by_sequences(task)
    rate = recorded_corruption(task).mask_prob
    text += f", {rate} masked" if isinstance(rate, Ramp) and not replays else ""
    text += f", blocks of {task['tokens_per_sample']}" if len(recorded_lengths(task)) > 1 else ""
    if criterion["kd_weight"]:
        text += f", KD {criterion['kd_weight']:g} from epoch {criterion['kd_start_epoch']}"
    return text


def by_sequences(task: Dict[str, Any]) -> str:
    return " by sequences" if task.get("guided_by") == "sequences" else ""


def plateau_warnings(runs: Sequence[PretrainingRun], plateau: Optional[float]) -> List[str]:
    """One line for each run that predicts tokens under random masks hardly better than their frequencies do."""
    return [f"{run.name} is {plateau_warning(run.valid[-1]['loss'], plateau, run.lengths())}" for run in runs
            if is_on_plateau(run.valid[-1]["loss"], plateau)]


AGAINST = {"updates": "updates", "tokens": "tokens", "hours": "hours of training"}


def places(run: PretrainingRun, updates: Any, against: str) -> Any:
    """Where updates are on an axis of AGAINST."""
    return {"hours": run.hours_at, "tokens": run.tokens_at}.get(against, lambda updates: updates)(updates)


def draw_comparison(runs: Sequence[PretrainingRun], plateau: Optional[float], file: str,
                    against: str = "updates") -> None:
    """Loss and accuracy over updates or time, with the unigram entropy, the switch from teacher to self and the start
    of distillation; where runs have it, accuracy on minimal pairs; and, where they leave some masks to chance, how many
    follow the scores: intended and realised.

    Args:
        runs: a line for each.
        plateau: unigram entropy in bits; None = unknown.
        file: PNG.
        against: key of AGAINST.
    Raises:
        UsageError: time is asked for, and a log does not have it.
    """
    for run in runs:
        require("--against", f"hours, which are not in the log of {run.name}", against != "hours" or run.hours,
                "updates for runs of older versions")
    guided_runs = [run for run in runs if is_partly_guided(run)]
    runs_with_pairs = [run for run in runs if any(PAIRS in log for log in run.valid)]
    panels = 2 + bool(runs_with_pairs) + bool(guided_runs)
    figure, (loss, accuracy, *more) = pyplot.subplots(1, panels, figsize=(5.5 * panels, 4.2), layout="constrained")
    color_of = {run.name: f"C{i}" for i, run in enumerate(runs)}
    for run in runs:
        at = places(run, [log["num_updates"] for log in run.valid], against)
        loss.plot(at, [log["loss"] for log in run.valid], marker=".", label=run.name)
        accuracy.plot(at, [100 * log["accuracy"] for log in run.valid], marker=".", label=run.name)
    if plateau is not None:
        loss.axhline(plateau, color="grey", linestyle="--", linewidth=1, label="unigram entropy")
    mark_events(runs, loss, accuracy, against)
    loss.set(xlabel=AGAINST[against], ylabel="bits per masked token", title="validation loss")
    accuracy.set(xlabel=AGAINST[against], ylabel="% of masked tokens", title="validation accuracy")
    loss.legend(fontsize=8)
    if runs_with_pairs:
        draw_pairs(runs_with_pairs, more[0], against, color_of)
    if guided_runs:
        draw_guided(guided_runs, more[-1], against, color_of)
    save(figure, file)


def draw_pairs(runs: Sequence[PretrainingRun], axis: Any, against: str, color_of: Mapping[str, str]) -> None:
    """The percentage of minimal pairs whose right side is likelier, with chance."""
    for run in runs:
        logs = [log for log in run.valid if PAIRS in log]
        axis.plot(places(run, [log["num_updates"] for log in logs], against), [100 * log[PAIRS] for log in logs],
                  marker=".", color=color_of[run.name], label=run.name)
    axis.axhline(50, color="grey", linestyle="--", linewidth=1, label="chance")
    axis.set(xlabel=AGAINST[against], ylabel="% of pairs", title="minimal pairs")
    axis.legend(fontsize=8)


def is_partly_guided(run: PretrainingRun) -> bool:
    """Whether the run has scores but leaves some masks to chance."""
    task = run.flags["task"]
    return schedule.is_scored(task["mask_strategy"]) and recorded_guided_fraction(task) != 1


def draw_guided(runs: Sequence[PretrainingRun], axis: Any, against: str, color_of: Mapping[str, str]) -> None:
    """The percentage of the masked tokens that follows the scores, as intended and as it was in each epoch."""
    for run in runs:
        color, (updates, intended) = color_of[run.name], intended_guided(run)
        axis.plot(places(run, updates, against), intended, color=color, linestyle="--", linewidth=1)
        middles = [(begin + end) / 2 for begin, end in run.updates_of_epochs()]
        realised = [(place, 100 * log["guided"]) for place, log in zip(middles, run.train) if "guided" in log]
        axis.plot(*zip(*((places(run, place, against), value) for place, value in realised)), color=color,
                  marker="o", markersize=4, linestyle="none", label=run.name)
    axis.plot([], [], color="grey", linestyle="--", linewidth=1, label="intended")
    axis.set(xlabel=AGAINST[against], ylabel="% of masked tokens", title="masks that follow the scores", ylim=(-3, 103))
    axis.legend(fontsize=8)


def intended_guided(run: PretrainingRun) -> Tuple[List[float], List[float]]:
    """[updates] and [the percentage of the masked tokens that is to follow the scores after as many]."""
    task, updates, intended = run.flags["task"], [], []
    sources, rate = source_schedule(task), recorded_guided_fraction(task)
    for log, span, over in zip(run.train, run.updates_of_epochs(), run.progress_of_epochs()):
        is_scored = sources.at(log["epoch"]) is not None
        updates += span
        intended += [100 * rate_at(rate, progress) * is_scored for progress in over]
    return updates, intended


def mark_events(runs, loss, accuracy, against):
    """A dotted line where something begins, with the event and the runs beside it."""
    names = defaultdict(lambda: defaultdict(list))  # place -> event -> runs
    for run in runs:
        for update, event in run.events():
            names[float(places(run, update, against))][event].append(run.name)
    lines_above = 0  # labels of places that are near each other must not overlap
    for place, events in sorted(names.items()):
        for axis in (loss, accuracy):
            axis.axvline(place, color="grey", linestyle=":", linewidth=1)
        label = "\n".join(f"{event}\n({', '.join(runs)})" for event, runs in events.items())
        accuracy.annotate(label, (place, 1), (4, -4 - 10 * lines_above), xycoords=("data", "axes fraction"),
                          textcoords="offset points", va="top", fontsize=8, color="dimgrey")
        lines_above += 2 * len(events)
