"""The word class of each token, by the tagger HanTa (extra [atlas]), where it is installed: a hidden Markov model for
English that comes with its package (Wartena 2019), with the tags of the British National Corpus (C5).

A tagger is a function: the words of a sentence -> a C5 tag for each.
"""

import re
from typing import Callable, List, Optional, Sequence

import numpy as np

from ..masking.units.word import starts_word
from ..system.extras import missing_modules
from .groups import Grouping, texts_of

Tagger = Callable[[List[str]], List[str]]

CLASSES = {  # name for people: the C5 tags, as prefixes
    "nouns": ("NN",), "names": ("NP",), "verbs": ("VV",), "be, have, do, modals": ("VB", "VD", "VH", "VM"),
    "adjectives": ("AJ",), "adverbs": ("AV", "XX"), "pronouns": ("PN", "EX"), "determiners": ("AT", "D"),
    "prepositions": ("PR", "TO", "IN"), "conjunctions": ("CJ",), "numbers": ("CRD", "ORD"),
    "punctuation": ("PU", "!!"),
}
OTHER = "other"
SENTENCE = re.compile(r"[.!?]$")
LONGEST_SENTENCE, LONGEST_WORD = 60, 30  # words, characters: the tagger tries every way to cut an unknown word
WITHIN_WORDS = ("'", "’", "-")  # signs that end no word


def installed_tagger() -> Optional[Tagger]:
    """HanTa's, or None."""
    if missing_modules("atlas"):
        return None
    from HanTa.HanoverTagger import HanoverTagger  # pyright: ignore[reportMissingImports]

    tagger = HanoverTagger("morphmodel_en.pgz")
    return lambda words: [str(analysis[2]) for analysis in tagger.tag_sent(words)]


def class_of(tag: str) -> int:
    """The place of a C5 tag in CLASSES, or behind them for another one."""
    return next((i for i, prefixes in enumerate(CLASSES.values()) if tag.startswith(prefixes)), len(CLASSES))


def word_classes(tagger: Tagger, tokens: np.ndarray, blocks: np.ndarray, positions: np.ndarray, symbols: Sequence[str],
                 prefix: str) -> Grouping:
    """The class of the word that each token belongs to. Punctuation is a word of its own; what is not maskable ends a
    word.

    Args:
        tagger: see above.
        tokens: P int64.
        blocks: P int64, the block of each token.
        positions: P int64, its place in the block.
        symbols: V.
        prefix: the mark of word boundaries, see `masking.units.word`.
    """
    texts = texts_of(symbols)
    starts = word_starts(tokens, blocks, positions, symbols, texts, prefix)
    number = np.cumsum(starts) - 1  # of the word of each token
    words = [""] * int(number[-1] + 1)
    for word, token in zip(number.tolist(), tokens.tolist()):
        words[word] += texts[token]
    tags = tags_of(tagger, words, blocks[starts])
    return Grouping("word_class", "word class (tagger: HanTa, English)", (*CLASSES, OTHER),
                    np.array([class_of(tag) for tag in tags])[number])


def word_starts(tokens: np.ndarray, blocks: np.ndarray, positions: np.ndarray, symbols: Sequence[str],
                texts: Sequence[str], prefix: str) -> np.ndarray:
    """Whether each token begins a word for the tagger: P bool."""
    begins = np.array([starts_word(symbol, prefix) for symbol in symbols])[tokens]
    is_sign = np.array([bool(text) and text not in WITHIN_WORDS and not any(map(str.isalnum, text))
                        for text in texts])[tokens]
    follows = (np.diff(blocks) == 0) & (np.diff(positions) == 1)
    starts = begins | is_sign
    starts[1:] |= ~follows | is_sign[:-1]
    starts[:1] = True
    return starts


def tags_of(tagger: Tagger, words: Sequence[str], blocks: np.ndarray) -> List[str]:
    """A tag for each word, sentence by sentence; a word without a character, or with too many, is tagged "".

    Args:
        tagger: see above.
        words: of the whole text.
        blocks: the block of each word.
    """
    tags = [""] * len(words)
    sentence: List[int] = []
    for i, word in enumerate(words):
        sentence += [i] if word.strip() and len(word) <= LONGEST_WORD else []
        is_last = i + 1 == len(words) or blocks[i + 1] != blocks[i]
        if sentence and (is_last or SENTENCE.search(word) or len(sentence) == LONGEST_SENTENCE):
            for place, tag in zip(sentence, tagger([words[j] for j in sentence])):
                tags[place] = tag
            sentence = []
    return tags
