"""The output projection, with the vocabulary padded to a multiple of 64 columns on a GPU.

A row of 30,522 bf16 logits is not a multiple of 16 bytes long, and matrix products with such rows use slow kernels. So
on a GPU the logits are a view of the first V columns of a wider matrix; parameters and checkpoints keep their shapes.
Shapes: K rows, C width, V vocabulary, W = V rounded up to a multiple of 64.
"""

from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

MULTIPLE = 64
PADDING_BIAS = -1e4  # bias of the added columns: finite in every dtype, and a probability of 0


def project(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits of ... x C features, weight V x C, bias V: ... x V."""
    if features.device.type == "cuda" and len(weight) % MULTIPLE:
        return padded_projection(features, weight, bias)
    return F.linear(features, weight, bias)


def padded_projection(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As F.linear, also under autocast; the result is a view whose rows are a multiple of MULTIPLE columns apart."""
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    with torch.autocast(device, enabled=False):
        logits = PaddedProjection.apply(features.reshape(-1, features.size(-1)).to(dtype), weight, bias)
    return logits.unflatten(0, features.shape[:-1]) if features.dim() != 2 else logits


class PaddedProjection(torch.autograd.Function):
    """features W^T + b with W and b padded to a multiple of MULTIPLE rows."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """K x C in the product's dtype, V x C, V -> K x V."""
        symbols, width = weight.shape
        columns = -(-symbols // MULTIPLE) * MULTIPLE
        padded = features.new_zeros(columns, width)  # W x C
        padded[:symbols] = weight
        padded_bias = features.new_full((columns,), PADDING_BIAS)
        padded_bias[:symbols] = bias
        logits = torch.addmm(padded_bias, features, padded.t())  # K x W
        ctx.save_for_backward(features, padded)
        ctx.logits, ctx.symbols, ctx.dtypes = logits, symbols, (weight.dtype, bias.dtype)
        return logits[:, :symbols]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """K x V -> gradients of the features K x C, the weight V x C and the bias V."""
        features, padded = ctx.saved_tensors
        gradient = padded_gradient(gradient, ctx.logits)  # K x W
        weight_gradient = (gradient.t() @ features)[: ctx.symbols].to(ctx.dtypes[0])  # V x C
        bias_gradient = gradient.sum(0)[: ctx.symbols].to(ctx.dtypes[1])  # V
        return gradient @ padded, weight_gradient, bias_gradient


def padded_gradient(gradient: Tensor, logits: Tensor) -> Tensor:
    """The gradient K x V, padded to the columns of the logits K x W.

    Where it shares the logits' memory (see `training.cross_entropy`), the added columns still hold PADDING_BIAS. That
    is harmless: they are multiplied by zero rows of the padded weight, and their weight and bias gradients are cut off.
    """
    if gradient.data_ptr() == logits.data_ptr() and gradient.stride() == logits.stride():
        return logits
    return F.pad(gradient, (0, logits.size(1) - gradient.size(1)))
