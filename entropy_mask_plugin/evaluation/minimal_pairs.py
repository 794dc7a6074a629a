"""How often is the acceptable sentence of a minimal pair the likelier one? (BLiMP, Warstadt et al. 2020)"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from tqdm import tqdm

from ..reporting.statistics import wilson_interval
from ..reporting.table import Table, table_of_records
from ..system.atomic_files import make_folder, write_json, write_text
from ..system.errors import UsageError, require
from .models import EvaluatedModel
from .pseudo_likelihood import METRICS, Sentence, chunks, cost, masked_log_probabilities, pseudo_log_likelihood
from .reading import FLAG, Pair

logger = logging.getLogger(__name__)

NOTE = ("Chance is 50 %; a tie counts one half. Intervals are Wilson's, 95 %, over pairs. Unknown: pairs with an "
        "unknown word (`<unk>`).")


class ScoredPair(NamedTuple):
    """good, bad: pseudo-log-likelihoods in nats; n_unknown: number of <unk> in both sentences."""

    pair: Pair
    good: float
    bad: float
    n_unknown: int

    @property
    def credit(self) -> float:
        """Of `credit`."""
        return credit(self.good, self.bad)


def credit(good: float, bad: float) -> float:
    """1 where the acceptable sentence or word is likelier, 1/2 for a tie, else 0; nan of nan."""
    if math.isnan(good) or math.isnan(bad):
        return math.nan
    return 1.0 if good > bad else 0.5 if good == bad else 0.0


def score_pairs(model: EvaluatedModel, pairs: Sequence[Pair], metric: str = "pll", max_tokens: int = 4096,
                show_progress: bool = False) -> List[ScoredPair]:
    """Score both sentences of each pair.

    Args:
        model: see `read_model`.
        pairs: see `read_pairs`.
        metric: one of METRICS.
        max_tokens: tokens in a batch.
        show_progress: with a bar.
    Raises:
        UsageError: a sentence without tokens, or with more than the model has positions; `within_word_l2r` of a
            vocabulary that does not say where words begin; a model that predicts nan.
    """
    require("--metric", metric, metric in METRICS, " or ".join(METRICS))
    require("--max-tokens", max_tokens, max_tokens >= 1, "1 or more")
    if metric == "within_word_l2r":
        model.require_words(f"--metric {metric}")
    encoded, scored = encode_pairs(model, pairs), []
    with tqdm(total=len(pairs), desc="pairs", disable=not show_progress) as bar:
        for chunk in chunks(encoded, lambda item: cost(item[1:])):
            scores = likelihoods(model.model, [(good, bad) for _, good, bad in chunk], model.mask, metric, max_tokens)
            model.refuse_nan([score for both in scores for score in both])
            for (pair, *both), (good, bad) in zip(chunk, scores):
                scored.append(ScoredPair(pair, good, bad, sum(map(model.count_unknown, both))))
            bar.update(len(chunk))
    return scored


def likelihoods(model: Any, pairs: Sequence[Tuple[Sentence, Sentence]], mask: int, metric: str,
                max_tokens: int) -> List[Tuple[float, float]]:
    """The pseudo-log-likelihoods of both sentences of each pair. Arguments as those of `masked_log_probabilities`."""
    sentences = [sentence for pair in pairs for sentence in pair]
    values = masked_log_probabilities(model, sentences, mask, metric, max_tokens)
    totals = list(map(pseudo_log_likelihood, values))
    return list(zip(totals[::2], totals[1::2]))


def encode_pairs(model: EvaluatedModel, pairs: Sequence[Pair]) -> List[Tuple[Pair, Sentence, Sentence]]:
    """(pair, good, bad); all are checked before any work."""
    sentences = model.sentences(model.encode([text for pair in pairs for text in (pair.good, pair.bad)]))
    encoded = list(zip(pairs, sentences[::2], sentences[1::2]))
    for pair, *both in encoded:
        for sentence in both:
            check_length(sentence, pair, model)
    warn_of_untrained_positions(encoded, model)
    return encoded


def warn_of_untrained_positions(encoded: Sequence[Tuple[Pair, Sentence, Sentence]], model: EvaluatedModel) -> None:
    """Log how many pairs have a sentence that is longer than the blocks on which the model was trained."""
    longest = model.block_length
    number = sum(any(len(sentence.tokens) > longest for sentence in both) for _, *both in encoded)
    if number:
        logger.warning(f"{FLAG}: {number:,} of {len(encoded):,} pairs have a sentence of more than {longest} tokens, "
                       "the longest blocks in the model's training: it has not learned the positions beyond")


def check_length(sentence: Sentence, pair: Pair, model: EvaluatedModel) -> None:
    """Raise a UsageError for a sentence that the model cannot read."""
    length = len(sentence.tokens)
    if length == 2:
        raise UsageError(f"{FLAG}: {pair.origin}: a sentence that is encoded to nothing found, expected text")
    require(FLAG, f"{pair.origin}: a sentence of {length} tokens", length <= model.max_positions,
            f"at most the model's {model.max_positions} positions")


def summaries(scored: Sequence[ScoredPair]) -> List[Dict[str, Any]]:
    """A record for all pairs, for each field, linguistic term and paradigm, in the order in which they come up."""
    groups: Dict[Any, List[ScoredPair]] = {}
    for level, name in (("overall", lambda pair: "all"), ("field", lambda pair: pair.field),
                        ("linguistics_term", lambda pair: pair.term), ("paradigm", lambda pair: pair.paradigm)):
        add_groups(groups, level, name, scored)
    return [summary(level, name, of_group) for (level, name), of_group in groups.items()]


def add_groups(groups: Dict[Any, List[ScoredPair]], level: str, name: Callable[[Pair], Optional[str]],
               scored: Sequence[ScoredPair]) -> None:
    for each in scored:
        if name(each.pair) is not None:
            groups.setdefault((level, name(each.pair)), []).append(each)


def summary(level: str, name: str, scored: Sequence[ScoredPair]) -> Dict[str, Any]:
    """Accuracy with its 95 % interval, in percent."""
    correct = sum(each.credit for each in scored)
    low, high = wilson_interval(correct, len(scored))
    return {"level": level, "name": name, "n_pairs": len(scored), "accuracy_pct": 100 * correct / len(scored),
            "low_pct": 100 * low, "high_pct": 100 * high, "n_ties": sum(each.credit == 0.5 for each in scored),
            "n_pairs_with_unknown": sum(each.n_unknown > 0 for each in scored)}


def tables(records: Sequence[Dict[str, Any]]) -> List[Table]:
    """For people: one table for each level that there is, the first with all pairs and the fields."""
    shown = []
    for title, levels in (("Fields", ("overall", "field")), ("Linguistic terms", ("linguistics_term",)),
                          ("Paradigms", ("paradigm",))):
        rows = [row_of(record) for level in levels for record in records if record["level"] == level]
        if rows:
            shown.append(Table(title, ("name", "pairs", "accuracy", "95 %", "ties", "unknown"), rows))
    return [*shown[:-1], shown[-1]._replace(note=NOTE)]


def row_of(record: Dict[str, Any]) -> List[str]:
    return [record["name"], f"{record['n_pairs']:,}", f"{record['accuracy_pct']:.1f} %",
            f"{record['low_pct']:.1f}–{record['high_pct']:.1f}", str(record["n_ties"]),
            str(record["n_pairs_with_unknown"])]


def markdown(records: Sequence[Dict[str, Any]]) -> str:
    """The tables, without a line end behind them."""
    align = ("left", "right", "right", "right", "right", "right")
    return "\n\n".join(table.markdown(align) for table in tables(records))


def write_results(out: str, settings: Dict[str, Any], scored: Sequence[ScoredPair]) -> None:
    """Write minimal_pairs.md, .csv and .json, and pairs.csv with both scores of each pair, to a folder."""
    records = summaries(scored)
    make_folder(out, "--out")
    write_text(os.path.join(out, "pairs.csv"), table_of_records([pair_record(each) for each in scored]).csv())
    write_text(os.path.join(out, "minimal_pairs.csv"), table_of_records(records).csv())
    write_json(os.path.join(out, "minimal_pairs.json"), {**settings, "results": records})
    write_text(os.path.join(out, "minimal_pairs.md"), markdown(records) + "\n")


def pair_record(scored: ScoredPair) -> Dict[str, Any]:
    pair = scored.pair
    return {"paradigm": pair.paradigm, "sentence_good": pair.good, "sentence_bad": pair.bad,
            "good_nats": scored.good, "bad_nats": scored.bad, "credit": scored.credit, "n_unknown": scored.n_unknown}
