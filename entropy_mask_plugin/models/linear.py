"""Linear maps whose weights a layer casts together under autocast: autocast itself launches two kernels for each map,
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


@contextlib.contextmanager
def cast_together(linears, device):
    """Within, the maps' weights are in autocast's type. Nothing happens without autocast, or under a compiler, which
    puts the casts into other kernels."""
    if not torch.is_autocast_enabled(device.type) or torch.compiler.is_compiling():
        yield
        return
    of_each = [(linear.weight,) if linear.bias is None else (linear.weight, linear.bias) for linear in linears]
    results = iter(CastTogether.apply(torch.get_autocast_dtype(device.type), *(p for pair in of_each for p in pair)))
    for linear, pair in zip(linears, of_each):
        linear.in_use = next(results), next(results) if len(pair) == 2 else None
    try:
        yield
    finally:
        for linear in linears:
            linear.in_use = None
