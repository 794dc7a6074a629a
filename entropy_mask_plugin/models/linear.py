"""Linear layers whose weights a layer casts together under autocast.

Autocast itself launches two kernels per linear layer, and two more in the backward pass; in a small model, launching
them takes longer than running them.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, ContextManager, List, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Linear(nn.Linear):
    """nn.Linear that, within `cast_together`, uses a weight and a bias that are cast already."""

    in_use: Optional[Tuple[Tensor, Optional[Tensor]]] = None  # (weight, bias), set by `cast_together`

    def operands(self) -> Tuple[Tensor, Any]:
        """The weight and the bias (None = there is none) to compute with."""
        return self.in_use or (self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """... x C -> ... x D."""
        return F.linear(x, *self.operands())


class CastTogether(torch.autograd.Function):
    """Casts many tensors in one operation, and their gradients back in another."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> Tuple[Tensor, ...]:
        """Tensors of one dtype -> the same in `dtype`."""
        ctx.set_materialize_grads(False)
        ctx.dtype = tensors[0].dtype
        return tuple(cast(tensors, dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
        """Gradients in the original dtype."""
        cast_back = iter(cast([gradient for gradient in gradients if gradient is not None], ctx.dtype))
        return None, *(None if gradient is None else next(cast_back) for gradient in gradients)


def cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> List[Tensor]:
    """Tensors of one dtype -> the same in another, in one operation."""
    results = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if results:
        torch._foreach_copy_(results, list(tensors))
    return results


def cast_together(linears: Iterable[Linear], device: torch.device) -> ContextManager[Any]:
    """A context in which the layers' weights have autocast's dtype. It does nothing without autocast, nor under
    torch.compile, which fuses the casts itself."""
    if not torch.is_autocast_enabled(device.type) or torch.compiler.is_compiling():
        return NO_CAST
    return CastContext(linears, torch.get_autocast_dtype(device.type))


class CastContext:
    """See `cast_together`. Attributes are set past nn.Module's slow __setattr__."""

    def __init__(self, linears: Iterable[Linear], dtype: torch.dtype):
        self.linears, self.dtype = linears, dtype

    def __enter__(self) -> None:
        parameters = [p for linear in self.linears for p in linear._parameters.values() if p is not None]
        results = iter(CastTogether.apply(self.dtype, *parameters))
        for linear in self.linears:
            vars(linear)["in_use"] = next(results), None if linear._parameters["bias"] is None else next(results)

    def __exit__(self, *error: Any) -> None:
        for linear in self.linears:
            vars(linear)["in_use"] = None


NO_CAST = contextlib.nullcontext()
