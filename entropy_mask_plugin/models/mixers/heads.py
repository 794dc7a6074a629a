"""What mixers share: attention heads, and how reports group their tensors.

Shapes: B sentences, T positions, C width, H heads, D = C / H.
"""

from typing import Dict, List, Optional

import torch.nn.functional as F
from torch import Tensor


def of_modules(tensors: Dict[str, Tensor], *names: str) -> List[Tensor]:
    """The tensors of the submodules with these names, sorted by name."""
    return [tensor for name, tensor in sorted(tensors.items()) if name.split(".")[0] in names]


def split(projected: Tensor, width: int, num_heads: int) -> Tensor:
    """B x T x nC -> n x B x H x T x D."""
    rows, length, _ = projected.shape
    return projected.view(rows, length, -1, num_heads, width // num_heads).permute(2, 0, 3, 1, 4)


def multi_head_attention(q: Tensor, k: Tensor, v: Tensor, attend: Optional[Tensor], dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(D)) v with the heads concatenated: B x H x T x D of each -> B x T x C.

    attend: broadcast to B x H x T x T bool, True = attend; None = everywhere.
    """
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=dropout)
    return heads.transpose(1, 2).flatten(2)
