"""The atlas as one HTML file that needs no other: a template, a style sheet, a script, and the data as JSON.

Shapes: P maskable positions of a text, D draws, T positions that are shown of a passage.
"""

import os
from typing import Any, Dict, List, Sequence

import jinja2
import numpy as np
from markupsafe import Markup

from ..inspection.choices import Text
from ..masking.units.word import prefix_of, starts_word
from . import counts, groups
from .summary import RARE, Types
from .views import Extent, Shown, View

FOLDER = os.path.dirname(os.path.abspath(__file__))
MOST_TYPES = 1500  # of the token map; the others are in tokens.csv


def page(summary: Dict[str, Any], policies: Sequence[Shown], text: Text, types: Types, extent: Extent,
         sequences: Sequence[np.ndarray]) -> str:
    """
    Args:
        summary: see there.
        policies: one or two.
        text: that they mask.
        types: of its tokens.
        extent: which blocks are shown.
        sequences: the tokens that are shown of each passage, T int64 each.
    Returns:
        HTML.
    """
    used = Symbols(types.symbols)
    data = {
        "summary": {**summary, "block_ids": None},
        "passages": [used.places(tokens) for tokens in sequences],
        "blocks": list(extent.passages),
        "views": [[view_data(view, text, extent, used) for view in shown.views] for shown in policies],
        "types": types_data(policies, text, types, used),
        "bands": groups.BANDS, "rare": RARE, "most_types": MOST_TYPES,
    }
    data["symbols"] = used.texts()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    template = environment.from_string(read("page.html"))
    return template.render(title="Mask atlas: " + " and ".join(shown.name for shown in policies), data=data,
                           summary=summary, style=Markup(read("page.css")), script=Markup(read("page.js")))


def read(name: str) -> str:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


class Symbols:
    """Numbers the symbols that a page shows, so that each stands in it once."""

    def __init__(self, symbols: Sequence[str]):
        self.symbols, self.prefix = symbols, prefix_of(symbols)
        self.shown = groups.texts_of(symbols)
        self.place_of: Dict[int, int] = {}

    def places(self, tokens: Any) -> List[int]:
        """The numbers of these tokens, flat."""
        return [self.place_of.setdefault(token, len(self.place_of)) for token in np.ravel(tokens).tolist()]

    def texts(self) -> List[List[Any]]:
        """[text without its mark, whether it begins a word, symbol] of each number; all begin one in a vocabulary
        without marks."""
        return [[self.shown[token], int(starts_word(self.symbols[token], self.prefix)), self.symbols[token]]
                for token in self.place_of]


def view_data(view: View, text: Text, extent: Extent, used: Symbols) -> List[Dict[str, Any]]:
    """Of each passage, lists over its maskable positions among those shown: where they are, hundredths of the score,
    rank in the block, in which draws it is masked and guided (bit d = draw d), the best predictions and their
    probabilities in thousandths, five of each after the other; n: maskable positions of the whole block."""
    ranks = counts.ranks(view.choices.scores, text.blocks)
    of_passages = []
    for block, prediction in zip(extent.passages, view.predictions):
        of_block = np.flatnonzero(text.blocks == text.ids.index(block))
        shown = of_block[text.positions[of_block] < extent.longest]
        at = text.positions[shown]
        of_passages.append({
            "n": len(of_block), "at": at.tolist(), "score": hundredths(view.choices.scores[shown]),
            "rank": ranks[shown].tolist(), "masked": draws_as_bits(view.choices.masked[:, shown]),
            "guided": draws_as_bits(view.choices.guided[:, shown]), "best": used.places(prediction.tokens[at]),
            "probability": np.round(1000 * prediction.probabilities[at]).astype(int).ravel().tolist(),
        })
    return of_passages


def hundredths(values: np.ndarray) -> List[int]:
    """Rounded."""
    return np.round(100 * values.astype(np.float64)).astype(int).tolist()


def draws_as_bits(chosen: np.ndarray) -> List[int]:
    """D x P bool -> P numbers."""
    return [sum(1 << draw for draw in np.flatnonzero(column).tolist()) for column in chosen.T]


def types_data(policies: Sequence[Shown], text: Text, types: Types, used: Symbols) -> Dict[str, Any]:
    """The types of the token map, the most frequent first; of each policy, at each checkpoint, how many of its tokens
    all draws together mask, and hundredths of its mean score."""
    positions = np.bincount(text.tokens, minlength=len(types.symbols))
    chosen = np.argsort(-positions, kind="stable")[: int((positions >= RARE).sum())][:MOST_TYPES]
    views = [[counts.count_types(text.tokens, view.choices.scores, view.choices.masked, len(types.symbols))
              for view in shown.views] for shown in policies]
    return {
        "symbol": used.places(chosen), "positions": positions[chosen].tolist(),
        "per_million": np.round(types.per_million[chosen], 1).tolist(),
        "band": groups.bands(types.per_million)[chosen].tolist(),
        "masked": [[of_view.masked[chosen].tolist() for of_view in of_policy] for of_policy in views],
        "score": [[hundredths(of_view.score_sum[chosen] / positions[chosen]) for of_view in of_policy]
                  for of_policy in views],
    }
