"""The projection to the vocabulary, whose columns a GPU wants in multiples of 64.

A row of 30,522 logits in bf16 is no multiple of 16 bytes, and matrix products with such rows take their slow kernels.
So on a GPU the logits are a view of the first V columns of a matrix that is wider; parameters and checkpoints are not.
Shapes: K rows, C width, V vocabulary, W = V rounded up.
"""

import torch
import torch.nn.functional as F

MULTIPLE = 64
PADDING_BIAS = -1e4  # bias of the columns that are no symbols: finite in every type, and no probability


def project(features, weight, bias):
    """Logits of ... x C features, weight V x C, bias V: ... x V."""
    if features.device.type == "cuda" and len(weight) % MULTIPLE:
        return padded_projection(features, weight, bias)
    return F.linear(features, weight, bias)


def padded_projection(features, weight, bias):
    """As F.linear, also under autocast; the result is a view whose rows begin at multiples of MULTIPLE columns."""
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    with torch.autocast(device, enabled=False):
        logits = PaddedProjection.apply(features.reshape(-1, features.size(-1)).to(dtype), weight, bias)
    return logits.unflatten(0, features.shape[:-1]) if features.dim() != 2 else logits


class PaddedProjection(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, bias):
        """K x C of the type of the product, V x C, V -> K x V."""
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
    def backward(ctx, gradient):
        features, padded = ctx.saved_tensors
        gradient = padded_gradient(gradient, ctx.logits)  # K x W
        of_weight = (gradient.t() @ features)[: ctx.symbols].to(ctx.dtypes[0])
        of_bias = gradient.sum(0)[: ctx.symbols].to(ctx.dtypes[1])
        return gradient @ padded, of_weight, of_bias


def padded_gradient(gradient, logits):
    """The gradient K x V with the columns of the logits K x W.

    Where it lies in the logits' own memory (see `cross_entropy`), the other columns still hold PADDING_BIAS: they
    meet rows of zeros in the weight, and what they make of the weight's and bias's gradient is cut off.
    """
    if gradient.data_ptr() == logits.data_ptr() and gradient.stride() == logits.stride():
        return logits
    return F.pad(gradient, (0, logits.size(1) - gradient.size(1)))
