"""Multi-head self-attention.

Shapes: B sentences, T positions, C width, H heads, D = C / H.
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

    def forward(self, x, attend):
        """
        Args:
            x: B x T x C.
            attend: B x 1 x 1 x T bool, False at padding; None where there is none.
        Returns:
            B x T x C.
        """
        qkv = self.qkv_proj(x).unflatten(-1, (3, self.num_heads, -1))  # B x T x 3 x H x D
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each B x H x T x D
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
        return self.out_proj(heads.transpose(1, 2).flatten(2))
