"""The pictures of a report: validation loss and minimal pairs over each kind of cost, and where fine-tuning moved the
weights."""

from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from ..reporting.comparison import PAIRS
from ..reporting.drift import draw_drift
from ..reporting.figures import pyplot, save
from .results import Result, mean_drift, plateaus, with_pretraining

AXES = {"updates": "updates", "tokens": "tokens", "flops": "FLOPs (entropy and teacher passes included)",
        "hours": "hours (without a static teacher's entropies)"}
MARKERS = {"self-masking begins": {"marker": "o"},
           "distillation begins": {"marker": "D", "markersize": 10, "fillstyle": "none"}}  # may begin together


def draw_loss_curves(results: Sequence[Result], file: str) -> bool:
    """Validation loss, see `draw_curves`, with the unigram entropy of the text."""

    def draw_unigram(axis):
        for unigram in plateaus(results):
            axis.axhline(unigram, color="grey", linestyle="--", linewidth=1, label="unigram entropy")

    title = "validation loss on random masks"
    return draw_curves(results, "loss_bits", "bits per masked token", title, draw_unigram, file)


def draw_pairs_curves(results: Sequence[Result], file: str) -> bool:
    """Accuracy on minimal pairs, see `draw_curves`, with chance."""

    def draw_chance(axis):
        axis.axhline(0.5, color="grey", linestyle="--", linewidth=1, label="chance")

    return draw_curves(results, PAIRS, "fraction of the pairs", "accuracy on minimal pairs", draw_chance, file)


def draw_curves(results: Sequence[Result], key: str, label: str, title: str, draw_reference: Callable[[Any], None],
                file: str) -> bool:
    """Curves over AXES, a line for each condition: the mean over seeds, with their range.

    Args:
        results: of one corruption; those that pretrain nothing, or have nothing to draw, are left out.
        key: of what is drawn, in the records.
        label: of its axis.
        title: of the picture.
        draw_reference: draws what the curves are compared with.
        file: PNG.
    Returns:
        whether there was anything to draw.
    """
    results = [result for result in with_pretraining(results) if result.trains()
               and all(key in point for pretraining in result.pretrainings() for point in pretraining["valid"])]
    if not results:
        return False
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8.5), layout="constrained", sharey=True)
    colors = pyplot.colormaps["tab20"].colors
    for axis, (cost, cost_label) in zip(axes.flat, AXES.items()):
        for number, result in enumerate(results):
            draw_condition(axis, result, cost, key, colors[number % len(colors)])
        draw_reference(axis)
        axis.set(xlabel=cost_label, ylabel=label)
    for name, style in MARKERS.items():
        if any(event["event"] == name for result in results for pretraining in result.pretrainings()
               for event in later_events(pretraining)):
            axes[0, 0].plot([], [], color="black", linestyle="", label=name, **style)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.suptitle(f"{title}, training with {results[0].corruption}")
    save(figure, file)
    return True


def draw_condition(axis: Any, result: Result, cost: str, key: str, color: Tuple[float, ...]) -> None:
    curves = [pretraining["valid"] for pretraining in result.pretrainings()]
    length = min(map(len, curves))
    at = np.mean([[point[cost] for point in curve[:length]] for curve in curves], axis=0)
    values = np.array([[point[key] for point in curve[:length]] for curve in curves])  # seeds x validations
    axis.plot(at, values.mean(0), color=color, linewidth=1.3, label=result.name)
    if len(curves) > 1:
        axis.fill_between(at, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    for event in later_events(result.pretrainings()[0]):
        place = np.interp(event["updates"], [point["updates"] for point in curves[0][:length]], at)
        axis.plot(place, np.interp(place, at, values.mean(0)), color=color, **MARKERS[event["event"]])


def later_events(pretraining: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Its events, but for what holds from the start."""
    return [event for event in pretraining["events"] if event["updates"] > 0]


def draw_result_drift(result: Result, file: str) -> None:
    """A heat map for each task."""
    draw_drift(mean_drift(result), file)
