"""How well does a model predict a text? Per word, so that vocabularies can be compared (Salazar et al. 2020, section
2.3, there per token)."""

import math
import os
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Dict, List, NamedTuple, Optional

from fairseq import utils
from tqdm import tqdm

from ..checkpoints.vocabulary import check_symbols, read_dictionary_of_shards
from ..masking.units.word import begins_word
from ..reporting.table import Table, table_of_records
from ..system.atomic_files import make_folder, write_json, write_text
from ..system.errors import UsageError, require
from ..training.blocks import load_blocks
from .models import FLAG, EvaluatedModel
from .pseudo_likelihood import (
    METRICS,
    Sentence,
    chunks,
    cost,
    masked_log_probabilities,
    pseudo_log_likelihood,
    visible_log_probabilities,
)
from .reading import refuse_device


class Passage(NamedTuple):
    """A line or a block: its inputs, more than one where a line is longer than the blocks that the model was trained
    on."""

    sentences: List[Sentence]
    n_words: int


def passages_of_text(model: EvaluatedModel, path: str, limit: Optional[int] = None) -> List[Passage]:
    """The lines of a text that are not empty; their words are separated by white space.

    Args:
        model: see `read_model`.
        path: of a UTF-8 text.
        limit: the first lines only.
    Raises:
        UsageError: it cannot be read, or holds no text.
    """
    require("--limit", limit, limit is None or limit >= 1, "1 or more")
    lines = [" ".join(line.split()) for line in read_lines(path) if line.strip()][:limit]
    room = model.block_length - 2
    passages = []
    for line, ids in zip(lines, model.encode(lines)):
        if ids:
            parts = [ids[first : first + room] for first in range(0, len(ids), room)]
            passages.append(Passage(model.sentences(parts), line.count(" ") + 1))
    if not passages:
        raise UsageError(f"--text: {path} holds no text, expected some")
    return passages


