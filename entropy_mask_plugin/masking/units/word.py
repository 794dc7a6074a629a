"""Whole words, as tokenizers mark them.

Shapes: B sentences, T positions, V vocabulary.
"""

import functools
from typing import Optional, Sequence

import torch
from torch import Tensor

from ..noise import Draw
from ..vocabulary import Vocabulary
from .registry import UNITS, number_by_start

# {prefix of a subword token: whether a token that has it begins a word; tokens without it do the opposite}
PREFIXES = {"##": False, "▁": True, "Ġ": True}  # of WordPiece, SentencePiece, byte-level BPE


def prefix_of(symbols: Sequence[str]) -> Optional[str]:
    """The one of PREFIXES that marks word boundaries in a vocabulary: the most frequent one, since text may contain all
    of them. None where no symbol has one."""
    counts = {prefix: sum(symbol.startswith(prefix) for symbol in symbols) for prefix in PREFIXES}
    most_frequent = max(PREFIXES, key=counts.__getitem__)
    return most_frequent if counts[most_frequent] else None


def starts_word(symbol: str, prefix: Optional[str]) -> bool:
    """Whether a subword token begins a word. prefix: see `prefix_of`; without one, each token is a word."""
    return prefix is None or symbol.startswith(prefix) == PREFIXES[prefix]


def check_words(symbols: Sequence[str], flag: str = "--mask-unit word") -> None:
    """Check that a vocabulary marks word boundaries. flag: what needs them, for the message.

    Raises:
        ValueError: it does not.
    """
    if prefix_of(symbols) is None:
        raise ValueError(f"{flag}: a vocabulary of {len(symbols)} symbols without word boundaries found, "
                         "expected WordPiece (##…), SentencePiece (▁…) or byte-level BPE (Ġ…)")


@functools.lru_cache(maxsize=4)  # looks at each of the V symbols, and copies to the device: once, not in every update
def begins_word(vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """Whether each subword token of a vocabulary begins a word: V bool on the device."""
    prefix = prefix_of(vocabulary.symbols)
    assert prefix is not None, "check_words refuses this vocabulary"
    return torch.tensor([starts_word(symbol, prefix) for symbol in vocabulary.symbols], device=device)


@UNITS.add("word", check=check_words)
def word(tokens: Tensor, candidates: Tensor, vocabulary: Vocabulary, draw: Draw) -> Tensor:
    """Whole words: a subword token that begins one, and all that continue it.

    What cannot be masked is alone, and ends a word.
    """
    return number_words(tokens, candidates, vocabulary)


def number_words(tokens: Tensor, candidates: Tensor, vocabulary: Vocabulary) -> Tensor:
    """B x T int64: tokens of one word have the position of its first token as their number. What is no candidate (B x T
    bool) is alone, and ends a word."""
    starts = begins_word(vocabulary, tokens.device)[tokens] | ~candidates
    starts[:, 1:] |= ~candidates[:, :-1]
    return number_by_start(starts)
