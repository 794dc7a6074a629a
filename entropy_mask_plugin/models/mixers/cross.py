"""Attention to another sequence.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K selected positions, S positions of the other sequence.
"""

from typing import List, Optional

import torch.nn as nn
from torch import Tensor

from ..linear import Linear
from ..positions import SelectedPositions
from .heads import multi_head_attention, split
from .self_attention import SelfAttention


class CrossAttention(nn.Module):
    """Attention of one sequence to another, as in the decoder of Vaswani et al. 2017, section 3.2.3. Not a mixer, but
    with the same interface. norm: see `SelfAttention`."""

    macs = staticmethod(SelfAttention.macs)  # present: fraction of the other sequence

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, norm: Optional[nn.Module] = None):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = Linear(embed_dim, embed_dim)
        self.kv_proj = Linear(embed_dim, 2 * embed_dim)
        self.norm = norm or nn.Identity()
        self.out_proj = Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, memory: Tensor, attend: Optional[Tensor],
                positions: Optional[SelectedPositions] = None) -> Tensor:
        """Attend from `x` to `memory`.

        Args:
            x: B x T x C, or K x C at the positions.
            memory: B x S x C.
            attend: B x 1 x 1 x S bool, False at padding of the memory; None = there is no padding.
            positions: where in the batch the rows of x are; None = everywhere.
        Returns:
            the shape of x.
        """
        padded = x if positions is None else positions.pad_packed(x)  # B x T x C
        (q,) = split(self.q_proj(padded), x.size(-1), self.num_heads)  # B x H x T x D
        k, v = split(self.kv_proj(memory), x.size(-1), self.num_heads)  # B x H x S x D
        heads = multi_head_attention(q, k, v, attend, self.dropout if self.training else 0.0)  # B x T x C
        return self.out_proj(self.norm(heads if positions is None else positions.unpad(heads)))

    def value_path(self) -> List[Tensor]:
        """Value and output projection."""
        return [self.kv_proj.weight.chunk(2)[1], self.out_proj.weight]
