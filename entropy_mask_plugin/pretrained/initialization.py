"""`--init-from`: begin with what another model and this one have in common.

Copied is what has the same name and shape: embeddings, self-attention, feed-forward blocks, the LM head. LayerNorms are
copied between models of one layout only: before and after a block they do different things. Additive attention is not
taken from self-attention. A model with fewer layers takes some of the other's.
"""

import logging
import os
import re
from dataclasses import asdict
from typing import Dict, List, NamedTuple, Optional

import torch
from fairseq.models import ARCH_MODEL_REGISTRY

from ..checkpoints.reading import NO_HEAD, file_or_huggingface_folder, read_checkpoint
from ..checkpoints.vocabulary import check_symbols, check_vocabulary
from ..models.bert import BertModel
from ..models.mixers import mixer_of
from ..system.errors import UsageError, require

logger = logging.getLogger(__name__)

FLAG = "--init-from"
MUST_AGREE = ("encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads")
LAYER = re.compile(r"^encoder\.layers\.(\d+)\.")


class Source(NamedTuple):
    path: str
    tensors: Dict[str, torch.Tensor]
    sizes: dict  # fields of the config of its arch
    layout: str  # of its LayerNorms


class Outcome(NamedTuple):
    """Names of tensors, and which layer of the source each layer took."""

    layers: List[Optional[int]]
    copied: List[str]
    new: List[str]  # of ours, as they were initialized
    unused: List[str]  # of the source


def read_source(path, task):
    """What --init-from names.

    Args:
        path: a checkpoint of one of our archs, a Hugging Face folder of a BERT, or one that was imported.
        task: an EntropyMaskedLMTask, with whose vocabulary it has to agree.
    Raises:
        UsageError: see `read_checkpoint` and `read_bert`; another vocabulary; no model of ours.
    """
    from ..huggingface.importing import read_bert  # its tokenizers have no place in every other training

    path = file_or_huggingface_folder(path, FLAG)
    if os.path.isdir(path):
        bert = read_bert(path, FLAG)
        check_symbols(bert.vocabulary.symbols(), path, FLAG, task)
        return Source(path, bert.state, asdict(bert.config), layout(BertModel, asdict(bert.config)))
    state = read_checkpoint(path, FLAG)
    check_vocabulary(state, path, FLAG, task)
    sizes = (state.get("cfg") or {}).get("model")
    kind = ARCH_MODEL_REGISTRY.get(sizes["_name"]) if isinstance(sizes, dict) else None
    if kind is None or not issubclass(kind, BertModel):
        raise UsageError(f"{FLAG}: {path} is of another arch, expected one of this plug-in's, or a Hugging Face BERT")
    tensors = state["model"]
    if NO_HEAD in (state.get("extra_state") or {}):  # fresh weights, which only look like a head
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head.")}
    return Source(path, tensors, sizes, layout(kind, sizes))


def layout(kind, sizes):
    """Where the LayerNorms of a model are: models with the same have the same norms."""
    return f"{kind.config.__name__} {sizes.get('encoder_normalize_before')}"


def initialize_from(source, model, chosen=None):
    """Copy into `model` what `source` has for it.

    Args:
        source: a `Source`.
        model: a `BertModel`.
        chosen: which layer of the source each layer of the model takes; None = see `spread`.
    Returns:
        an `Outcome`.
    Raises:
        UsageError: another width or number of heads; a layer that the source does not have.
    """
    ours = model.settings()
    for name in MUST_AGREE:
        require(FLAG, f"{source.path} with {name} {source.sizes[name]}", source.sizes[name] == ours[name],
                f"{ours[name]} (--{name.replace('_', '-')})")
    number = source.sizes["encoder_layers"]
    layers = spread(ours["encoder_layers"], number) if chosen is None else chosen
    check_layers(layers, ours["encoder_layers"], number, source.path)
    same_norms = layout(type(model), ours) == source.layout
    copied, used, state = [], set(), model.state_dict()
    for name, tensor in state.items():
        theirs = name_in_source(name, layers)
        found = source.tensors.get(theirs)
        means_the_same = same_norms and mixer(name, state) == mixer(theirs, source.tensors)
        if found is not None and fits(name, tensor, found) and (means_the_same or not is_norm_of_body(name)):
            tensor.copy_(found[: len(tensor)])  # of a longer table of positions, the first
            copied.append(name)
            used.add(theirs)
    return Outcome(layers, copied, [name for name in state if name not in copied],
                   [name for name in source.tensors if name not in used])


def spread(ours, theirs):
    """Which of their layers each of ours takes: the same one, or in a shallower model evenly spaced ones from the first
    to the last; None = no such layer."""
    if ours >= theirs:
        return [layer if layer < theirs else None for layer in range(ours)]
    return [round(layer * (theirs - 1) / max(1, ours - 1)) for layer in range(ours)]


def check_layers(layers, ours, theirs, path):
    require("--init-layers", f"{len(layers)} layers", len(layers) == ours, f"one for each of the model's {ours}")
    for layer in layers:
        require("--init-layers", layer, layer is None or 0 <= layer < theirs, f"layers of {path}, 0 to {theirs - 1}")


def name_in_source(name, layers):
    match = LAYER.match(name)
    return f"encoder.layers.{layers[int(match[1])]}.{name[match.end():]}" if match else name


def fits(name, tensor, found):
    """Whether the shapes are the same; of positions, the source may have more."""
    if name.endswith("embed_positions.weight"):
        return len(found) >= len(tensor)
    return found.shape == tensor.shape


def mixer(name, names):
    """Of a tensor inside a layer's mixer: which one that is, from what else there is in it."""
    prefix, inside, _ = name.partition(".self_attn.")
    return inside and mixer_of(names, prefix + inside)


def is_norm_of_body(name):
    return "norm" in name and not name.startswith("lm_head.")


def tell(source, outcome):
    """The outcome in the log, a line for what was done with each kind of tensor."""
    if outcome.layers != list(range(len(outcome.layers))):
        taken = ", ".join("new" if layer is None else str(layer) for layer in outcome.layers)
        logger.info(f"{FLAG} {source.path}: layers taken: {taken}")
    for what, names in (("copied", outcome.copied), ("new", outcome.new), ("not used", outcome.unused)):
        for kind, layers in grouped(names).items():
            where = f" of {'its ' if what == 'not used' else ''}layers {', '.join(layers)}" if layers else ""
            logger.info(f"{FLAG} {source.path}: {what}: {kind}{where}")


def grouped(names):
    """{name without its layer: [numbers of layers]}, in the order of the names; a weight and its bias as one."""
    whole = {name.rsplit(".", 1)[0] for name in names if name.endswith(".bias")}
    groups = {}
    for name in names:
        module = name.rsplit(".", 1)[0]
        together = module in whole and f"{module}.weight" in names
        key = re.sub(r"layers\.\d+\.", "layers.", module if together else name)
        layers, match = groups.setdefault(key, []), re.search(r"layers\.(\d+)\.", name)
        if match and match[1] not in layers:
            layers.append(match[1])
    return groups
