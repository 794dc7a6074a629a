"""HybridBERT: layers of self-attention and of additive attention, sub-LayerNorm, fixed sinusoids.

Sub-LayerNorm (Wang et al. 2022, Foundation Transformers) normalizes before each block and once more inside it: the
heads before the output projection, the inner values of the feed-forward block before its second map; and after the last
layer.

Shapes: T positions, C width.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Optional

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..system.errors import require
from .bert import BERTLET, BertEncoder, BertModel, EncoderConfig, register_arch
from .layers import FeedForward, Layer, layer_norm
from .mixers import MIXERS, CrossAttention

logger = logging.getLogger(__name__)


@dataclass
class HybridConfig(EncoderConfig):
    mixer_pattern: Optional[str] = field(
        default=None, metadata={"help": "what mixes the tokens in each layer, from the first: "
                                        f"{' or '.join(MIXERS)}, with commas between (default: the arch's)"}
    )
    no_gamma_init: bool = field(
        default=False, metadata={"help": "leave out sub-LayerNorm's factor sqrt(ln 2L) on the initial weights of "
                                         "values, output projections and feed-forward blocks"}
    )


def hybrid_layer(cfg, mixer="self", crosses=False):
    """Four LayerNorms, no bias in the feed-forward block, ReLU."""
    sizes = cfg.encoder_embed_dim, cfg.encoder_attention_heads, cfg.attention_dropout
    ffn = FeedForward(cfg, F.relu, bias=False, norm=layer_norm(cfg, cfg.encoder_ffn_embed_dim))
    cross = CrossAttention(*sizes, layer_norm(cfg)) if crosses else None
    return Layer(cfg, MIXERS[mixer].fn(*sizes, layer_norm(cfg)), ffn, normalize_before=True, cross=cross)


class Sinusoids(nn.Module):
    """Positions of Vaswani et al. 2017, section 3.5, which are not trained and not stored: `weight`, T x C."""

    def __init__(self, positions, width):
        super().__init__()
        angle = torch.arange(positions)[:, None] * torch.exp(-math.log(10000) / width * torch.arange(0, width, 2))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
        self.register_buffer("weight", table, persistent=False)


class HybridEncoder(BertEncoder):
    """BERT's with fixed positions and the layers that it is given."""

    @staticmethod
    def new_positions(cfg):
        return Sinusoids(cfg.max_positions, cfg.encoder_embed_dim)

    def embed_words(self, src_tokens):
        """Times sqrt(C) (Vaswani et al., section 3.4): beside sinusoids, words of deviation 0.02 would vanish."""
        return math.sqrt(self.embed_tokens.embedding_dim) * self.embed_tokens(src_tokens)


class HybridModel(BertModel):
    config, new_layer = HybridConfig, staticmethod(hybrid_layer)
    default_pattern = None  # number of layers -> list of mixers; each arch has its own

    def __init__(self, cfg, encoder):
        super().__init__(cfg, encoder)
        if not cfg.no_gamma_init:
            multiply_initial_weights(self, math.sqrt(math.log(2 * cfg.encoder_layers)))

    @classmethod
    def new_encoder(cls, cfg, dictionary):
        mixers = cls.mixers(cfg)
        logger.info(f"mixers: {','.join(mixers)}")
        return HybridEncoder(cfg, dictionary, [hybrid_layer(cfg, mixer) for mixer in mixers])

    @classmethod
    def mixers(cls, cfg):
        """The mixer of each layer.

        Raises:
            UsageError: --mixer-pattern has an unknown one, or not one for each layer.
        """
        if cfg.mixer_pattern is None:
            return cls.default_pattern(cfg.encoder_layers)
        mixers = [mixer.strip() for mixer in cfg.mixer_pattern.split(",")]
        for mixer in mixers:
            require("--mixer-pattern", mixer, mixer in MIXERS, MIXERS.expected(mixer) + " for each layer")
        require("--mixer-pattern", f"{len(mixers)} mixers", len(mixers) == cfg.encoder_layers,
                f"one for each of the {cfg.encoder_layers} layers (--encoder-layers)")
        return mixers


def multiply_initial_weights(model, gamma):
    """Of what passes values on: values and output projections, and both layers of the feed-forward blocks."""
    with torch.no_grad():
        for module in model.modules():
            for weight in module.value_path() if hasattr(module, "value_path") else ():
                weight.mul_(gamma)


def alternating(layers):
    return [("self", "additive")[layer % 2] for layer in range(layers)]


def outer(number):
    """Self-attention in so many layers at each end."""
    return lambda layers: ["self" if min(layer, layers - 1 - layer) < number else "additive" for layer in range(layers)]


for arch, pattern, sizes in (("hbert_v1", alternating, {}), ("hbert_v2", outer(2), {}), ("addbert", outer(0), {}),
                             ("hbertlet", outer(1), BERTLET)):
    register_arch(arch, HybridModel, {"default_pattern": staticmethod(pattern)}, dropout=0.05, attention_dropout=0.05,
                  **sizes)