def read_lines(path: str) -> List[str]:
    refuse_device(path, "--text")
    try:
        with open(path, encoding="utf-8-sig") as file:
            return list(file)
    except UnicodeDecodeError as error:
        raise UsageError(f"--text: {path} is not UTF-8 ({error.reason}), expected UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"--text: {path}: {error.strerror}, expected a text file") from error


def passages_of_data(model: EvaluatedModel, data: str, limit: Optional[int] = None,
                     tokens_per_sample: Optional[int] = None) -> List[Passage]:
    """The blocks of the validation split of a data-bin; their words begin where the vocabulary says so.

    Args:
        model: with the vocabulary of the data.
        data: the folder, or several with colons between them, of which the first has the split.
        limit: the first blocks only.
        tokens_per_sample: positions of a block; None = as the model was trained, or all of its positions.
    Raises:
        UsageError: another vocabulary, or one that does not say where words begin; no such split.
    """
    require("--limit", limit, limit is None or limit >= 1, "1 or more")
    positions = model.max_positions
    length = model.block_length if tokens_per_sample is None else tokens_per_sample
    require("--tokens-per-sample", length, 3 <= length <= positions, f"3 to the model's {positions} positions")
    dictionary = read_dictionary_of_shards(utils.split_paths(data))
    dictionary.add_symbol("<mask>")
    check_symbols(model.dictionary.symbols, model.path, FLAG, Namespace(source_dictionary=dictionary))
    model.require_words("--data")
    blocks = load_blocks(Namespace(
        data=data, tokens_per_sample=length, seed=1, shorten_method="none", shorten_data_split_list="",
        sample_break_mode=model.settings.get("sample_break_mode") or "none"), dictionary, "valid", 1, combine=False)
    sentences = model.with_words([blocks[i].tolist() for i in range(len(blocks))[:limit]])
    for sentence in sentences:
        require("--tokens-per-sample", f"{length}, and a block of {len(sentence.tokens)} tokens",
                len(sentence.tokens) <= positions, f"blocks of at most the model's {positions} positions")
    return [Passage([sentence], count_words(model, sentence)) for sentence in sentences]


def count_words(model: EvaluatedModel, sentence: Sentence) -> int:
    """Words that begin in a block: one that was cut in two by its start belongs to the block before it."""
    begins = begins_word(model.vocabulary, model.never_scored.device)
    return sum(bool(begins[token]) for token, word in zip(sentence.tokens, sentence.words) if word >= 0)


def pseudo_perplexity(model: EvaluatedModel, passages: Sequence[Passage], metric: str = "pll", max_tokens: int = 4096,
                      show_progress: bool = False) -> Dict[str, Any]:
    """Counts, and exp of minus the mean ln P per word and per token: of masked tokens, and of tokens that the model
    sees.

    Args:
        model: see `read_model`.
        passages: of a text or a data-bin.
        metric: one of METRICS, for the masked tokens.
        max_tokens: tokens in a batch.
        show_progress: with a bar.
    Raises:
        UsageError: `within_word_l2r` of a vocabulary that does not say where words begin; a model that predicts nan.
    """
    require("--metric", metric, metric in METRICS, " or ".join(METRICS))
    require("--max-tokens", max_tokens, max_tokens >= 1, "1 or more")
    if metric == "within_word_l2r":
        model.require_words(f"--metric {metric}")
    sentences = [sentence for passage in passages for sentence in passage.sentences]
    masked, seen = [], []
    with tqdm(total=cost(sentences), unit="token", unit_scale=True, desc="masked inputs",
              disable=not show_progress) as bar:
        for chunk in chunks(sentences, lambda sentence: cost([sentence])):
            masked += masked_log_probabilities(model.model, chunk, model.mask, metric, max_tokens)
            seen += visible_log_probabilities(model.model, chunk, max_tokens)
            bar.update(cost(chunk))
    totals = {name: pseudo_log_likelihood([value for of_sentence in values for value in of_sentence])
              for name, values in (("masked", masked), ("visible", seen))}
    model.refuse_nan(list(totals.values()))
    return {
        "n_passages": len(passages),
        **perplexities(totals, sum(passage.n_words for passage in passages), sum(map(len, masked))),
        "n_unknown_tokens": sum(map(model.count_unknown, sentences)),
        **{f"{name}_log_likelihood_nats": total for name, total in totals.items()},
    }


def perplexities(totals: Dict[str, float], n_words: int, n_tokens: int) -> Dict[str, Any]:
    """The counts, and the perplexities per word and per token. totals: {masked or visible: sum of ln P}.

    Raises:
        UsageError: there are no words, or no tokens.
    """
    require("--data" if n_tokens else "--text", f"{n_words} words in {n_tokens} tokens", n_words and n_tokens, "text")
    return {"n_words": n_words, "n_tokens": n_tokens,
            **{f"{name}_perplexity_per_{what}": perplexity(total, count) for name, total in totals.items()
               for what, count in (("word", n_words), ("token", n_tokens))}}


def perplexity(total: float, count: int) -> float:
    """exp of minus the mean; infinity where that is too large for a float."""
    return math.exp(-total / count) if -total / count < 700 else math.inf


def table(record: Dict[str, Any]) -> Table:
    """For people."""
    rows = [[name, f"{record[f'{name}_perplexity_per_word']:,.2f}", f"{record[f'{name}_perplexity_per_token']:,.2f}"]
            for name in ("masked", "visible")]
    note = (f"{record['n_words']:,} words, {record['n_tokens']:,} tokens, {record['n_unknown_tokens']:,} of them "
            "`<unk>`. Compare models per word, on the same text.")
    return Table("Pseudo-perplexity", ("tokens", "per word", "per token"), rows, note)


def markdown(record: Dict[str, Any]) -> str:
    """The table, without a line end behind it."""
    return table(record).markdown(("left", "right", "right"))


def write_results(out: str, settings: Dict[str, Any], record: Dict[str, Any]) -> None:
    """Write pseudo_perplexity.md, .csv and .json to a folder."""
    make_folder(out, "--out")
    write_text(os.path.join(out, "pseudo_perplexity.csv"), table_of_records([record]).csv())
    write_json(os.path.join(out, "pseudo_perplexity.json"), {**settings, **record})
    write_text(os.path.join(out, "pseudo_perplexity.md"), markdown(record) + "\n")
