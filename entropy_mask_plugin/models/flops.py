"""Compute of a model, from its sizes: multiply-accumulates (MACs) per token of a forward pass.

Only matrix products are counted, as in torch's FlopCounterMode; a MAC is two FLOPs, and a training step is three
forward passes. `tests/test_flops.py` compares the sums with the counter.

Names: d width, f width inside the feed-forward block, V vocabulary, T positions, and as fractions of the T positions
s = predicted, x = visible to the encoder.
"""

from typing import Any, Dict, NamedTuple, Sequence, Tuple, Union

from ..masking.corruption import Corruption
from ..masking.rates import Ramp
from .bert import BertModel


class Fractions(NamedTuple):
    """Fractions of the T positions, in [0, 1]."""

    predicted: float  # s: logits are computed
    visible: float  # x: input of the encoder


TRAINING_STEP = 3  # forward passes: the backward pass has two products for each one


def fractions_of(corruption: Corruption) -> Fractions:
    """Averages over a training step; special tokens are ignored. (A 3ML encoder pads every sentence of a batch to its
    largest number of visible tokens, which is a few per cent more.)"""
    assert not isinstance(corruption.mask_prob, Ramp), "a rate that changes is evaluated at a point of the run"
    replaced = corruption.mask_prob * (1 - corruption.leave_unmasked_prob - corruption.random_token_prob)
    return Fractions(corruption.mask_prob, 1 - replaced)


ENTROPY_PASS = Fractions(1.0, 1.0)


def terms(model: BertModel, length: int, fractions: Fractions) -> Dict[Tuple[str, str], float]:
    """{(part, term): MACs per token} of a forward pass.

    Args:
        model: only its sizes matter.
        length: T.
        fractions: without a mask decoder, the encoder sees all positions whatever `visible` is.
    """
    visible = fractions.visible if model.mask_decoder is not None else 1.0
    macs_of = {}
    encoder, decoder = model.encoder.layers, [] if model.mask_decoder is None else model.mask_decoder.layers
    last = (decoder or encoder)[-1]  # the only layer that computes at the predicted positions alone
    for part, layers, present in (("encoder", encoder, visible), ("mask decoder", decoder, 1.0)):
        for layer in layers:
            computed = fractions.predicted if layer is last else present
            for term, macs_of_term in layer_terms(layer, length, present, computed, visible).items():
                macs_of[part, term] = macs_of.get((part, term), 0) + macs_of_term
    weight, _ = model.output_projection()
    vocabulary, width = weight.shape
    macs_of["head", "transform"] = fractions.predicted * width**2
    macs_of["head", "vocabulary"] = fractions.predicted * width * vocabulary
    return macs_of


def layer_terms(layer: Any, length: int, present: float, computed: float, visible: float) -> Dict[str, float]:
    """{term: MACs per token of the T tokens}.

    Args:
        layer: a `layers.Layer`.
        length: T.
        present: fraction of the positions that are the layer's input.
        computed: fraction of the positions at which its output is computed.
        visible: fraction of the positions that cross-attention sees.
    """
    width, inner = layer.ffn.fc1.in_features, layer.ffn.fc1.out_features
    macs_of = {"feed-forward": computed * 2 * width * inner, **layer.self_attn.macs(width, length, present, computed)}
    if hasattr(layer, "cross_attn"):
        for term, macs_of_term in layer.cross_attn.macs(width, length, visible, computed).items():
            macs_of[term] += macs_of_term
    return macs_of


def macs(model: BertModel, length: int, fractions: Fractions) -> float:
    """MACs per token of a forward pass, see `terms`."""
    return sum(terms(model, length, fractions).values())


def macs_of_scoring(model: BertModel, length: int, folds: int = 1) -> float:
    """MACs per token of scoring the clean tokens: with folds, as many passes through all but the output projection.

    Args:
        model: only its sizes matter.
        length: T.
        folds: --entropy-folds; each pass masks one of so many parts of the tokens, those of a mask decoder's model
            bypass its encoder. There are at most T.
    """
    passes = min(folds, length)
    macs_of = terms(model, length, ENTROPY_PASS if passes == 1 else Fractions(1.0, 1 - 1 / passes))
    return passes * sum(macs_of.values()) - (passes - 1) * macs_of["head", "vocabulary"]


def macs_of_step(
    model: BertModel, length: int, corruption: Corruption, teacher: Any = None,
    entropies: Union[str, Sequence[str], None] = None, distils: bool = False, needs: str = "logits", folds: int = 1,
    scored_rows: float = 1.0,
) -> float:
    """MACs per token of a training step.

    Args:
        model: only its sizes matter.
        length: T.
        corruption: which fraction of the tokens is masked (a number), and how.
        teacher: the `BertModel` that distils or scores; None = none.
        entropies: what a source of scores reads: "teacher", "self" or "ema", or several of them; None = no pass for
            scores.
        distils: whether the teacher's predictions at the masked positions are computed.
        needs: of the score: "logits"; "features" = the pass ends before the LM head, and a small head is trained and
            applied; "history" = no pass.
        folds: --entropy-folds, see `macs_of_scoring`.
        scored_rows: fraction of the sentences that are scored.
    """
    fractions = fractions_of(corruption)
    total = TRAINING_STEP * macs(model, length, fractions)
    scored = (entropies,) if isinstance(entropies, str) else entropies or ()
    if needs == "logits":
        total += scored_rows * sum(macs_of_scoring(teacher if name == "teacher" else model, length, folds)
                                   for name in scored)
    if scored and needs == "features":
        total += scored_rows * (macs_of_features(model, length) + macs_of_loss_head(model))
        total += TRAINING_STEP * fractions.predicted * macs_of_loss_head(model)
    return total + (macs(teacher, length, fractions) if distils else 0)


def macs_of_features(model: BertModel, length: int) -> float:
    """MACs per token of the input of the LM head at all positions."""
    return sum(macs_of for (part, _), macs_of in terms(model, length, ENTROPY_PASS).items() if part != "head")


def macs_of_loss_head(model: BertModel) -> float:
    """MACs of `masking.scores.predicted_loss` at a position."""
    width = model.output_projection()[0].size(1)
    return width**2 + width
