"""What a model computes, from its sizes: multiply-accumulates (MACs) of one token in a forward pass.

Matrix products alone are counted, as torch's FlopCounterMode does; a MAC is two FLOPs, and a training step is three
forward passes. `tests/test_flops.py` holds the sums against the counter.

Names: d width, f width inside the feed-forward block, V vocabulary, T positions, and as shares of the T positions
s = predicted, x = visible to the encoder.
"""

from typing import NamedTuple


class Shares(NamedTuple):
    predicted: float  # s: whose logits are computed
    visible: float  # x: that the encoder sees


TRAINING_STEP = 3  # forward passes: the gradient of a product is two


def shares_of(corruption):
    """`Shares` of a training step under a `config.Corruption`, on average and special tokens not counted. (Where kept
    and random tokens stay in the encoder, it works on as many positions as the fullest sentence of a batch has, which
    is some per cent more.)"""
    replaced = corruption.mask_prob * (1 - corruption.leave_unmasked_prob - corruption.random_token_prob)
    return Shares(corruption.mask_prob, 1 - replaced)


ENTROPY_PASS = Shares(1.0, 1.0)


def terms(model, length, shares):
    """{(part, term): MACs of one token}, forward.

    Args:
        model: a `BertModel`.
        length: T.
        shares: `Shares`; without a mask decoder, the encoder sees everything.
    """
    visible = shares.visible if model.mask_decoder is not None else 1.0
    found = {}
    encoder, decoder = model.encoder.layers, [] if model.mask_decoder is None else model.mask_decoder.layers
    last = (decoder or encoder)[-1]  # computes what is asked of it at the predicted positions only
    for part, layers, present in (("encoder", encoder, visible), ("mask decoder", decoder, 1.0)):
        for layer in layers:
            for name, macs in terms_of_layer(layer, length, present, shares.predicted if layer is last else present,
                                             visible).items():
                found[part, name] = found.get((part, name), 0) + macs
    weight, _ = model.output_projection()
    vocabulary, width = weight.shape
    found["head", "transform"] = shares.predicted * width**2
    found["head", "vocabulary"] = shares.predicted * width * vocabulary
    return found


def terms_of_layer(layer, length, present, wanted, visible):
    """{term: MACs of one of the T tokens}. present, wanted: share of the positions that go in, that are to come out."""
    width, inner = layer.ffn.fc1.in_features, layer.ffn.fc1.out_features
    found = {"feed-forward": wanted * 2 * width * inner, **layer.self_attn.macs(width, length, present, wanted)}
    if hasattr(layer, "cross_attn"):
        for name, macs_of_term in layer.cross_attn.macs(width, length, visible, wanted).items():
            found[name] += macs_of_term
    return found


def macs(model, length, shares):
    """MACs of one token, forward."""
    return sum(terms(model, length, shares).values())


def macs_of_step(model, length, corruption, teacher=None, entropies=None, distils=False):
    """MACs of one token in a training step.

    Args:
        corruption: a `config.Corruption`.
        teacher: the model that distils or scores.
        entropies: "teacher", "self" or None: whose entropies are computed in the step.
        distils: whether the teacher's predictions at the masked positions are.
    """
    shares = shares_of(corruption)
    found = TRAINING_STEP * macs(model, length, shares)
    if entropies is not None:
        found += macs(teacher if entropies == "teacher" else model, length, ENTROPY_PASS)
    return found + (macs(teacher, length, shares) if distils else 0)
