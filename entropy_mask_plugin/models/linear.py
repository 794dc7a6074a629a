"""Linear layers whose weights a layer casts together under autocast: autocast itself launches two kernels for each map,
and as many in the backward pass, which in a small model take the host longer than the device."""

import contextlib

import torch
import torch.nn as nn
import torch.nn.functional as F


class Linear(nn.Linear):
    """nn.Linear; within `cast_together`, with a weight and a bias that are cast already."""

    in_use = None  # (weight, bias), set by `cast_together`

    def operands(self):
        return self.in_use or (self.weight, self.bias)

    def forward(self, x):
        return F.linear(x, *self.operands())


class CastTogether(torch.autograd.Function):
    """Tensors in another type, in one operation, and their gradients back in one."""

    @staticmethod
    def forward(ctx, dtype, *tensors):
        ctx.set_materialize_grads(False)
        ctx.dtype = tensors[0].dtype
        return tuple(cast(tensors, dtype))

    @staticmethod
    def backward(ctx, *gradients):
        cast_back = iter(cast([gradient for gradient in gradients if gradient is not None], ctx.dtype))
        return None, *(None if gradient is None else next(cast_back) for gradient in gradients)


def cast(tensors, dtype):
    """The tensors, all of one type, in another."""
    results = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if results:
        torch._foreach_copy_(results, list(tensors))
    return results


def cast_together(linears, device):
    """A context within which the maps' weights are in autocast's type. Without autocast nothing happens, nor under a
    compiler, which puts the casts into other kernels."""
    if not torch.is_autocast_enabled(device.type) or torch.compiler.is_compiling():
        return NO_CAST
    return CastContext(linears, torch.get_autocast_dtype(device.type))


class CastContext:
    """See `cast_together`. nn.Module is slow at setting attributes, so they are set past it."""

    def __init__(self, linears, dtype):
        self.linears, self.dtype = linears, dtype

    def __enter__(self):
        parameters = [p for linear in self.linears for p in linear._parameters.values() if p is not None]
        results = iter(CastTogether.apply(self.dtype, *parameters))
        for linear in self.linears:
            vars(linear)["in_use"] = next(results), None if linear._parameters["bias"] is None else next(results)

    def __exit__(self, *error):
        for linear in self.linears:
            vars(linear)["in_use"] = None


NO_CAST = contextlib.nullcontext()
