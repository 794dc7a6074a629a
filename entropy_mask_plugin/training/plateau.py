"""The unigram plateau: the loss of a model that knows only token frequencies. Masked language models pass it early in
training, and many small ones never leave it; a loss there or above does not show that the model uses context."""

import math
from collections.abc import Iterable, Sequence
from typing import Optional

MARGIN = 0.3  # bits below the unigram entropy
SHORT = 32  # positions of a block; with so few, the models of examples/quickstart leave the plateau


def unigram_entropy(counts: Iterable[int]) -> Optional[float]:
    """Entropy of the token frequencies in bits: the loss of a model that predicts nothing but these.

    Args:
        counts: occurrences of each maskable symbol in the training text.
    Returns:
        None where the counts are uninformative: none above 0, or all equal, as in a dictionary without counts.
    """
    counts = [count for count in counts if count > 0]
    if len(set(counts)) < 2:
        return None
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts)


def unigram_message(unigram: Optional[float]) -> str:
    """The log line at the start of training. unigram: bits; None = unknown."""
    value = "unknown, dict.txt has no counts" if unigram is None else f"{unigram:.3f} bits, by the counts in dict.txt"
    return f"unigram entropy of the training data: {value}"


def is_on_plateau(loss: float, unigram: Optional[float]) -> bool:
    """Whether a validation loss (bits) is less than MARGIN below the unigram entropy (bits); False if that is None."""
    return unigram is not None and not loss <= unigram - MARGIN  # nan is no progress either


def plateau_warning(loss: float, unigram: float, lengths: Sequence[int]) -> str:
    """The warning about a validation loss on the plateau or above it, and what to do. Both in bits; lengths: of the
    blocks of the run, ascending."""
    place = "above" if loss > unigram + MARGIN else "on"
    return (f"{place} the plateau: valid loss {loss:.2f} bits, expected at least {MARGIN} below the unigram entropy of "
            f"the training data, {unigram:.2f}; {advice(lengths)}")


def advice(lengths: Sequence[int]) -> str:
    """What helps a model off the plateau. lengths: of the blocks of the run, ascending."""
    first, last = lengths[0], lengths[-1]
    if first > SHORT:
        return f"if it stays there, begin with shorter blocks: --tokens-per-sample {max(SHORT, first // 4)}:{last}"
    return "if it stays there, train for more updates: more epochs, or smaller batches"
