"""Self-attention.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K chosen positions.
"""

import torch.nn as nn
import torch.nn.functional as F

from ..linear import Linear
from .heads import attention, of_modules, split
from .registry import MIXERS


@MIXERS.add("self")
class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(D)) V with one matrix product for queries, keys and values (Vaswani et al. 2017).

    norm: a module for the concatenated heads before the output projection, which sub-LayerNorm has there.
    """

    marker = "qkv_proj"

    def __init__(self, embed_dim, num_heads, dropout, norm=None):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv_proj = Linear(embed_dim, 3 * embed_dim)
        self.norm = norm or nn.Identity()
        self.out_proj = Linear(embed_dim, embed_dim)

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
        heads = attention(q, k, v, attend, self.dropout if self.training else 0.0)
        return self.out_proj(self.norm(heads if positions is None else positions.of_slots(heads)))

    def project(self, x, part):
        """Queries, keys and values, or a part of them: each B x H x T x D."""
        weight, bias = self.qkv_proj.operands()
        return split(F.linear(x, weight[part], bias[part]), x.size(-1), self.num_heads)

    def value_path(self):
        return [self.qkv_proj.weight.chunk(3)[2], self.out_proj.weight]

    @staticmethod
    def components(tensors):
        """{component: tensors}, of {name: tensor} of a mixer as a state dict has them."""
        thirds = zip(*(tensors[f"qkv_proj.{kind}"].chunk(3) for kind in ("weight", "bias")))
        return {**dict(zip(("attention q", "attention k", "attention v"), thirds)),
                "attention out": of_modules(tensors, "out_proj")}

    @staticmethod
    def macs(width, length, present, wanted):
        """{term: multiply-accumulates of one of the T tokens}. present, wanted: share of the positions that go in, that
        are to come out."""
        return {"projections": (2 * present + 2 * wanted) * width**2,
                "attention": wanted * 2 * present * length * width}
