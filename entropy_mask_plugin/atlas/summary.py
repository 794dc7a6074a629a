"""All numbers of an atlas but the tokens of the passages.

Shapes: C checkpoints of a policy, D draws, P maskable positions, V vocabulary, G groups.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from ..inspection.choices import Text
from ..reporting.table import Table
from . import counts, groups
from .groups import Grouping
from .views import Shown, View

RARE = 5  # positions: types with fewer are in tokens.csv alone
LISTED = 24


class Types(NamedTuple):
    """The token types. symbols: V; frequencies: V int64; origin: where these were counted."""

    symbols: Sequence[str]
    frequencies: np.ndarray
    origin: str

    @property
    def per_million(self) -> np.ndarray:
        """V float."""
        return groups.per_million(self.frequencies)


def masked_at_all(shown: Shown) -> np.ndarray:
    """The draws of all checkpoints: C D x P bool."""
    return np.concatenate([view.choices.masked for view in shown.views])


def mean_scores(shown: Shown) -> np.ndarray:
    """The mean over the checkpoints: P float64."""
    return np.stack([view.choices.scores for view in shown.views]).mean(0, dtype=np.float64)


def summary(policies: Sequence[Shown], text: Text, groupings: Sequence[Grouping], types: Types) -> Dict[str, Any]:
    """
    Args:
        policies: one or two.
        text: that they mask.
        groupings: of its positions.
        types: of its tokens.
    Returns:
        JSON: snake_case keys; nats, fractions and numbers of positions.
    """
    return {
        "n_blocks": len(text.ids), "n_positions": len(text.tokens),
        "n_draws": len(policies[0].views[0].choices.masked), "block_ids": list(text.ids),
        "frequencies_from": types.origin,
        "policies": [of_policy(shown, text, groupings, types) for shown in policies],
        **(with_overlap(overlaps(*policies)) if len(policies) == 2 else {"overlap": []}),
    }


def of_policy(shown: Shown, text: Text, groupings: Sequence[Grouping], types: Types) -> Dict[str, Any]:
    """The numbers of one policy."""
    masked, scores = masked_at_all(shown), mean_scores(shown)
    of_types = counts.count_types(text.tokens, scores, masked, len(types.symbols))
    masked_fractions = of_types.masked / np.maximum(1, len(masked) * of_types.positions)
    most, least = counts.extremes(masked_fractions, of_types.positions, RARE, LISTED)
    rate = counts.ratio(masked.sum(), masked.size) or 0.0
    before: List[Optional[View]] = [None, *shown.views]
    n_noises = number_of_noises(shown._replace(views=shown.views[:1]))
    of_views = [of_view(view, earlier, n_noises) for view, earlier in zip(shown.views, before)]
    return {
        "name": shown.name, "description": shown.description, "seed": shown.seed,
        "score": shown.views[0].score, "unit": shown.views[0].unit,
        "checkpoints": of_views,
        "all_checkpoints": {
            "mask_rate": rate, "never_masked_fraction": counts.never_masked(masked),
            "never_masked_by_chance": (1 - rate) ** number_of_noises(shown),
            "guided_fraction": counts.ratio(sum(view.choices.guided.sum() for view in shown.views), masked.sum()),
            "jaccard_of_epochs": mean([view["jaccard_of_epochs"] for view in of_views]),
            "jaccard_by_chance": counts.jaccard_by_chance(rate, rate),
            "n_types": int((of_types.positions > 0).sum()),
            "n_types_never_masked": int(((of_types.positions > 0) & (of_types.masked == 0)).sum()),
            "mean_score": float(scores.mean()), "mean_score_of_masked": mean_of_masked(shown),
        },
        "masked_fraction": {grouping.key: masked_fractions_of(grouping, shown) for grouping in groupings},
        "most_masked": [of_type(i, masked_fractions, of_types, types) for i in most.tolist()],
        "least_masked": [of_type(i, masked_fractions, of_types, types) for i in least.tolist()],
    }


def number_of_noises(shown: Shown) -> int:
    """How many of the draws of all checkpoints have noise of their own: checkpoints of one epoch share it."""
    n_draws = len(shown.views[0].choices.masked)
    return 1 if shown.is_static else n_draws * len({view.epoch for view in shown.views})


def mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """Of the numbers among them; None where there are none."""
    numbers = [value for value in values if value is not None]
    return counts.ratio(sum(numbers), len(numbers))


def mean_of_masked(shown: Shown) -> Optional[float]:
    """The mean score of the masked positions, each at its checkpoint."""
    total = sum(float((view.choices.masked * view.choices.scores.astype(np.float64)).sum()) for view in shown.views)
    return counts.ratio(total, sum(int(view.choices.masked.sum()) for view in shown.views))


def of_view(view: View, before: Optional[View], n_noises: int) -> Dict[str, Any]:
    """The numbers of a policy at one checkpoint. before: at the one before it; n_noises: see `number_of_noises`."""
    scores, masked, guided = view.choices
    rate = counts.ratio(masked.sum(), masked.size) or 0.0
    return {
        "path": view.path, "update": view.update, "epoch_of_next_update": view.epoch, "progress": view.progress,
        "source": view.source, "shown": view.shown, "score": view.score,
        "mask_rate_intended": view.mask_rate, "mask_rate": rate,
        "guided_fraction_intended": view.guided_fraction, "guided_fraction": counts.ratio(guided.sum(), masked.sum()),
        "mean_score": float(scores.mean(dtype=np.float64)),
        "mean_score_of_masked": counts.ratio((masked * scores.astype(np.float64)).sum(), masked.sum()),
        "jaccard_of_epochs": counts.repetition(masked),
        "jaccard_by_chance": counts.jaccard_by_chance(rate, rate),
        "jaccard_with_checkpoint_before": None if before is None else counts.jaccard(masked, before.choices.masked),
        "never_masked_fraction": counts.never_masked(masked), "never_masked_by_chance": (1 - rate) ** n_noises,
    }


def masked_fractions_of(grouping: Grouping, shown: Shown) -> Dict[str, Any]:
    """The masked fraction of each group, at each checkpoint and over all: None where it has no positions."""
    n = len(grouping.labels)
    of_views = [counts.count_groups(grouping.groups, view.choices.masked, n) for view in shown.views]
    n_draws = len(shown.views[0].choices.masked)
    total = sum(of_view.masked for of_view in of_views)
    positions = of_views[0].positions
    return {
        "title": grouping.title, "labels": list(grouping.labels), "positions": positions.tolist(),
        "at_checkpoints": [fractions(of_view.masked, n_draws * positions) for of_view in of_views],
        "all_checkpoints": fractions(total, n_draws * len(of_views) * positions),
    }


def fractions(masked: Any, total: np.ndarray) -> List[Optional[float]]:
    return [counts.ratio(part, whole) for part, whole in zip(masked.tolist(), total.tolist())]


def of_type(i: int, masked_fractions: np.ndarray, of_types: counts.TypeCounts, types: Types) -> Dict[str, Any]:
    """A row of the lists of types that are masked most and least."""
    return {"id": i, "token": types.symbols[i], "positions": int(of_types.positions[i]),
            "per_million": float(types.per_million[i]), "masked_fraction": float(masked_fractions[i]),
            "mean_score": float(of_types.score_sum[i] / of_types.positions[i])}


def nearest(view: View, others: Sequence[View]) -> int:
    """The place of the one whose number of updates is nearest, the earlier of two."""
    return min(range(len(others)), key=lambda i: abs(others[i].update - view.update))


def overlaps(one: Shown, other: Shown) -> List[Dict[str, Any]]:
    """At each checkpoint of one policy, its overlap with the other at the nearest update."""
    at_checkpoints = []
    for view in one.views:
        place = nearest(view, other.views)
        a, b = view.choices.masked, other.views[place].choices.masked
        at_checkpoints.append({"update": view.update, "other_update": other.views[place].update, "other_place": place,
                      "jaccard": counts.jaccard(a, b),
                      "jaccard_by_chance": counts.jaccard_by_chance(float(a.mean()), float(b.mean()))})
    return at_checkpoints


def with_overlap(at_checkpoints: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The overlaps, and their mean over the checkpoints."""
    means = {key: mean([at[key] for at in at_checkpoints]) for key in ("jaccard", "jaccard_by_chance")}
    return {"overlap": at_checkpoints, "overlap_all_checkpoints": means}


