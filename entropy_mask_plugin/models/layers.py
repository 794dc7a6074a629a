"""The one layer that all architectures are made of: a mixer, a feed-forward block, in a decoder a look at the encoder.

Shapes: B sentences, T positions, C width, F width inside the feed-forward block, K chosen positions.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .linear import Linear, cast_together
from .mixers import CrossAttention, SelfAttention


def layer_norm(cfg, width=None):
    return nn.LayerNorm(width or cfg.encoder_embed_dim, eps=cfg.layer_norm_eps)


class FeedForward(nn.Module):
    """C -> F -> C.

    Args:
        activation: of the inner values; BERT's is GELU in its exact (erf) form.
        bias: whether the two linear layers have one.
        norm: a module for the inner values, which sub-LayerNorm has there.
    """

    def __init__(self, cfg, activation=F.gelu, bias=True, norm=None):
        super().__init__()
        self.fc1 = Linear(cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim, bias=bias)
        self.fc2 = Linear(cfg.encoder_ffn_embed_dim, cfg.encoder_embed_dim, bias=bias)
        self.activation = activation
        self.activation_dropout = cfg.activation_dropout
        self.norm = norm or nn.Identity()

    def forward(self, x):
        x = torch.dropout(self.activation(self.fc1(x)), self.activation_dropout, self.training)
        return self.fc2(self.norm(x))

    def value_path(self):
        """See `attention`."""
        return [self.fc1.weight, self.fc2.weight]


class Layer(nn.Module):
    """Mixer, then feed-forward, each with dropout, a residual connection and LayerNorm after (or before) it.

    Args:
        mixer: a module called as `SelfAttention` is.
        ffn: a module C -> C.
        normalize_before: LayerNorm before each block instead of after it.
        cross: a `CrossAttention` between the two, for the layers of a decoder; None = there is none.
    """

    def __init__(self, cfg, mixer, ffn, normalize_before, cross=None):
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
        # In a list, torch does not see them a second time.
        self.linears = [module for module in self.modules() if isinstance(module, Linear)]

    def forward(self, x, attend, positions=None, memory=()):
        """
        Args:
            x: B x T x C.
            attend: B x 1 x 1 x T bool, False at padding; None where there is none.
            positions: the `Positions` that are wanted; None = all.
            memory: what `CrossAttention` looks at, and where; unused without one.
        Returns:
            B x T x C, or K x C at the positions.
        """
        with cast_together(self.linears, x.device):
            wanted = x if positions is None else positions.of(x)
            x = self.add(self.self_attn_layer_norm, wanted, x, lambda x: self.self_attn(x, attend, positions))
            if hasattr(self, "cross_attn"):
                x = self.add(self.cross_attn_layer_norm, x, x, lambda x: self.cross_attn(x, *memory, positions))
            return self.add(self.final_layer_norm, x, x, self.ffn)

    def add(self, norm, residual, x, block):
        if self.normalize_before:
            return residual + torch.dropout(block(norm(x)), self.dropout, self.training)
        return norm(residual + torch.dropout(block(x), self.dropout, self.training))


def bert_layer(cfg, crosses=False):
    """A layer of BERT, or of a decoder like it."""
    sizes = cfg.encoder_embed_dim, cfg.encoder_attention_heads, cfg.attention_dropout
    return Layer(cfg, SelfAttention(*sizes), FeedForward(cfg), cfg.encoder_normalize_before,
                 CrossAttention(*sizes) if crosses else None)
