"""Attention to another sequence.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K chosen positions, S positions of the other sequence.
"""

import torch.nn as nn

from ..linear import Linear
from .heads import attention, split
from .self_attention import SelfAttention


class CrossAttention(nn.Module):
    """Attention of one sequence to another, as in the decoder of Vaswani et al. 2017. Not a mixer, but of the same
    interface."""

    macs = staticmethod(SelfAttention.macs)  # present: share of the other sequence

    def __init__(self, embed_dim, num_heads, dropout, norm=None):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = Linear(embed_dim, embed_dim)
        self.kv_proj = Linear(embed_dim, 2 * embed_dim)
        self.norm = norm or nn.Identity()
        self.out_proj = Linear(embed_dim, embed_dim)

    def forward(self, x, memory, attend, positions=None):
        """
        Args:
            x: B x T x C, or K x C at the positions.
            memory: B x S x C; attend: B x 1 x 1 x S bool, False where nothing is; None where there is no such place.
        Returns:
            the shape of x.
        """
        slots = x if positions is None else positions.into_slots(x)
        (q,) = split(self.q_proj(slots), x.size(-1), self.num_heads)
        k, v = split(self.kv_proj(memory), x.size(-1), self.num_heads)
        heads = attention(q, k, v, attend, self.dropout if self.training else 0.0)
        return self.out_proj(self.norm(heads if positions is None else positions.of_slots(heads)))

    def value_path(self):
        return [self.kv_proj.weight.chunk(2)[1], self.out_proj.weight]
