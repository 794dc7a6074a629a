"""ln P of each token of a sentence under a masked language model, in nats and fp32.

    pll               each token is masked alone (Salazar et al. 2020, equation 1)
    within_word_l2r   with it, the later tokens of its word are masked (Kauf and Ivanova 2023, section 3): otherwise the
                      rest of a word that is cut into several tokens gives it away

The sum over a sentence is its pseudo-log-likelihood.

Shapes: B masked inputs, T positions, V vocabulary, K scored tokens.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Dict, List, NamedTuple, Tuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..masking.scores import projected
from ..masking.scores.surprisal import surprisal
from ..models.positions import SelectedPositions

METRICS = ("pll", "within_word_l2r")
TOKENS_A_CHUNK = 1 << 17
Item = TypeVar("Item")


class Sentence(NamedTuple):
    """tokens: ids, <s> … </s>; words: for each of them the number of its word, -1 where it is not scored."""

    tokens: Tuple[int, ...]
    words: Tuple[int, ...]


class MaskedInput(NamedTuple):
    """One row for the model: tokens with masks, and the position whose token is predicted."""

    tokens: Tuple[int, ...]
    position: int


def masked_log_probabilities(model: Any, sentences: Sequence[Sentence], mask: int, metric: str = "pll",
                             max_tokens: int = 4096) -> List[List[float]]:
    """ln P of each scored token of each sentence, the token being masked.

    A masked input that several tokens share, as those of a pair of sentences that differ in this token alone, goes
    through the model once. Equal sentences of one call have equal results, bit for bit.

    Args:
        model: one of this plug-in's, or a teacher; in eval mode and fp32.
        sentences: to be scored.
        mask: id of <mask>.
        metric: one of METRICS.
        max_tokens: tokens in a batch; a longer sentence is a batch of its own.
    Returns:
        for each sentence, the values of its scored tokens from left to right.
    """
    inputs: Dict[MaskedInput, List[int]] = {}  # -> the tokens to be predicted there
    requests = []  # for each sentence: (input, place in its list)
    for sentence in sentences:
        requests.append([])
        for masked, target in masked_inputs(sentence, mask, metric):
            targets = inputs.setdefault(masked, [])
            if target not in targets:
                targets.append(target)
            requests[-1].append((masked, targets.index(target)))
    values: Dict[MaskedInput, List[float]] = {}
    for batch in batches_of_one_length(inputs, lambda masked: len(masked.tokens), max_tokens):
        values.update(zip(batch, predict(model, batch, [inputs[masked] for masked in batch])))
    return [[values[masked][place] for masked, place in of_sentence] for of_sentence in requests]


def masked_inputs(sentence: Sentence, mask: int, metric: str) -> Iterator[Tuple[MaskedInput, int]]:
    """(input, token to be predicted) of each scored token of a sentence."""
    for position, word in enumerate(sentence.words):
        if word < 0:
            continue
        tokens = list(sentence.tokens)
        last = len(tokens) if metric == "within_word_l2r" else position + 1
        for later in range(position, last):
            if sentence.words[later] == word:
                tokens[later] = mask
        yield MaskedInput(tuple(tokens), position), sentence.tokens[position]


def batches_of_one_length(items: Iterable[Item], length: Callable[[Item], int],
                          max_tokens: int) -> Iterator[List[Item]]:
    """Lists of items of one length with at most max_tokens tokens, or of one item: nothing is padded."""
    by_length: Dict[int, List[Item]] = {}
    for item in items:
        by_length.setdefault(length(item), []).append(item)
    for tokens, of_length in sorted(by_length.items()):
        size = max(1, max_tokens // tokens)
        yield from (of_length[first : first + size] for first in range(0, len(of_length), size))


@torch.no_grad()  # not inference_mode: what a model that is being trained may keep has to enter autograd later
def predict(model: Any, inputs: Sequence[MaskedInput], targets: Sequence[Sequence[int]]) -> List[List[float]]:
    """ln P of one or more tokens at the position of each of B inputs of one length; logits are computed there alone."""
    device = next(model.parameters()).device
    tokens = torch.tensor([masked.tokens for masked in inputs], device=device)  # B x T
    at = torch.tensor([masked.position for masked in inputs], device=device)
    selected = torch.arange(tokens.size(1), device=device) == at[:, None]  # B x T
    positions = SelectedPositions(selected, np.ones(len(inputs), dtype=np.int64))
    with torch.autocast(device.type, enabled=False):
        logits = model(tokens, masked_tokens=positions, has_padding=False)[0]  # B x V
    rows = torch.tensor([row for row, of_row in enumerate(targets) for _ in of_row], device=device)  # K
    target = torch.tensor(list(itertools.chain.from_iterable(targets)), device=device)  # K
    if len(rows) > len(inputs):
        logits = logits[rows]  # K x V
    values = iter((-surprisal(logits, target)).tolist())
    return [list(itertools.islice(values, len(of_row))) for of_row in targets]


def visible_log_probabilities(model: Any, sentences: Sequence[Sentence], max_tokens: int = 4096) -> List[List[float]]:
    """ln P of each scored token of each sentence, the model seeing all of them. Arguments and result as those of
    `masked_log_probabilities`."""
    values: Dict[Sentence, List[float]] = {}
    for batch in batches_of_one_length(dict.fromkeys(sentences), lambda sentence: len(sentence.tokens), max_tokens):
        for sentence, row in zip(batch, visible(model, [sentence.tokens for sentence in batch]).tolist()):
            values[sentence] = [value for value, word in zip(row, sentence.words) if word >= 0]
    return [values[sentence] for sentence in sentences]


@torch.inference_mode()
def visible(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """ln P of every token of B rows of one length: B x T fp32."""
    tokens = torch.tensor(rows, device=next(model.parameters()).device)
    with torch.autocast(tokens.device.type, enabled=False):
        hidden = model.lm_hidden(tokens, has_padding=False)  # B x T x C
        weight, bias = model.output_projection()
        return -projected("surprisal", hidden, weight, bias, tokens)


def pseudo_log_likelihood(log_probabilities: Sequence[float]) -> float:
    """Their sum, rounded once."""
    return math.fsum(log_probabilities)


def chunks(items: Iterable[Item], cost: Callable[[Item], int], budget: int = TOKENS_A_CHUNK) -> Iterator[List[Item]]:
    """Lists of items that cost about `budget` together, for a progress bar and to bound the memory."""
    chunk, total = [], 0
    for item in items:
        chunk.append(item)
        total += cost(item)
        if total >= budget:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def cost(sentences: Iterable[Sentence]) -> int:
    """Tokens of their masked inputs, before equal ones are merged."""
    return sum(len(sentence.tokens) * sum(word >= 0 for word in sentence.words) for sentence in sentences)
