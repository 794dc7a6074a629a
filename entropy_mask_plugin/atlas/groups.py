"""Token types by frequency and form, positions by place.

Shapes: V vocabulary, P positions.
"""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from ..masking.units.word import prefix_of, starts_word

BANDS = ("10,000 and more", "1,000 to 10,000", "100 to 1,000", "10 to 100", "below 10")  # per million tokens
BAND_LIMITS = (10_000, 1_000, 100, 10)
FROM_FREQUENT = ("1, most frequent", *map(str, range(2, 10)), "10, rarest")
FROM_BEGIN = ("1, begin", *map(str, range(2, 10)), "10, end")
CHARACTER_CLASSES = ("letters", "digits", "punctuation", "mixed", "no character")


class Grouping(NamedTuple):
    """A way to divide the positions of a text. key: for JSON; title, labels: for people, G labels; groups: P int64,
    -1 = in none of them."""

    key: str
    title: str
    labels: Sequence[str]
    groups: np.ndarray


def frequencies(counts: np.ndarray, tokens: np.ndarray) -> Tuple[np.ndarray, str]:
    """How often each type occurs, and where: by dict.txt, or in the text itself where that counts nothing: V int64.

    Args:
        counts: V int64, of dict.txt, 0 for symbols that are never masked.
        tokens: P int64, of the text.
    """
    if counts.max() > 1:
        return counts, "training text (dict.txt)"
    return np.bincount(tokens, minlength=len(counts)), "text that was read (dict.txt has no counts)"


def per_million(counts: np.ndarray) -> np.ndarray:
    """V float."""
    return counts / max(1, counts.sum()) * 1e6


def bands(rates: np.ndarray) -> np.ndarray:
    """The place of each type in BANDS: V int64. rates: V, per million."""
    return (rates[:, None] < np.array(BAND_LIMITS)).sum(1)


def deciles(counts: np.ndarray) -> np.ndarray:
    """Which tenth of the running text each type belongs to, from 0, the most frequent types: V int64.

    Types are taken by (count descending, id); a type belongs to the tenth in which the middle of its tokens falls.
    """
    order = np.argsort(-counts, kind="stable")
    middles = np.cumsum(counts[order]) - counts[order] / 2
    result = np.empty(len(counts), np.int64)
    result[order] = np.minimum(9, 10 * middles / max(1, counts.sum())).astype(np.int64)
    return result


def tenths_of_block(positions: np.ndarray, length: int) -> np.ndarray:
    """Which tenth of a block each position is in, from 0. positions: P int64; length: of a full block, <s> included."""
    return np.minimum(9, positions * 10 // length)


def texts_of(symbols: Sequence[str]) -> List[str]:
    """The symbols without the marks of word boundaries; of byte-level BPE, the characters that its letters stand for.
    """
    prefix = prefix_of(symbols)
    texts = [symbol.removeprefix(prefix) if prefix else symbol for symbol in symbols]
    return [characters_of_bytes(text) for text in texts] if prefix == "Ġ" else texts


def characters_of_bytes(text: str) -> str:
    """The text that letters of byte-level BPE stand for: each is one byte of UTF-8 (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    if any(letter not in byte_of for letter in text):
        return text
    return bytes(byte_of[letter] for letter in text).decode("utf-8", errors="replace")


def character_class(text: str) -> int:
    """The place in CHARACTER_CLASSES. text: of a token, without a mark of word boundaries."""
    if not text.strip():
        return 4
    if text.isalpha():
        return 0
    if text.isnumeric():
        return 1
    return 2 if not any(character.isalnum() for character in text) else 3


def groupings(text_tokens: np.ndarray, positions: np.ndarray, counts: np.ndarray, symbols: Sequence[str],
              block_length: int) -> List[Grouping]:
    """All but the word classes.

    Args:
        text_tokens: P int64.
        positions: P int64, in their blocks.
        counts: V int64, frequencies.
        symbols: V.
        block_length: tokens of a full block.
    """
    classes = np.array([character_class(text) for text in texts_of(symbols)])
    kinds = [Grouping("frequency_decile", "frequency: tenths of the running text", FROM_FREQUENT,
                      deciles(counts)[text_tokens])]
    prefix = prefix_of(symbols)
    if prefix is not None:
        begins = np.array([starts_word(symbol, prefix) for symbol in symbols])
        kinds.append(Grouping("word_part", "place in the word", ("begins a word", "inside a word"),
                              np.where(begins, 0, 1)[text_tokens]))
    return [*kinds, Grouping("character_class", "characters", CHARACTER_CLASSES, classes[text_tokens]),
            Grouping("block_position", "place in the block: tenths of its positions", FROM_BEGIN,
                     tenths_of_block(positions, block_length))]
