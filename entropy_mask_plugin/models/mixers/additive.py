"""Additive attention.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K selected positions.
"""

import math
from typing import Dict, List, Optional

import torch
import torch.nn as nn
from torch import Tensor

from ..linear import Linear
from ..positions import SelectedPositions
from .heads import of_modules
from .registry import MIXERS


@MIXERS.add("additive")
class AdditiveAttention(nn.Module):
    """Fastformer's attention (Wu et al. 2021, section 3), linear in T: the queries are pooled into one, which
    multiplies the keys; these are pooled into one, which multiplies the queries.

        a = softmax_t(Q w_q / sqrt(D))    q = sum_t a_t Q_t    P = K * q
        b = softmax_t(P w_k / sqrt(D))    k = sum_t b_t P_t    out = (Q * k) W_r + Q

    per head, with the queries as values. Both softmaxes run over the tokens, in fp32 and without padding.

    norm: a module applied to Q * k before W_r (sub-LayerNorm).
    """

    marker = "query_score"

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, norm: Optional[nn.Module] = None):
        super().__init__()
        self.num_heads = num_heads
        self.query_proj = Linear(embed_dim, embed_dim)
        self.key_proj = Linear(embed_dim, embed_dim)
        self.query_score = nn.Linear(embed_dim // num_heads, num_heads, bias=False)  # w_q of each head
        self.key_score = nn.Linear(embed_dim // num_heads, num_heads, bias=False)  # w_k of each head
        self.norm = norm or nn.Identity()
        self.transform = Linear(embed_dim, embed_dim)  # W_r
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, attend: Optional[Tensor], positions: Optional[SelectedPositions] = None
    ) -> Tensor:
        """As `SelfAttention.forward`."""
        queries = self.query_proj(x)
        q = queries.unflatten(-1, (self.num_heads, -1))  # B x T x H x D
        k = self.key_proj(x).unflatten(-1, (self.num_heads, -1))  # B x T x H x D
        padding = None if attend is None else ~attend[:, 0, 0, :, None]  # B x T x 1
        p = k * self.pooled(q, self.query_score.weight, padding)  # B x T x H x D
        u = (q * self.pooled(p, self.key_score.weight, padding)).flatten(2)  # B x T x C
        if positions is not None:
            u, queries = positions.gather(u), positions.gather(queries)  # K x C
        return self.transform(self.norm(u)) + queries

    def pooled(self, x: Tensor, weight: Tensor, padding: Optional[Tensor]) -> Tensor:
        """The mean over the tokens, weighted by the softmax of their scores: B x T x H x D -> B x 1 x H x D.

        Args:
            x: B x T x H x D.
            weight: H x D, w_q or w_k of each head.
            padding: B x T x 1 bool; None = there is no padding.
        """
        scores = torch.einsum("bthd,hd->bth", x, weight).float() / math.sqrt(x.size(-1))  # B x T x H
        if padding is not None:
            # finite, not -inf: a row of nothing but padding must not become nan
            scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=1)).to(x.dtype)
        return torch.einsum("bth,bthd->bhd", weights, x)[:, None]  # B x 1 x H x D

    def value_path(self) -> List[Tensor]:
        """Without the query projection: queries are the values here, but also decide the attention weights, and query
        projections are not scaled."""
        return [self.transform.weight]

    @staticmethod
    def components(tensors: Dict[str, Tensor]) -> Dict[str, List[Tensor]]:
        """As `SelfAttention.components`."""
        return {"attention q": of_modules(tensors, "query_proj", "query_score"),
                "attention k": of_modules(tensors, "key_proj", "key_score"),
                "attention out": of_modules(tensors, "transform")}

    @staticmethod
    def macs(width: int, length: int, present: float, computed: float) -> Dict[str, float]:
        """As `SelfAttention.macs`: two scores and two sums for each input token, whatever the length."""
        return {"projections": (2 * present + computed) * width**2, "attention": present * 4 * width}
