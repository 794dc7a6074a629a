"""Several runs side by side: a Markdown table and a picture of their curves."""

from collections import defaultdict

from tabulate import tabulate

from ..system.errors import require
from ..training.plateau import is_on_plateau, plateau_warning
from .figures import pyplot, save


def table(runs, plateau, tuned=None):
    """One row for each run.

    Args:
        runs: list of Run.
        plateau: unigram entropy of the training text in bits.
        tuned: {name of a run: its fine-tuning, a `glue.cells.Run`}, where there are such.
    Returns:
        Markdown.
    """
    header = ["run", "masks", "valid loss", "valid accuracy", "tokens/s", "entropy of its masks", "of the text",
              "updates"]
    rows = [row(run, plateau) for run in runs]
    for cell in next(iter(tuned.values())).cells.values() if tuned else ():
        header.append(f"{cell.name} (constant: {cell.constant('official'):.1f}%)")
        rows = [[*cells, tuned_score(tuned.get(run.name), cell.name)] for run, cells in zip(runs, rows)]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True) + (
        "\n\nValid: random masks, all <mask>, the same for every run; in bits. Entropies: in nats, last epoch, as the "
        f"model that chose the masks saw them. The unigram entropy of the text is {in_bits(plateau)}."
    )


def row(run, plateau):
    valid, train = run.valid[-1], next(log for log in reversed(run.train) if "loss" in log)
    speed = run.tokens_per_second() and round(run.tokens_per_second(), -2)  # fairseq rounds the time to seconds
    mark = " ON THE PLATEAU" if is_on_plateau(valid["loss"], plateau) else ""
    return [run.name, describe_masks(run.flags), f"{valid['loss']:.3f}{mark}", f"{valid['accuracy']:.1%}",
            f"{speed:,.0f}" if speed else "–",
            known(train, "entropy_masked"), known(train, "entropy"), f"{valid['num_updates']:.0f}"]


def in_bits(plateau):
    return "unknown (no counts in dict.txt)" if plateau is None else f"{plateau:.2f} bits"


def tuned_score(tuned, name):
    """Mean over seeds; marked where every example got the same answer."""
    if tuned is None or name not in tuned.cells:
        return "–"
    cell = tuned.cells[name]
    values = cell.values("official")
    return f"{sum(values) / len(values):.1f}%" + (" CONSTANT" if cell.constant_seeds() else "")


def known(log, name):
    return f"{log[name]:.2f}" if name in log else "–"


def describe_masks(flags):
    """In words: strategy, source of the entropies, distillation."""
    task, criterion = flags["task"], flags["criterion"]
    words = task["mask_strategy"]
    if words != "random":
        first = task["self_mask_from_epoch"]
        words += {None: ", teacher", 1: ", self"}.get(first, f", teacher, self from epoch {first}")
    if criterion["kd_weight"]:
        words += f", KD {criterion['kd_weight']:g} from epoch {criterion['kd_start_epoch']}"
    return words


def plateau_warnings(runs, plateau):
    """One line for each run that predicts tokens under random masks hardly better than their frequencies do."""
    return [f"{run.name} is {plateau_warning(run.valid[-1]['loss'], plateau)}" for run in runs
            if is_on_plateau(run.valid[-1]["loss"], plateau)]


AGAINST = {"updates": "updates", "hours": "hours of training"}


def places(run, updates, against):
    """Where updates are on an axis of AGAINST."""
    return run.hours_at(updates) if against == "hours" else updates


def draw(runs, plateau, file, against="updates"):
    """Loss and accuracy over updates or time, with the unigram entropy, the switch from teacher to self and the start
    of distillation.

    Raises:
        UsageError: time is asked for, and a log does not have it.
    """
    for run in runs:
        require("--against", f"hours, which are not in the log of {run.name}", against != "hours" or run.hours,
                "updates for runs of older versions")
    figure, (loss, accuracy) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
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
    save(figure, file)


def mark_events(runs, loss, accuracy, against):
    """A dotted line at each place after which something begins, and in words what, and in which runs."""
    names = defaultdict(lambda: defaultdict(list))  # place -> what -> runs
    for run in runs:
        for update, what in run.events():
            names[float(places(run, update, against))][what].append(run.name)
    for place, begins in names.items():
        for axis in (loss, accuracy):
            axis.axvline(place, color="grey", linestyle=":", linewidth=1)
        words = "\n".join(f"{what}\n({', '.join(runs)})" for what, runs in begins.items())
        accuracy.annotate(words, (place, 1), (4, -4), xycoords=("data", "axes fraction"),
                          textcoords="offset points", va="top", fontsize=8, color="dimgrey")
