"""The table to look at: official scores of each run on each dev set, and what saying always the same would give."""

from ..reporting.figures import pyplot, save

GAP = 0.7  # of the room that the runs of one task share


def draw_table(rows, file):
    """A point with its deviation over seeds for each dev set and run; hollow where a seed is a constant classifier."""
    rows = [row for row in rows if "examples" in row]
    tasks, runs = (list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "run"))
    figure, axis = pyplot.subplots(figsize=(max(6.0, 1.0 + 1.1 * len(tasks)), 4.2), layout="constrained")
    for number, run in enumerate(runs):
        own = [row for row in rows if row["run"] == run]
        places = [tasks.index(row["task"]) + GAP * ((number + 0.5) / len(runs) - 0.5) for row in own]
        color = f"C{number}"
        axis.errorbar(places, [row["official"] for row in own], [row["official sd"] or 0 for row in own], fmt="none",
                      ecolor=color, capsize=2)
        faces = ["none" if row["constant seeds"] else color for row in own]
        axis.scatter(places, [row["official"] for row in own], facecolors=faces, edgecolors=color, label=run, zorder=3)
    for place, task in enumerate(tasks):
        constant = next(row["official constant"] for row in rows if row["task"] == task)
        axis.hlines(constant, place - 0.45, place + 0.45, color="grey", linestyle="--", linewidth=1,
                    label="always the same answer" if place == 0 else None)
    axis.set(xticks=range(len(tasks)), xticklabels=tasks, ylabel="official score",
             title="fine-tuned, on the dev sets (hollow: a seed always says the same)")
    axis.legend(fontsize=8)
    save(figure, file)
