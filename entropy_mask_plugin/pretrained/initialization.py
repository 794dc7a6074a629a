"""`--init-from`: initialize a model with the weights that it shares with another one.

Tensors of the same name and shape are copied: embeddings, self-attention, feed-forward blocks, the LM head. LayerNorms
are copied only between models with the same layout: before and after a block they do different things. Additive
attention is not initialized from self-attention. A shallower model takes evenly spaced layers of the deeper one.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Dict, List, NamedTuple, Optional, Type

from torch import Tensor

from ..checkpoints.reading import NO_HEAD, file_or_huggingface_folder, read_checkpoint
from ..checkpoints.structure import section_of
from ..checkpoints.vocabulary import check_symbols, check_vocabulary
from ..models.architecture import check_model, class_of, with_defaults
from ..models.bert import BertModel
from ..models.mixers import mixer_of
from ..system.errors import UsageError, require
from ..system.finite import refuse_not_finite

logger = logging.getLogger(__name__)

FLAG = "--init-from"
MUST_AGREE = ("encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads")
LAYER = re.compile(r"^encoder\.layers\.(\d+)\.")


class SourceModel(NamedTuple):
    """The model that weights are copied from."""

    path: str
    tensors: Dict[str, Tensor]
    sizes: Dict[str, Any]  # fields of its arch's config
    layout: str  # of its LayerNorms


class Outcome(NamedTuple):
    """Which tensors were copied, by name."""

    layers: List[Optional[int]]  # the source's layer that each layer was copied from
    copied: List[str]
    new: List[str]  # of the model, still at their random initialization
    unused: List[str]  # of the source


def read_source(path: str, task: Any) -> SourceModel:
    """Read the model that --init-from names.

    Args:
        path: a checkpoint of one of our archs, the Hugging Face folder of a BERT, or an imported folder.
        task: an EntropyMaskedLMTask with the same vocabulary.
    Raises:
        UsageError: see `read_checkpoint` and `read_bert`; another vocabulary; another kind of model.
    """
    from ..huggingface.importing import read_bert  # here, so that other trainings need not import tokenizers

    path = file_or_huggingface_folder(path, FLAG)
    if os.path.isdir(path):
        bert = read_bert(path, FLAG)
        check_symbols(bert.vocabulary.symbols(), path, FLAG, task)
        refuse_not_finite(bert.state, path, FLAG)
        return SourceModel(path, bert.state, asdict(bert.config), layout(BertModel, asdict(bert.config)))
    state = read_checkpoint(path, FLAG)
    check_vocabulary(state, path, FLAG, task)
    name = section_of(state, "model").get("_name")
    kind = class_of(name)
    if not issubclass(kind, BertModel):
        raise UsageError(f"{FLAG}: {path} is of another arch, expected one of this plug-in's, or a Hugging Face BERT")
    check_model(state, path, FLAG)
    sizes = with_defaults(section_of(state, "model"), name)
    tensors = state["model"]
    refuse_not_finite(tensors, path, FLAG)
    if NO_HEAD in (state.get("extra_state") or {}):  # the head has random weights
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head.")}
    return SourceModel(path, tensors, sizes, layout(kind, sizes))


def layout(kind: Type[BertModel], sizes: Dict[str, Any]) -> str:
    """A name for where a model has its LayerNorms: models with equal names have the same LayerNorms."""
    return f"{kind.config.__name__} {sizes.get('encoder_normalize_before')}"


def initialize_from(
    source: SourceModel, model: BertModel, chosen: Optional[Sequence[Optional[int]]] = None
) -> Outcome:
    """Copy the source's tensors into the model, in place.

    Args:
        source: see `read_source`.
        model: the model to initialize.
        chosen: the source's layer for each layer of the model; None = see `spread`.
    Returns:
        what was copied.
    Raises:
        UsageError: another width or number of heads; a layer that the source does not have.
    """
    ours = model.settings()
    for name in MUST_AGREE:
        require(FLAG, f"{source.path} with {name} {source.sizes[name]}", source.sizes[name] == ours[name],
                f"{ours[name]} (--{name.replace('_', '-')})")
    number = source.sizes["encoder_layers"]
    layers = spread(ours["encoder_layers"], number) if chosen is None else list(chosen)
    check_layers(layers, ours["encoder_layers"], number, source.path)
    same_norms = layout(type(model), ours) == source.layout
    copied, used, state = [], set(), model.state_dict()  # the state dict shares the model's memory
    for name, tensor in state.items():
        theirs = name_in_source(name, layers)
        their_tensor = source.tensors.get(theirs)
        same_role = same_norms and mixer(name, state) == mixer(theirs, source.tensors)
        if (their_tensor is not None and fits(name, tensor, their_tensor)
                and (same_role or not is_norm_of_body(name))):
            tensor.copy_(their_tensor[: len(tensor)])  # of a longer position table, its first rows
            copied.append(name)
            used.add(theirs)
    return Outcome(layers, copied, [name for name in state if name not in copied],
                   [name for name in source.tensors if name not in used])


def spread(ours: int, theirs: int) -> List[Optional[int]]:
    """The source's layer for each of our layers: the one of the same index, or for a shallower model evenly spaced ones
    from the first to the last; None = the source has no such layer."""
    if ours >= theirs:
        return [layer if layer < theirs else None for layer in range(ours)]
    return [round(layer * (theirs - 1) / max(1, ours - 1)) for layer in range(ours)]


def check_layers(layers: Sequence[Optional[int]], ours: int, theirs: int, path: str) -> None:
    """Raise a UsageError unless --init-layers names one of their layers for each of ours."""
    require("--init-layers", f"{len(layers)} layers", len(layers) == ours, f"one for each of the model's {ours}")
    for layer in layers:
        require("--init-layers", layer, layer is None or 0 <= layer < theirs, f"layers of {path}, 0 to {theirs - 1}")


def name_in_source(name: str, layers: Sequence[Optional[int]]) -> str:
    """The source's name of one of our tensors, with the number of the layer that it is copied from."""
    match = LAYER.match(name)
    return f"encoder.layers.{layers[int(match[1])]}.{name[match.end():]}" if match else name


