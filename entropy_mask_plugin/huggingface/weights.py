"""The tensors of a BERT under both names and layouts.

    ours                      Hugging Face's
    embedding and bias rows   the same rows in another order (vocabulary.py)
    positions                 positions + token type 0: fairseq's data has no segments
    qkv_proj                  query, key, value, one below the other

Shapes: V vocabulary, C width.
"""

import re

import torch

from ..system.errors import UsageError

WORDS, POSITIONS, TYPES = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
OUTPUT_BIAS = "cls.predictions.bias"
MODULES = (  # Hugging Face's name, ours; each with weight and bias
    ("bert.embeddings.LayerNorm", "encoder.layernorm_embedding"),
    ("cls.predictions.transform.dense", "lm_head.dense"),
    ("cls.predictions.transform.LayerNorm", "lm_head.layer_norm"),
)
MODULES_OF_LAYER = (  # in bert.encoder.layer.N and encoder.layers.N
    ("attention.output.dense", "self_attn.out_proj"),
    ("attention.output.LayerNorm", "self_attn_layer_norm"),
    ("intermediate.dense", "ffn.fc1"),
    ("output.dense", "ffn.fc2"),
    ("output.LayerNorm", "final_layer_norm"),
)
QKV = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
NO_WEIGHTS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")  # buffers of older versions
TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")  # stored twice by older versions
NOT_OURS = (  # prefixes of what a BERT may hold and we leave out, and what it is
    ("cls.seq_relationship.", "next-sentence head"),
    ("bert.pooler.", "pooler"),
    ("classifier.", "classifier"),
    ("qa_outputs.", "question-answering head"),
)


def names_of_modules(layers):
    """Pairs (Hugging Face's name, ours) of all tensors that differ in nothing but their name."""
    modules = [*MODULES]
    for layer in range(layers):
        modules += [(f"bert.encoder.layer.{layer}.{theirs}", f"encoder.layers.{layer}.{ours}")
                    for theirs, ours in MODULES_OF_LAYER]
    return [(f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in modules for kind in ("weight", "bias")]


def normalized(tensors):
    """Hugging Face's tensors under today's names, in fp32: `gamma`, `beta` and a missing `bert.` are older styles."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = "bert." + name
        renamed[name] = tensor.float() if tensor.is_floating_point() else tensor
    return renamed


def separated(tensors, origin):
    """Today's names of the tensors that belong to a masked language model, and what else there was, in words.

    Raises:
        UsageError: an output projection that is not the token embedding.
    """
    theirs = normalized(tensors)
    for name in NO_WEIGHTS:
        theirs.pop(name, None)
    for name, original in zip(TIED, (WORDS, OUTPUT_BIAS)):
        tied = theirs.pop(name, None)
        if tied is not None and not torch.equal(tied, theirs.setdefault(original, tied)):
            raise UsageError(f"{origin}: {name} is not {original}, expected tied weights")
    left_out = [what for prefix, what in NOT_OURS if remove(theirs, prefix)]
    return theirs, left_out


def remove(tensors, prefix):
    """Whether there was anything to remove."""
    found = [name for name in tensors if name.startswith(prefix)]
    for name in found:
        del tensors[name]
    return bool(found)


def check_shapes(tensors, expected, origin):
    """Raise a UsageError that names the first tensor that is missing, unknown or of another shape than expected.

    Args:
        tensors: {name: tensor} as `separated` returns it. A masked-LM head may be missing as a whole.
        expected: {name: tensor} of a model with the sizes of config.json and the rows of the vocabulary.
    """
    if not has_head(tensors):
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith("cls.")}
    for name in sorted({*tensors, *expected}, key=lambda name: (name not in expected, name)):
        found, wanted = (tuple(side[name].shape) if name in side else None for side in (tensors, expected))
        if name == TYPES and found and len(found) == 2 and found[0] >= 1:
            found = (wanted[0], found[1])  # any number of segments will do: the first is used
        if found != wanted:
            raise UsageError(f"{origin}: the tensor {name} is {found or 'missing'}, expected {wanted or 'none'} "
                             "by config.json and the vocabulary")


def has_head(tensors):
    return any(name.startswith("cls.") for name in tensors)


def from_huggingface(theirs, layers, rows):
    """Our state dict, without the masked-LM head where there is none.

    Args:
        theirs: {name: tensor} as `separated` returns it.
        layers: number of layers.
        rows: Hugging Face's ids in fairseq's order, see `vocabulary.Vocabulary.rows`.
    """
    state = {ours: theirs[hf] for hf, ours in names_of_modules(layers) if hf in theirs}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = [theirs[f"bert.encoder.layer.{layer}.{part}.{kind}"] for part in QKV]
            state[f"encoder.layers.{layer}.self_attn.qkv_proj.{kind}"] = torch.cat(parts)
    state["encoder.embed_tokens.weight"] = theirs[WORDS][rows]
    state["encoder.embed_positions.weight"] = theirs[POSITIONS] + theirs[TYPES][0]
    if has_head(theirs):
        state["lm_head.bias"] = theirs[OUTPUT_BIAS][rows]
    return state


def to_huggingface(state, layers, rows):
    """Tensors of a `BertForMaskedLM`, contiguous, rows in Hugging Face's order. The inverse of `from_huggingface`."""
    tensors = {hf: state[ours] for hf, ours in names_of_modules(layers)}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = state[f"encoder.layers.{layer}.self_attn.qkv_proj.{kind}"].chunk(3)
            tensors |= {f"bert.encoder.layer.{layer}.{name}.{kind}": part for name, part in zip(QKV, parts)}
    tensors[WORDS] = in_order(state["encoder.embed_tokens.weight"], rows)
    tensors[POSITIONS] = state["encoder.embed_positions.weight"]
    # Zero, whichever segment a token is said to be in.
    tensors[TYPES] = tensors[POSITIONS].new_zeros(2, tensors[POSITIONS].size(1))
    tensors[OUTPUT_BIAS] = in_order(state["lm_head.bias"], rows)
    return {name: tensor.float().contiguous().clone() for name, tensor in tensors.items()}


def to_classifier(tensors, head):
    """Tensors of a `BertForSequenceClassification` from those of the masked-LM and a classification head of ours.

    Args:
        tensors: what `to_huggingface` returns.
        head: {"dense.weight": …, "dense.bias": …, "out_proj.weight": …, "out_proj.bias": …}.
    """
    body = {name: tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    for ours, theirs in (("dense", "bert.pooler.dense"), ("out_proj", "classifier")):
        body |= {f"{theirs}.{kind}": head[f"{ours}.{kind}"].float().contiguous() for kind in ("weight", "bias")}
    return body


def to_encoder(tensors):
    """Tensors of a `BertModel`, without the pooler, from those of the masked-LM."""
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}


def in_order(ours, rows):
    """Rows in fairseq's order -> the same in Hugging Face's."""
    return ours[torch.argsort(torch.tensor(rows))]
