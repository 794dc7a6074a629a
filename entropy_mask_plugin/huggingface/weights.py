"""The tensors of a BERT under both names and layouts.

    ours                      Hugging Face's
    embedding and bias rows   the same rows in another order (vocabulary.py)
    positions                 positions + token type 0: fairseq's data has no segments
    qkv_proj                  query, key, value, one below the other

Shapes: V vocabulary, C width.
"""

import re
from collections.abc import Sequence
from typing import Dict, List, Tuple

import torch
from torch import Tensor

from ..system.errors import UsageError

WORDS, POSITIONS, TYPES = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type"))
OUTPUT_BIAS = "cls.predictions.bias"
MODULES = (  # (Hugging Face's name, ours); each has a weight and a bias
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
NOT_OURS = (  # (prefix, description) of parts that are not imported
    ("cls.seq_relationship.", "next-sentence head"),
    ("bert.pooler.", "pooler"),
    ("classifier.", "classifier"),
    ("qa_outputs.", "question-answering head"),
)


def names_of_modules(layers: int) -> List[Tuple[str, str]]:
    """(Hugging Face's name, ours) of all tensors that differ only in their name."""
    modules = [*MODULES]
    for layer in range(layers):
        modules += [(f"bert.encoder.layer.{layer}.{theirs}", f"encoder.layers.{layer}.{ours}")
                    for theirs, ours in MODULES_OF_LAYER]
    return [(f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in modules for kind in ("weight", "bias")]


def normalized(tensors: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Hugging Face's tensors under their current names, in fp32: older files say `gamma` and `beta`, and bare encoders
    lack the prefix `bert.`."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = "bert." + name
        renamed[name] = tensor.float() if tensor.is_floating_point() else tensor
    return renamed


def separated(tensors: Dict[str, Tensor], origin: str) -> Tuple[Dict[str, Tensor], List[str]]:
    """The tensors of a masked language model, and descriptions of the parts that are left out.

    Args:
        tensors: of a Hugging Face folder.
        origin: begins a message.
    Returns:
        {current name: tensor}, and descriptions such as "pooler".
    Raises:
        UsageError: an output projection that is not the token embedding.
    """
    theirs = normalized(tensors)
    for name in NO_WEIGHTS:
        theirs.pop(name, None)
    for name, original in zip(TIED, (WORDS, OUTPUT_BIAS), strict=True):
        tied = theirs.pop(name, None)
        if tied is not None and not torch.equal(tied, theirs.setdefault(original, tied)):
            raise UsageError(f"{origin}: {name} is not {original}, expected tied weights")
    left_out = [description for prefix, description in NOT_OURS if remove_prefix(theirs, prefix)]
    return theirs, left_out


def remove_prefix(tensors: Dict[str, Tensor], prefix: str) -> bool:
    """Remove all tensors whose names begin with the prefix, in place; return whether there were any."""
    names = [name for name in tensors if name.startswith(prefix)]
    for name in names:
        del tensors[name]
    return bool(names)


def check_imported_tensors(tensors: Dict[str, Tensor], expected: Dict[str, Tensor], origin: str) -> None:
    """Compare names and shapes.

    Args:
        tensors: {name: tensor} as `separated` returns it. The masked-LM head may be missing as a whole.
        expected: {name: tensor} of a model with the sizes of config.json and the rows of the vocabulary.
        origin: begins a message.
    Raises:
        UsageError: names the first tensor that is missing, unknown or of another shape.
    """
    if not has_head(tensors):
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith("cls.")}
    for name in sorted({*tensors, *expected}, key=lambda name: (name not in expected, name)):
        shape, expected_shape = (tuple(side[name].shape) if name in side else None for side in (tensors, expected))
        if name == TYPES and expected_shape and shape and len(shape) == 2 and shape[0] >= 1:
            shape = (expected_shape[0], shape[1])  # any number of segments: only the first is used
        if shape != expected_shape:
            raise UsageError(f"{origin}: the tensor {name} is {shape or 'missing'}, expected "
                             f"{expected_shape or 'none'} by config.json and the vocabulary")


def has_head(tensors: Dict[str, Tensor]) -> bool:
    """Whether there is a masked-LM head among Hugging Face's tensors."""
    return any(name.startswith("cls.") for name in tensors)


def from_huggingface(theirs: Dict[str, Tensor], layers: int, rows: Sequence[int]) -> Dict[str, Tensor]:
    """Our state dict, without a masked-LM head if there is none.

    Args:
        theirs: {name: tensor} as `separated` returns it.
        layers: number of layers.
        rows: V ids of Hugging Face's in fairseq's order, see `TokenizerVocabulary.rows`.
    """
    state = {ours: theirs[hf] for hf, ours in names_of_modules(layers) if hf in theirs}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = [theirs[f"bert.encoder.layer.{layer}.{part}.{kind}"] for part in QKV]
            state[f"encoder.layers.{layer}.self_attn.qkv_proj.{kind}"] = torch.cat(parts)  # 3C x C, or 3C
    state["encoder.embed_tokens.weight"] = theirs[WORDS][rows]
    state["encoder.embed_positions.weight"] = theirs[POSITIONS] + theirs[TYPES][0]
    if has_head(theirs):
        state["lm_head.bias"] = theirs[OUTPUT_BIAS][rows]
    return state


def to_huggingface(state: Dict[str, Tensor], layers: int, rows: Sequence[int]) -> Dict[str, Tensor]:
    """Tensors of a `BertForMaskedLM`, contiguous, rows in Hugging Face's order. The inverse of `from_huggingface`."""
    tensors = {hf: state[ours] for hf, ours in names_of_modules(layers)}
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = state[f"encoder.layers.{layer}.self_attn.qkv_proj.{kind}"].chunk(3)
            tensors |= {f"bert.encoder.layer.{layer}.{name}.{kind}": part
                        for name, part in zip(QKV, parts, strict=True)}
    tensors[WORDS] = in_order(state["encoder.embed_tokens.weight"], rows)
    tensors[POSITIONS] = state["encoder.embed_positions.weight"]
    # Zero for both segments: type 0 is part of the positions.
    tensors[TYPES] = tensors[POSITIONS].new_zeros(2, tensors[POSITIONS].size(1))
    tensors[OUTPUT_BIAS] = in_order(state["lm_head.bias"], rows)
    return {name: tensor.float().contiguous().clone() for name, tensor in tensors.items()}


def to_classifier(tensors: Dict[str, Tensor], head: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Tensors of a `BertForSequenceClassification` from those of the masked LM and one of our classification heads.

    Args:
        tensors: what `to_huggingface` returns.
        head: {"dense.weight": …, "dense.bias": …, "out_proj.weight": …, "out_proj.bias": …}.
    """
    body = {name: tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    for ours, theirs in (("dense", "bert.pooler.dense"), ("out_proj", "classifier")):
        body |= {f"{theirs}.{kind}": head[f"{ours}.{kind}"].float().contiguous() for kind in ("weight", "bias")}
    return body


def to_encoder(tensors: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Tensors of a `BertModel` without pooler, from those of the masked LM."""
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}


def in_order(ours: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows in fairseq's order -> the same in Hugging Face's."""
    return ours[torch.argsort(torch.tensor(rows))]
