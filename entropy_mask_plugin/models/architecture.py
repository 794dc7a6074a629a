"""Which models of a checkpoint fairseq may build: it runs some settings of its own archs as code, and allocates memory
for whatever sizes they name."""

import argparse
from typing import Any, Dict, Type

from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY
from fairseq.models.roberta import RobertaModel
from torch import nn

from ..checkpoints.structure import section_of, shown
from ..system.errors import require
from .bert import BertModel

SIZES = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads", "max_positions")
EVALUATED = "xformers_att_config"  # fairseq's attention evaluates it as Python


def check_model(state: Dict[str, Any], path: str, flag: str) -> None:
    """Refuse a checkpoint whose model must not be built.

    Args:
        state: of `read_checkpoint`.
        path: its file.
        flag: the command-line flag that names it, for messages.
    Raises:
        UsageError: neither one of our archs nor fairseq's RoBERTa; a setting that would run code; sizes for which the
            file has too few weights.
    """
    settings = settings_of_model(state)
    name = settings.get("_name") or settings.get("arch")
    require(flag, f"{path} of arch {shown(name)}", issubclass(class_of(name), (BertModel, RobertaModel)),
            "one of this plug-in's archs or fairseq's roberta")
    require(flag, f"{path} with {EVALUATED}", not is_evaluated(settings), "no setting that fairseq runs as code")
    check_sizes(with_defaults(settings, name), state["model"], path, flag)


def settings_of_model(state: Dict[str, Any]) -> Dict[str, Any]:
    """Those that fairseq builds the model with: `args` of an old checkpoint come first."""
    return vars(state["args"]) if state.get("args") is not None else section_of(state, "model")


def is_evaluated(settings: Any) -> bool:
    """Whether one of the settings, at any depth, is what fairseq evaluates."""
    settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    return isinstance(settings, dict) and any(
        EVALUATED in str(name) and value is not None or is_evaluated(value) for name, value in settings.items())


def class_of(name: Any) -> Type[nn.Module]:
    """The class of an arch; of another name, a class that is none of ours."""
    return ARCH_MODEL_REGISTRY.get(name, nn.Module) if isinstance(name, str) else nn.Module


def with_defaults(settings: Dict[str, Any], name: Any) -> Dict[str, Any]:
    """The settings, with those of the arch where they are missing."""
    if name in MODEL_DATACLASS_REGISTRY:
        return {**vars(MODEL_DATACLASS_REGISTRY[name]()), **settings}
    complete = argparse.Namespace(**settings)
    ARCH_CONFIG_REGISTRY[name](complete)
    return vars(complete)


def check_sizes(sizes: Dict[str, Any], weights: Dict[str, Any], path: str, flag: str) -> None:
    """Refuse sizes that need more weights than there are: a small file must not allocate all memory."""
    for name in SIZES:
        value = sizes.get(name, 1)
        require(flag, f"{path} with {name} {shown(value)}", type(value) is int and value >= 1, "1 or more")
    layers = sizes["encoder_layers"] + sizes.get("mask_decoder_layers", 0)
    width, inside, positions = sizes["encoder_embed_dim"], sizes["encoder_ffn_embed_dim"], sizes.get("max_positions", 1)
    fewest, number = width * (2 * layers * inside + positions), sum(tensor.numel() for tensor in weights.values())
    require(flag, f"{path} with {number:,} weights", layers <= len(weights) and fewest <= number,
            f"at least {fewest:,} for the sizes in it")
