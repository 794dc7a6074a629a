"""The unigram plateau: the loss of a model that knows token frequencies alone, where masked language models begin and
many small ones end. There, and above, a loss is no sign that a model reads the context."""

import math

MARGIN = 0.3  # bits below the unigram entropy


def unigram_entropy(counts):
    """Entropy of token frequencies in bits: the loss of a model that knows nothing but these.

    Args:
        counts: of each maskable symbol in the training text.
    Returns:
        None where the counts say nothing: none above 0, or all the same, as in a vocabulary that nobody counted with.
    """
    counts = [count for count in counts if count > 0]
    if len(set(counts)) < 2:
        return None
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts)


def beginning(unigram):
    """What a log says at its start."""
    known = "unknown, dict.txt has no counts" if unigram is None else f"{unigram:.3f} bits, by the counts in dict.txt"
    return f"unigram entropy of the training data: {known}"


def is_on_plateau(loss, unigram):
    """Whether a validation loss (bits) is not at least MARGIN below the unigram entropy; of an unknown one, no."""
    return unigram is not None and not loss <= unigram - MARGIN  # nan is no progress either


def sentence(loss, unigram):
    return (f"on the plateau: valid loss {loss:.2f} bits, expected at least {MARGIN} below the unigram entropy of the "
            f"training data, {unigram:.2f}")
