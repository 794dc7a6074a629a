"""What mixers share: heads, and how a report sorts their tensors.

Shapes: B sentences, T positions, C width, H heads, D = C / H.
"""

import torch.nn.functional as F


def of_modules(tensors, *names):
    """The tensors of the submodules of these names."""
    return [tensor for name, tensor in sorted(tensors.items()) if name.split(".")[0] in names]


def split(projected, width, num_heads):
    """B x T x n C -> n of B x H x T x D."""
    rows, length, _ = projected.shape
    return projected.view(rows, length, -1, num_heads, width // num_heads).permute(2, 0, 3, 1, 4)


def attention(q, k, v, attend, dropout):
    """softmax(q k^T / sqrt(D)) v, the heads side by side: B x T x C."""
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
    return heads.transpose(1, 2).flatten(2)
