"""Minimal pairs after each validation of a training (--valid-pairs): of its own text, or of files.

Every rank scores all pairs, so that ranks have nothing to exchange, and any number of them has the accuracy of one.
Nothing is drawn at random, and the model is left as it was: a training is the same with and without it.
"""

import contextlib
import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq import utils

from ..pretrained.teacher import Teacher, with_separate_projection
from ..system.errors import UsageError
from .minimal_pairs import credit, likelihoods
from .models import SentenceEncoder
from .pseudo_likelihood import Sentence, chunks, cost
from .reading import read_pairs
from .text_pairs import SWAPS, Cloze, cloze_credits, cloze_questions

logger = logging.getLogger(__name__)

FLAG, TEXT = "--valid-pairs", "text"
LIMIT_OF_SWAP, LIMIT_OF_PARADIGM = 200, 10
MAX_TOKENS = 1 << 13  # of a batch

Credits = Callable[[Teacher], List[float]]  # a model -> for each pair 1, 1/2 or 0


def accuracy_sums(credits: Credits, model: Any) -> Dict[str, float]:
    """What validation logs of the pairs: {"pairs_correct", "n_pairs"}, on every rank the same.

    Args:
        credits: see `valid_pairs`.
        model: in training, of any precision; not wrapped for several ranks.
    """
    with scoring(model) as ready:
        values = credits(ready)
    return {"pairs_correct": sum(values), "n_pairs": len(values)}


@contextlib.contextmanager
def scoring(model: Any) -> Iterator[Teacher]:
    """The model in eval mode and fp32, not compiled: sentences of many lengths would be compiled one by one."""
    was_training = model.training
    is_fp32 = all(parameter.dtype is torch.float32 for parameter in model.parameters())
    ready = with_separate_projection("the model in training", model if is_fp32 else copy.deepcopy(model).float(), FLAG)
    ready.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield ready
    finally:
        model.train(was_training)


def valid_pairs(cfg: Any, dictionary: Any, blocks: Sequence[Any], longest: int) -> Optional[Credits]:
    """The pairs of a training.

    Args:
        cfg: an EntropyMaskedLMConfig.
        dictionary: of the data, with <mask>.
        blocks: of the validation text.
        longest: positions of a block.
    Returns:
        None where the text has none, which is logged.
    Raises:
        UsageError: see `read_pairs` and `find_tokenizer`; no pair is short enough.
    """
    limit = cfg.valid_pairs_limit
    if cfg.valid_pairs == TEXT:
        return pairs_of_text(blocks, dictionary, limit or LIMIT_OF_SWAP, longest)
    return pairs_of_files(cfg, dictionary, limit or LIMIT_OF_PARADIGM, longest)


def pairs_of_text(blocks: Sequence[Any], dictionary: Any, limit: int, longest: int) -> Optional[Credits]:
    """See `cloze_questions`."""
    every_block = (blocks[i] for i in range(len(blocks)))
    questions = cloze_questions(every_block, dictionary, limit, longest)
    if not questions:
        words = ", ".join("/".join(swap) for swap in SWAPS)
        logger.warning(f"{FLAG} {TEXT}: no pairs, the validation text does not have both of {words} as whole tokens; "
                       "nothing is logged of them")
        return None
    logger.info(f"{FLAG} {TEXT}: {len(questions):,} pairs ({counts(questions)}), chance is 50 %")
    return lambda model: cloze_credits(model, questions, MAX_TOKENS)


def counts(questions: Sequence[Cloze]) -> str:
    """For people: how many there are of each swap."""
    of_swap = Counter(question.swap for question in questions)
    return ", ".join(f"{one}/{other} {of_swap[one, other]}" for one, other in SWAPS if of_swap[one, other])


def pairs_of_files(cfg: Any, dictionary: Any, limit: int, longest: int) -> Credits:
    """By pseudo-log-likelihood; the tokenizer is beside the data."""
    data = utils.split_paths(cfg.data)[0]
    encoder = SentenceEncoder(data, dictionary.symbols, None, {"cfg": {"task": {"data": data}}})
    pairs = read_pairs(cfg.valid_pairs, limit, FLAG)
    sentences = encoder.sentences(encoder.encode([text for pair in pairs for text in (pair.good, pair.bad)]))
    encoded = list(zip(sentences[::2], sentences[1::2]))
    fits = [all(2 < len(sentence.tokens) <= longest for sentence in both) for both in encoded]
    short = list(compress(encoded, fits))
    if not short:
        raise UsageError(f"{FLAG}: {cfg.valid_pairs} without a pair that fits into --tokens-per-sample "
                         f"{longest} found, expected shorter sentences")
    n_paradigms = len({pair.paradigm for pair in compress(pairs, fits)})
    n_unknown = sum(any(map(encoder.count_unknown, pair)) for pair in short)
    logger.info(f"{FLAG}: pairs {len(short):,}, paradigms {n_paradigms:,}, pairs with <unk> {n_unknown:,}, "
                f"left out as longer than a block {len(encoded) - len(short):,}; chance is 50 %")
    return lambda model: likelihood_credits(model, short, encoder.mask)


def likelihood_credits(model: Teacher, pairs: Sequence[Tuple[Sentence, Sentence]], mask: int) -> List[float]:
    """1 for each pair whose acceptable sentence is likelier, 1/2 for a tie, else 0."""
    return [credit(good, bad) for chunk in chunks(pairs, cost)
            for good, bad in likelihoods(model, chunk, mask, "pll", MAX_TOKENS)]
