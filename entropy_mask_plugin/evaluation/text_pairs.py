"""Minimal pairs made of a text: a word is masked, and its counterpart would be wrong there.

    the keys to the cabinet <mask> on the table        are, not is

The text has the right answer, so that any corpus with these words will do. Each swap is asked as often in one direction
as in the other: a model that always prefers one of the two words has exactly 50 %.

Shapes: T positions, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from ..masking.units.word import PREFIXES, prefix_of, starts_word
from .minimal_pairs import credit
from .pseudo_likelihood import MaskedInput, batches_of_one_length, predict

SWAPS = (("is", "are"), ("was", "were"), ("has", "have"), ("this", "these"), ("a", "an"))
JOINERS = ("'", "’", "-")  # after which a word goes on in any vocabulary: isn't


class Cloze(NamedTuple):
    """A question: which of two tokens is likelier at a masked position? right: the text's; swap: one of SWAPS."""

    masked: MaskedInput
    right: int
    wrong: int
    swap: Tuple[str, str]


def cloze_questions(blocks: Iterable[Tensor], dictionary: Any, limit: int, longest: int) -> List[Cloze]:
    """The questions of a text, as many of each direction of a swap, evenly spread over the text.

    Args:
        blocks: of T tokens each.
        dictionary: fairseq's, with <mask>.
        limit: the most questions of a swap, both directions together.
        longest: longer blocks are left out.
    Returns:
        none where the vocabulary has no swap as whole words, or the text has no two words of one.
    """
    tokens = tokens_of_swaps(dictionary.symbols)
    by_answer = places_of(tokens, (block for block in blocks if len(block) <= longest), dictionary) if tokens else {}
    questions = []
    for answer, (counterpart, swap) in tokens.items():
        number = min(len(by_answer[answer]), len(by_answer[counterpart]), limit // 2)
        for block, position in (by_answer[answer][i] for i in spread(len(by_answer[answer]), number)):
            masked = block.tolist()
            masked[position] = dictionary.index("<mask>")
            questions.append(Cloze(MaskedInput(tuple(masked), position), answer, counterpart, swap))
    return questions


def places_of(tokens: Iterable[int], blocks: Iterable[Tensor], dictionary: Any) -> Dict[int, List[Tuple[Tensor, int]]]:
    """{token: every (block, position) at which it is a whole word}. Arguments as those of `cloze_questions`."""
    places: Dict[int, List[Tuple[Tensor, int]]] = {token: [] for token in tokens}
    is_answer, ends = torch.zeros(len(dictionary), dtype=torch.bool), ends_word(dictionary)
    is_answer[list(places)] = True
    for block in blocks:
        for position in (is_answer[block[:-1]] & ends[block[1:]]).nonzero().flatten().tolist():
            places[int(block[position])].append((block, position))
    return places


def tokens_of_swaps(symbols: Sequence[str]) -> Dict[int, Tuple[int, Tuple[str, str]]]:
    """{token: (its counterpart, their swap)} for the swaps of which both words are a token of a vocabulary."""
    prefix = prefix_of(symbols)
    begin = prefix if prefix is not None and PREFIXES[prefix] else ""
    index = {symbol: i for i, symbol in enumerate(symbols)}
    tokens = {}
    for swap in SWAPS:
        one, other = (index.get(begin + word) for word in swap)
        if one is not None and other is not None:
            tokens[one], tokens[other] = (other, swap), (one, swap)
    return tokens


def ends_word(dictionary: Any) -> Tensor:
    """Whether a word is known to be over where a token follows it: V bool. Not before <unk>: the word is "a" or "an" by
    what follows it."""
    prefix = prefix_of(dictionary.symbols)
    ends = [not goes_on(symbol, prefix) for symbol in dictionary.symbols]
    for special, value in (("</s>", True), ("<s>", True), ("<unk>", False), ("<pad>", False)):
        ends[dictionary.index(special)] = value
    return torch.tensor(ends)


def goes_on(symbol: str, prefix: Optional[str]) -> bool:
    """Whether a token goes on the word before it. Punctuation does not, whether marked as a word or not."""
    text = symbol.removeprefix(prefix or "")
    return text.startswith(JOINERS) or not starts_word(symbol, prefix) and any(map(str.isalnum, text))


def spread(n: int, most: int) -> Tuple[int, ...]:
    """At most so many of n numbers, evenly spaced from the first: floor(i n / most)."""
    return tuple(range(n)) if n <= most else tuple(i * n // most for i in range(most))


def cloze_credits(model: Any, questions: Sequence[Cloze], max_tokens: int) -> List[float]:
    """1 for each question whose right token is likelier, 1/2 for a tie, else 0.

    Args:
        model: one of this plug-in's, or a teacher; in eval mode and fp32.
        questions: to be answered.
        max_tokens: tokens in a batch.
    """
    credits = []
    for batch in batches_of_one_length(questions, lambda cloze: len(cloze.masked.tokens), max_tokens):
        values = predict(model, [cloze.masked for cloze in batch], [(cloze.right, cloze.wrong) for cloze in batch])
        credits += [credit(right, wrong) for right, wrong in values]
    return credits
