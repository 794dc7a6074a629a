"""Multi-head self-attention.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K chosen positions.
"""

import torch.nn as nn
import torch.nn.functional as F


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(D)) V with one matrix product for queries, keys and values (Vaswani et al. 2017)."""

    def __init__(self, embed_dim, num_heads, dropout):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv_proj = nn.Linear(embed_dim, 3 * embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x, attend, positions=None):
        """
        Args:
            x: B x T x C.
            attend: B x 1 x 1 x T bool, False at padding; None where there is none.
            positions: the `Positions` whose queries are asked; None = all.
        Returns:
            B x T x C, or K x C at the positions.
        """
        if positions is None:
            q, k, v = self.project(x, slice(None))
        else:
            width = x.size(-1)
            (q,), (k, v) = self.project(positions.slotted(x), slice(width)), self.project(x, slice(width, None))
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
        heads = heads.transpose(1, 2).flatten(2)
        return self.out_proj(heads if positions is None else positions.of_slots(heads))

    def project(self, x, part):
        """Queries, keys and values, or a part of them: each B x H x T x D."""
        projected = F.linear(x, self.qkv_proj.weight[part], self.qkv_proj.bias[part])
        return projected.unflatten(-1, (-1, self.num_heads, x.size(-1) // self.num_heads)).permute(2, 0, 3, 1, 4)
