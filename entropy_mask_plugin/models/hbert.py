"""HybridBERT: layers of self-attention and of additive attention, sub-LayerNorm, fixed sinusoids.

Sub-LayerNorm (Wang et al. 2022, Foundation Transformers) normalizes before each block and once more inside it: the
heads before the output projection, the inner values of the feed-forward block before its second map; and after the last
layer.

Shapes: T positions, C width.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, List, Optional

import torch
import torch.nn as nn
import torch.nn.functional as F
from fairseq.data import Dictionary
from torch import Tensor

from ..system.errors import require
from .bert import BERTLET, BertEncoder, BertModel, EncoderConfig, register_arch
from .layers import FeedForward, Layer, layer_norm
from .mixers import MIXERS, CrossAttention

logger = logging.getLogger(__name__)


@dataclass
class HybridConfig(EncoderConfig):
    """Flags of the HybridBERT archs."""

    mixer_pattern: Optional[str] = field(
        default=None, metadata={"help": "mixer of each layer, first to last, separated by commas: "
                                        f"{' or '.join(MIXERS)} (default: the arch's)"}
    )
    no_gamma_init: bool = field(
        default=False, metadata={"help": "no sub-LayerNorm factor sqrt(ln 2L) on the initial weights of "
                                         "values, output projections and feed-forward blocks"}
    )


def hybrid_layer(cfg: EncoderConfig, mixer: str = "self", crosses: bool = False) -> Layer:
    """A layer with four LayerNorms, ReLU and no bias in the feed-forward block.

    Args:
        cfg: sizes and dropout.
        mixer: a name in MIXERS.
        crosses: whether it also attends to an encoder's output.
    """
    sizes = cfg.encoder_embed_dim, cfg.encoder_attention_heads, cfg.attention_dropout
    ffn = FeedForward(cfg, F.relu, bias=False, norm=layer_norm(cfg, cfg.encoder_ffn_embed_dim))
    cross = CrossAttention(*sizes, layer_norm(cfg)) if crosses else None
    return Layer(cfg, MIXERS[mixer].fn(*sizes, layer_norm(cfg)), ffn, normalize_before=True, cross=cross)


class Sinusoids(nn.Module):
    """Position encodings of Vaswani et al. 2017, section 3.5, neither trained nor stored: `weight`, T x C."""

    def __init__(self, positions: int, width: int):
        super().__init__()
        angle = torch.arange(positions)[:, None] * torch.exp(-math.log(10000) / width * torch.arange(0, width, 2))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]  # T x C/2 x 2 -> T x C
        self.register_buffer("weight", table, persistent=False)


class HybridEncoder(BertEncoder):
    """BERT's encoder with fixed sinusoids and the given layers."""

    @staticmethod
    def new_positions(cfg: EncoderConfig) -> Sinusoids:
        """A module whose `weight` is max_positions x C."""
        return Sinusoids(cfg.max_positions, cfg.encoder_embed_dim)

    def embed_words(self, src_tokens: Tensor) -> Tensor:
        """B x T int64 -> B x T x C, times sqrt(C) (Vaswani et al., section 3.4): with an init std of 0.02, the
        sinusoids would drown the token embeddings."""
        return math.sqrt(self.embed_tokens.embedding_dim) * self.embed_tokens(src_tokens)


class HybridModel(BertModel):
    """BERT whose layers may mix tokens by additive attention, with sub-LayerNorm and its initialization: weights on the
    value path are multiplied by sqrt(ln 2L) (Wang et al. 2022)."""

    config = HybridConfig
    new_layer = staticmethod(hybrid_layer)
    default_pattern: Any = None  # number of layers -> list of mixers; set by each arch

    def __init__(self, cfg: HybridConfig, encoder: BertEncoder):
        super().__init__(cfg, encoder)
        if not cfg.no_gamma_init:
            multiply_initial_weights(self, math.sqrt(math.log(2 * cfg.encoder_layers)))

    @classmethod
    def new_encoder(cls, cfg: HybridConfig, dictionary: Dictionary) -> HybridEncoder:
        """An encoder with random weights, not yet those of `initialize`."""
        mixers = cls.mixers(cfg)
        logger.info(f"mixers: {','.join(mixers)}")
        return HybridEncoder(cfg, dictionary, [hybrid_layer(cfg, mixer) for mixer in mixers])

    @classmethod
    def mixers(cls, cfg: HybridConfig) -> List[str]:
        """The name of each layer's mixer.

        Raises:
            UsageError: --mixer-pattern has an unknown mixer, or not one for each layer.
        """
        if cfg.mixer_pattern is None:
            return cls.default_pattern(cfg.encoder_layers)
        mixers = [mixer.strip() for mixer in cfg.mixer_pattern.split(",")]
        for mixer in mixers:
            require("--mixer-pattern", mixer, mixer in MIXERS, MIXERS.expected(mixer) + " for each layer")
        require("--mixer-pattern", f"{len(mixers)} mixers", len(mixers) == cfg.encoder_layers,
                f"one for each of the {cfg.encoder_layers} layers (--encoder-layers)")
        return mixers


def multiply_initial_weights(model: nn.Module, gamma: float) -> None:
    """Scale the weights on the value path, in place: value and output projections, both feed-forward layers."""
    with torch.no_grad():
        module: Any
        for module in model.modules():
            for weight in module.value_path() if hasattr(module, "value_path") else ():
                weight.mul_(gamma)


def alternating_mixers(layers: int) -> List[str]:
    """Self-attention in the first, third, … layer."""
    return [("self", "additive")[layer % 2] for layer in range(layers)]


def outer_self_attention(number: int) -> Callable[[int], List[str]]:
    """Self-attention in the first and last `number` layers."""
    return lambda layers: ["self" if min(layer, layers - 1 - layer) < number else "additive" for layer in range(layers)]


for arch, pattern, sizes in (("hbert_v1", alternating_mixers, {}), ("hbert_v2", outer_self_attention(2), {}),
                             ("addbert", outer_self_attention(0), {}), ("hbertlet", outer_self_attention(1), BERTLET)):
    register_arch(arch, HybridModel, {"default_pattern": staticmethod(pattern)}, dropout=0.05, attention_dropout=0.05,
                  **sizes)
