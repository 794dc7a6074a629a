"""Additive attention.

Shapes: B sentences, T positions, C width, H heads, D = C / H, K chosen positions.
"""

import math

import torch
import torch.nn as nn

from ..linear import Linear
from .heads import of_modules
from .registry import MIXERS


@MIXERS.add("additive")
class AdditiveAttention(nn.Module):
    """Fastformer's attention (Wu et al. 2021), linear in T: all queries become one, which colours the keys, and all
    coloured keys become one, which colours the queries.

        a = softmax_t(Q w_q / sqrt(D))    q = sum_t a_t Q_t    P = K * q
        b = softmax_t(P w_k / sqrt(D))    k = sum_t b_t P_t    out = (Q * k) W_r + Q

    per head, with the queries as values. Both softmaxes run over the tokens, in fp32 and without padding.

    norm: a module for Q * k before W_r, which sub-LayerNorm has there.
    """

    marker = "query_score"

    def __init__(self, embed_dim, num_heads, dropout, norm=None):
        super().__init__()
        self.num_heads = num_heads
        self.query_proj = Linear(embed_dim, embed_dim)
        self.key_proj = Linear(embed_dim, embed_dim)
        self.query_score = nn.Linear(embed_dim // num_heads, num_heads, bias=False)  # w_q of each head
        self.key_score = nn.Linear(embed_dim // num_heads, num_heads, bias=False)  # w_k of each head
        self.norm = norm or nn.Identity()
        self.transform = Linear(embed_dim, embed_dim)  # W_r
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, attend, positions=None):
        """As `SelfAttention.forward`."""
        queries = self.query_proj(x)
        q = queries.unflatten(-1, (self.num_heads, -1))  # B x T x H x D
        k = self.key_proj(x).unflatten(-1, (self.num_heads, -1))
        padding = None if attend is None else ~attend[:, 0, 0, :, None]  # B x T x 1
        p = k * self.pooled(q, self.query_score.weight, padding)
        u = (q * self.pooled(p, self.key_score.weight, padding)).flatten(2)  # B x T x C
        if positions is not None:
            u, queries = positions.of(u), positions.of(queries)
        return self.transform(self.norm(u)) + queries

    def pooled(self, x, weight, padding):
        """The mean over the tokens, weighted by the softmax of their scores: B x T x H x D -> B x 1 x H x D."""
        scores = torch.einsum("bthd,hd->bth", x, weight).float() / math.sqrt(x.size(-1))
        if padding is not None:
            scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)  # finite: nothing but padding is no nan
        share = self.dropout(scores.softmax(dim=1)).to(x.dtype)
        return torch.einsum("bth,bthd->bhd", share, x)[:, None]

    def value_path(self):
        """Its queries are the values; they decide the weights too, as do those of self-attention, and stay."""
        return [self.transform.weight]

    @staticmethod
    def components(tensors):
        return {"attention q": of_modules(tensors, "query_proj", "query_score"),
                "attention k": of_modules(tensors, "key_proj", "key_score"),
                "attention out": of_modules(tensors, "transform")}

    @staticmethod
    def macs(width, length, present, wanted):
        """Two scores and two sums for each token that goes in, whatever the length."""
        return {"projections": (2 * present + wanted) * width**2, "attention": present * 4 * width}