def fits(name: str, tensor: Tensor, their_tensor: Tensor) -> bool:
    """Whether the shapes agree; the source's position table may be longer."""
    if name.endswith("embed_positions.weight") and their_tensor.dim() == 2:
        return len(their_tensor) >= len(tensor) and their_tensor.size(1) == tensor.size(1)
    return their_tensor.shape == tensor.shape


def mixer(name: str, names: Iterable[str]) -> Optional[str]:
    """The mixer that a tensor belongs to, recognized by the mixer's other tensors among `names`; "" outside mixers."""
    prefix, inside, _ = name.partition(".self_attn.")
    return inside and mixer_of(names, prefix + inside)


def is_norm_of_body(name: str) -> bool:
    """Whether the tensor is of a LayerNorm outside the LM head."""
    return "norm" in name and not name.startswith("lm_head.")


def log_copied_tensors(source: SourceModel, outcome: Outcome) -> None:
    """Log one line for each kind of tensor: copied, new or not used, and in which layers."""
    if outcome.layers != list(range(len(outcome.layers))):
        taken = ", ".join("new" if layer is None else str(layer) for layer in outcome.layers)
        logger.info(f"{FLAG} {source.path}: layers taken: {taken}")
    for status, names in (("copied", outcome.copied), ("new", outcome.new), ("not used", outcome.unused)):
        for kind, layers in grouped(names).items():
            where = f" of {'its ' if status == 'not used' else ''}layers {', '.join(layers)}" if layers else ""
            logger.info(f"{FLAG} {source.path}: {status}: {kind}{where}")


def grouped(names: Sequence[str]) -> Dict[str, List[str]]:
    """{name without its layer: [layer numbers]}, in the order of the names; a weight and its bias as one entry."""
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
