"""Self-attention.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K selected positions.
"""

from collections.abc import Sequence
from typing import Dict, List, Optional

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..linear import Linear
from ..positions import SelectedPositions
from .heads import multi_head_attention, of_modules, split
from .registry import MIXERS


@MIXERS.add("self")
class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(D)) V with one matrix product for queries, keys and values (Vaswani et al. 2017, section
    3.2).

    norm: a module applied to the concatenated heads before the output projection (sub-LayerNorm).
    """

    marker = "qkv_proj"

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, norm: Optional[nn.Module] = None):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv_proj = Linear(embed_dim, 3 * embed_dim)
        self.norm = norm or nn.Identity()
        self.out_proj = Linear(embed_dim, embed_dim)

    def forward(
        self, x: Tensor, attend: Optional[Tensor], positions: Optional[SelectedPositions] = None
    ) -> Tensor:
        """Mix the tokens of each sentence.

        Args:
            x: B x T x C.
            attend: B x 1 x 1 x T bool, False at padding; None = there is no padding.
            positions: where queries and outputs are computed; None = at all positions.
        Returns:
            B x T x C, or K x C at the positions.
        """
        if positions is None:
            q, k, v = self.project(x, slice(None))  # B x H x T x D
        else:
            width = x.size(-1)
            (q,) = self.project(positions.pad(x), slice(width))  # B x H x S x D
            k, v = self.project(x, slice(width, None))  # B x H x T x D
        heads = multi_head_attention(q, k, v, attend, self.dropout if self.training else 0.0)  # B x T x C or B x S x C
        return self.out_proj(self.norm(heads if positions is None else positions.unpad(heads)))

    def project(self, x: Tensor, part: slice) -> Tensor:
        """Queries, keys and values: 3 x B x H x T x D; with only some rows of the matrix, the first or last of them."""
        weight, bias = self.qkv_proj.operands()
        return split(F.linear(x, weight[part], bias[part]), x.size(-1), self.num_heads)

    def value_path(self) -> List[Tensor]:
        """Value and output projection."""
        return [self.qkv_proj.weight.chunk(3)[2], self.out_proj.weight]

    @staticmethod
    def components(tensors: Dict[str, Tensor]) -> Dict[str, Sequence[Tensor]]:
        """{component: its tensors}. tensors: {name: tensor} of one mixer, named as in a state dict."""
        thirds = zip(*(tensors[f"qkv_proj.{kind}"].chunk(3) for kind in ("weight", "bias")), strict=True)
        return {**dict(zip(("attention q", "attention k", "attention v"), thirds, strict=True)),
                "attention out": of_modules(tensors, "out_proj")}

    @staticmethod
    def macs(width: int, length: int, present: float, computed: float) -> Dict[str, float]:
        """{term: multiply-accumulates per token of the T tokens}. present, computed: fractions of the positions that
        are input, and at which the output is computed."""
        return {"projections": (2 * present + 2 * computed) * width**2,
                "attention": computed * 2 * present * length * width}
