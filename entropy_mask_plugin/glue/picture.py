"""The table as a picture: official scores of each run on each dev set, and the majority-class baseline."""

from typing import Any, Dict, Sequence

from ..reporting.figures import pyplot, save

GAP = 0.7  # fraction of a task's width that its runs spread over


def draw_scores(records: Sequence[Dict[str, Any]], file: str) -> None:
    """A point with its standard deviation over seeds for each dev set and run; hollow where a seed collapsed.

    Args:
        records: of `table.score_records`.
        file: PNG.
    """
    records = [record for record in records if "n_examples" in record]
    tasks, runs = (list(dict.fromkeys(record[name] for record in records)) for name in ("task", "run"))
    figure, axis = pyplot.subplots(figsize=(max(6.0, 1.0 + 1.1 * len(tasks)), 4.2), layout="constrained")
    for number, run in enumerate(runs):
        ours = [record for record in records if record["run"] == run]
        places = [tasks.index(record["task"]) + GAP * ((number + 0.5) / len(runs) - 0.5) for record in ours]
        scores, color = [record["official_score_pct"] for record in ours], f"C{number}"
        axis.errorbar(places, scores, [record["official_std_pct"] or 0 for record in ours], fmt="none", ecolor=color,
                      capsize=2)
        faces = ["none" if record["n_collapsed_seeds"] else color for record in ours]
        axis.scatter(places, scores, facecolors=faces, edgecolors=color, label=run, zorder=3)
    for place, task in enumerate(tasks):
        majority = next(record["official_majority_baseline_pct"] for record in records if record["task"] == task)
        axis.hlines(majority, place - 0.45, place + 0.45, color="grey", linestyle="--", linewidth=1,
                    label="majority-class baseline" if place == 0 else "")
    axis.set(xticks=range(len(tasks)), xticklabels=tasks, ylabel="official score",
             title="fine-tuned, on the dev sets (hollow: a seed collapsed to one class)")
    axis.legend(fontsize=8)
    save(figure, file)
