"""The pictures of a report: validation loss over each kind of cost, and where fine-tuning moved the weights."""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from ..reporting.drift import draw_drift
from ..reporting.figures import pyplot, save
from .results import Result, mean_drift, plateaus, with_pretraining

AXES = {"updates": "updates", "tokens": "tokens", "flops": "FLOPs (entropy and teacher passes included)",
        "hours": "hours (without a static teacher's entropies)"}
MARKERS = {"self-masking begins": {"marker": "o"},
           "distillation begins": {"marker": "D", "markersize": 10, "fillstyle": "none"}}  # may begin together


def draw_curves(results: Sequence[Result], file: str) -> bool:
    """Validation loss over AXES, a line for each condition: the mean over seeds, with their range.

    Args:
        results: of one corruption; those that pretrain nothing are left out.
        file: PNG.
    Returns:
        whether there was anything to draw.
    """
    results = [result for result in with_pretraining(results) if result.trains()]
    if not results:
        return False
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 8.5), layout="constrained", sharey=True)
    colors = pyplot.colormaps["tab20"].colors
    for axis, (cost, label) in zip(axes.flat, AXES.items()):
        for number, result in enumerate(results):
            draw_condition(axis, result, cost, colors[number % len(colors)])
        for unigram in plateaus(results):
            axis.axhline(unigram, color="grey", linestyle="--", linewidth=1, label="unigram entropy")
        axis.set(xlabel=label, ylabel="bits per masked token")
    for name, style in MARKERS.items():
        if any(event["event"] == name for result in results for pretraining in result.pretrainings()
               for event in later_events(pretraining)):
            axes[0, 0].plot([], [], color="black", linestyle="", label=name, **style)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.suptitle(f"validation loss on random masks, training with {results[0].corruption}")
    save(figure, file)
    return True


def draw_condition(axis: Any, result: Result, cost: str, color: Tuple[float, ...]) -> None:
    curves = [pretraining["valid"] for pretraining in result.pretrainings()]
    length = min(map(len, curves))
    at = np.mean([[point[cost] for point in curve[:length]] for curve in curves], axis=0)
    losses = np.array([[point["loss_bits"] for point in curve[:length]] for curve in curves])  # seeds x validations
    axis.plot(at, losses.mean(0), color=color, linewidth=1.3, label=result.name)
    if len(curves) > 1:
        axis.fill_between(at, losses.min(0), losses.max(0), color=color, alpha=0.15, linewidth=0)
    for event in later_events(result.pretrainings()[0]):
        place = np.interp(event["updates"], [point["updates"] for point in curves[0][:length]], at)
        axis.plot(place, np.interp(place, at, losses.mean(0)), color=color, **MARKERS[event["event"]])


def later_events(pretraining: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Its events, but for what holds from the start."""
    return [event for event in pretraining["events"] if event["updates"] > 0]


def draw_result_drift(result: Result, file: str) -> None:
    """A heat map for each task."""
    draw_drift(mean_drift(result), file)
