"""The layer that all archs are built from: a mixer, cross-attention in a decoder, a feed-forward block.

Shapes: B sentences, T positions, C width, F width inside the feed-forward block, K selected positions.
"""

from collections.abc import Callable
from typing import Any, List, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .linear import Linear, cast_together
from .mixers import CrossAttention, SelfAttention
from .positions import SelectedPositions


def layer_norm(cfg: Any, width: Optional[int] = None) -> nn.LayerNorm:
    """LayerNorm over `width` features; None = C."""
    return nn.LayerNorm(width or cfg.encoder_embed_dim, eps=cfg.layer_norm_eps)


class FeedForward(nn.Module):
    """C -> F -> C.

    Args:
        cfg: sizes and activation dropout.
        activation: of the inner values; BERT's is GELU in its exact (erf) form.
        bias: whether the two linear layers have one.
        norm: a module applied to the inner values (sub-LayerNorm).
    """

    def __init__(self, cfg: Any, activation: Callable[[Tensor], Tensor] = F.gelu, bias: bool = True,
                 norm: Optional[nn.Module] = None):
        super().__init__()
        self.fc1 = Linear(cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim, bias=bias)
        self.fc2 = Linear(cfg.encoder_ffn_embed_dim, cfg.encoder_embed_dim, bias=bias)
        self.activation = activation
        self.activation_dropout = cfg.activation_dropout
        self.norm = norm or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """... x C -> ... x C."""
        x = torch.dropout(self.activation(self.fc1(x)), self.activation_dropout, self.training)  # ... x F
        return self.fc2(self.norm(x))

    def value_path(self) -> List[Tensor]:
        """See `mixers.registry`."""
        return [self.fc1.weight, self.fc2.weight]


class Layer(nn.Module):
    """Mixer, then feed-forward, each with dropout, a residual connection and LayerNorm after (or before) it.

    Args:
        cfg: sizes and dropout.
        mixer: a module with the interface of `SelfAttention`.
        ffn: a module C -> C.
        normalize_before: LayerNorm before each block instead of after it.
        cross: a `CrossAttention` between the two, for the layers of a decoder; None = there is none.
    """

    def __init__(self, cfg: Any, mixer: nn.Module, ffn: nn.Module, normalize_before: bool,
                 cross: Optional[nn.Module] = None):
        super().__init__()
        self.normalize_before = normalize_before
        self.self_attn = mixer
        self.self_attn_layer_norm = layer_norm(cfg)
        if cross is not None:
            self.cross_attn = cross
            self.cross_attn_layer_norm = layer_norm(cfg)
        self.ffn = ffn
        self.final_layer_norm = layer_norm(cfg)
        self.dropout = cfg.dropout
        # In a plain list, which nn.Module does not register: they are submodules already.
        self.linears = [module for module in self.modules() if isinstance(module, Linear)]

    def forward(self, x: Tensor, attend: Optional[Tensor], positions: Optional[SelectedPositions] = None,
                memory: Tuple[Any, ...] = ()) -> Tensor:
        """Apply the layer.

        Args:
            x: B x T x C.
            attend: B x 1 x 1 x T bool, False at padding; None = there is no padding.
            positions: where the output is computed; None = at all positions.
            memory: `memory` and `attend` of `CrossAttention.forward`; empty without cross-attention.
        Returns:
            B x T x C, or K x C at the positions.
        """
        with cast_together(self.linears, x.device):
            residual = x if positions is None else positions.gather(x)  # K x C or B x T x C, as all that follows
            x = self.add(self.self_attn_layer_norm, residual, x, lambda x: self.self_attn(x, attend, positions))
            if hasattr(self, "cross_attn"):
                x = self.add(self.cross_attn_layer_norm, x, x, lambda x: self.cross_attn(x, *memory, positions))
            return self.add(self.final_layer_norm, x, x, self.ffn)

    def add(self, norm: nn.Module, residual: Tensor, x: Tensor, block: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual plus block(x) with dropout, normalized before the block or after the sum."""
        if self.normalize_before:
            return residual + torch.dropout(block(norm(x)), self.dropout, self.training)
        return norm(residual + torch.dropout(block(x), self.dropout, self.training))


def bert_layer(cfg: Any, crosses: bool = False) -> Layer:
    """A BERT layer; crosses: with attention to an encoder's output (Vaswani et al. 2017, section 3.1)."""
    sizes = cfg.encoder_embed_dim, cfg.encoder_attention_heads, cfg.attention_dropout
    return Layer(cfg, SelfAttention(*sizes), FeedForward(cfg), cfg.encoder_normalize_before,
                 CrossAttention(*sizes) if crosses else None)
