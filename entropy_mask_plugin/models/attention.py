"""What mixes the tokens of a sentence: self-attention, additive attention, and attention to another sequence.

A mixer is a module of the interface of `SelfAttention`. What others want to know of it, it says itself:

    marker                  name of a submodule that no other mixer has: tells whose weights a checkpoint holds
    value_path()            the weights that pass values on, which sub-LayerNorm's initialization scales
    components(tensors)     its tensors by what they are for, in reports
    macs(...)               what it computes

and one that is in MIXERS can be named in --mixer-pattern.
Shapes: B sentences, T positions, C width, H heads, D = C / H, K chosen positions, S visible positions.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .linear import Linear


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


MIXERS = {"self": SelfAttention, "additive": AdditiveAttention}


def mixer_of(names, prefix):
    """Name in MIXERS of the mixer whose tensors begin with the prefix; None where there is none.

    Args:
        names: of a state dict.
        prefix: such as "encoder.layers.0.self_attn.".
    """
    inside = {name[len(prefix):].split(".")[0] for name in names if name.startswith(prefix)}
    return next((name for name, mixer in MIXERS.items() if mixer.marker in inside), None)
