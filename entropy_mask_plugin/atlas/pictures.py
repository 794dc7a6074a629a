"""The numbers of an atlas as PNG."""

from typing import Any, Dict, List, Sequence

import numpy as np

from ..inspection.choices import Text
from ..reporting.figures import pyplot, save
from . import counts, groups
from .summary import RARE, Types, masked_at_all, mean_scores
from .views import Shown

BAND_COLORS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")  # viridis: in order of lightness
POLICY_COLORS = ("#0072b2", "#d55e00")  # of Okabe and Ito: distinct for every colour vision
CHANCE = "#777777"


def draw_token_map(policies: Sequence[Shown], text: Text, types: Types, file: str) -> None:
    """Each type: x = mean score, y = how often it is masked, colour = frequency band, size = number of tokens."""
    is_one_score = len({shown.views[0].score for shown in policies}) == 1
    figure, axes = pyplot.subplots(1, len(policies), figsize=(7 * len(policies), 5.4), squeeze=False, sharey=True,
                                   sharex=is_one_score)
    band = groups.bands(types.per_million)
    for axis, shown in zip(axes[0], policies):
        masked = masked_at_all(shown)
        of_types = counts.count_types(text.tokens, mean_scores(shown), masked, len(types.symbols))
        places = np.flatnonzero(of_types.positions >= RARE)
        positions = of_types.positions[places]
        x, y = of_types.score_sum[places] / positions, of_types.masked[places] / (len(masked) * positions)
        for i, name in enumerate(groups.BANDS):
            of_band = band[places] == i
            axis.scatter(x[of_band], 100 * y[of_band], s=4 + 1.5 * positions[of_band] ** 0.75, c=BAND_COLORS[i],
                         edgecolors="#333333", linewidths=0.4, alpha=0.8, label=name)
        axis.axhline(100 * masked.mean(), color=CHANCE, linestyle="--", linewidth=1)
        axis.set(title=shown.name, xlabel="mean " + with_unit(shown.views[0].score, shown.views[0].unit))
    axes[0][0].set_ylabel("masked, % of its tokens")
    legend = axes[0][-1].legend(title="per million tokens", fontsize=8, title_fontsize=8)
    for handle in legend.legend_handles:
        handle.set_sizes([30])
    figure.tight_layout()
    save(figure, file)


def with_unit(score: str, unit: str) -> str:
    """A score and its unit, for an axis; some scores have none."""
    return f"{score} ({unit})" if unit else score


def draw_masked_fractions(summary: Dict[str, Any], file: str) -> None:
    """The masked fraction of each group, over all checkpoints."""
    policies = summary["policies"]
    groupings = list(policies[0]["masked_fraction"])
    heights = [len(groups_with_tokens(policies[0]["masked_fraction"][key])) for key in groupings]
    figure, axes = pyplot.subplots(len(groupings), 1, figsize=(8, 0.34 * sum(heights) + 0.9 * len(groupings)),
                                   squeeze=False, sharex=True, height_ratios=heights)
    for axis, key in zip(axes[:, 0], groupings):
        for number, policy in enumerate(policies):
            fractions = policy["masked_fraction"][key]
            draw_bars(axis, fractions, number, len(policies), policy["name"])
        axis.set_title(policies[0]["masked_fraction"][key]["title"], loc="left", fontsize=9)
        axis.axvline(100 * policies[0]["all_checkpoints"]["mask_rate"], color=CHANCE, linestyle="--", linewidth=1)
    axes[0, 0].legend(fontsize=8)
    axes[-1, 0].set_xlabel("masked, % of the tokens")
    figure.tight_layout()
    save(figure, file)


def groups_with_tokens(fractions: Dict[str, Any]) -> List[int]:
    """Places of the groups that have tokens: the others have no masked fraction, which is not 0."""
    return [place for place, positions in enumerate(fractions["positions"]) if positions]


def draw_bars(axis: Any, fractions: Dict[str, Any], number: int, n_policies: int, name: str) -> None:
    """One bar for each group that has tokens. number: of the policy."""
    shown, height = groups_with_tokens(fractions), 0.8 / n_policies
    places = np.arange(len(shown)) - 0.4 + height * (number + 0.5)
    values = [100 * fractions["all_checkpoints"][group] for group in shown]
    axis.barh(places, values, height, color=POLICY_COLORS[number], label=name)
    axis.set_yticks(range(len(shown)), [fractions["labels"][group] for group in shown], fontsize=8)
    axis.set_ylim(len(shown) - 0.4, -0.6)


def draw_checkpoints(summary: Dict[str, Any], file: str) -> None:
    """Over the checkpoints: the guided fraction, what repeats, and the mean score of all and of masked tokens."""
    figure, (guided, repeats, scores) = pyplot.subplots(1, 3, figsize=(15, 4))
    for policy, color in zip(summary["policies"], POLICY_COLORS):
        at = policy["checkpoints"]
        updates = [view["update"] for view in at]
        lines: List[Any] = [
            (guided, "guided_fraction_intended", "--", "intended", 100),
            (guided, "guided_fraction", "-", "realised", 100),
            (repeats, "jaccard_of_epochs", "-", "from draw to draw", 1),
            (repeats, "jaccard_by_chance", ":", "by chance", 1),
            (scores, "mean_score", ":", "all tokens", 1), (scores, "mean_score_of_masked", "-", "masked tokens", 1)]
        for axis, key, style, label, factor in lines:
            values = [np.nan if view[key] is None else factor * view[key] for view in at]
            axis.plot(updates, values, style, color=color, marker="o", markersize=4, label=f"{policy['name']}: {label}")
    guided.set(title="masks that follow the scores", ylabel="% of masked tokens", ylim=(-3, 103))
    repeats.set(title="how much of the choice repeats", ylabel="Jaccard overlap", ylim=(-0.03, 1.03))
    names = {with_unit(policy["score"], policy["unit"]) for policy in summary["policies"]}
    scores.set(title="mean score", ylabel=names.pop() if len(names) == 1 else "each in its own unit")
    for axis in (guided, repeats, scores):
        axis.set_xlabel("updates")
        axis.legend(fontsize=7)
    figure.tight_layout()
    save(figure, file)