def table_of_types(policies: Sequence[Shown], text: Text, types: Types) -> Table:
    """A row for each token type of the text, the most frequent first."""
    size = len(types.symbols)
    of_policies = [(counts.count_types(text.tokens, mean_scores(shown), masked_at_all(shown), size), shown)
                   for shown in policies]
    positions = of_policies[0][0].positions
    bands, deciles = groups.bands(types.per_million), groups.deciles(types.frequencies)
    classes = [groups.CHARACTER_CLASSES[groups.character_class(t)] for t in groups.texts_of(types.symbols)]
    header = ["id", "token", "frequency", "per_million", "frequency_band_per_million", "frequency_decile",
              "characters", "positions"]
    for letter in "ab"[: len(policies)]:
        header += [f"{letter}_{name}" for name in ("draws", "masked", "masked_fraction", "mean_score")]
    per_million = types.per_million
    rows = [[i, types.symbols[i], int(types.frequencies[i]), f"{per_million[i]:.3f}", groups.BANDS[bands[i]],
             int(deciles[i]) + 1, classes[i], int(positions[i]),
             *(cell for of_types, shown in of_policies for cell in cells_of_type(i, of_types, shown))]
            for i in sorted(np.flatnonzero(positions).tolist(), key=lambda i: (-positions[i], i))]
    return Table("", header, rows)


def cells_of_type(i: int, of_types: counts.TypeCounts, shown: Shown) -> List[Any]:
    """What one policy makes of a type: draws, masked, masked fraction, mean score."""
    positions, masked = int(of_types.positions[i]), int(of_types.masked[i])
    draws = positions * len(shown.views) * len(shown.views[0].choices.masked)
    return [draws, masked, f"{masked / draws:.6f}", f"{of_types.score_sum[i] / positions:.6f}"]
