"""`--optimizer fused_adamw`: torch's AdamW in one kernel; fairseq's Adam loops over the parameters in Python.

The flags are those of fairseq's `adam`, which is AdamW too (Loshchilov and Hutter 2019). One difference: torch adds eps
to the root of the bias-corrected second moment, as in the paper; fairseq adds it before the correction.
"""

import ast
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor

from ..system.errors import require


@dataclass
class FusedAdamWConfig(FairseqDataclass):
    """The flags of `--optimizer fused_adamw`."""

    adam_betas: Any = field(default="(0.9, 0.999)", metadata={"help": "betas, two numbers in [0, 1)"})
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the root of the second moment, in (0, 1]"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled weight decay, 0 or more, below 1 / --lr"})
    lr: List[float] = II("optimization.lr")


@register_optimizer("fused_adamw", dataclass=FusedAdamWConfig)
class FusedAdamW(FairseqOptimizer):
    """AdamW whose kernel also scales and clips the gradients on a GPU, without waiting for their norm.

    Raises:
        UsageError: a flag out of its range.
    """

    def __init__(self, cfg: FusedAdamWConfig, params: Iterable[torch.nn.Parameter]):
        super().__init__(cfg)
        self._optimizer: Any = torch.optim.AdamW(params, fused=True, **self.optimizer_config)
        self.factor = self.clipping = 1.0  # factors of the gradients that are not applied yet; floats or 0-dim

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.params:
            parameter.grad = None
        self.factor = 1.0

    def multiply_grads(self, c: Union[float, Tensor]) -> None:
        """Scale the gradients by c (0-dim). On a GPU, the optimizer's kernel does it, which saves a pass over all
        gradients, with clipping two."""
        if self.scales_in_kernel():
            self.factor = self.factor * (c.float() if isinstance(c, Tensor) else c)  # fp64 with several ranks
        elif gradients := self.gradients():
            torch._foreach_mul_(gradients, c)

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: Optional[Callable[[Tensor], Tensor]] = None) -> Tensor:
        """Clip, and return the norm before clipping, 0-dim fp32. One operation computes the norms of all gradients."""
        gradients = self.gradients()
        if not gradients or aggregate_norm_fn is not None:
            super().multiply_grads(self.factor)  # fairseq's clips scaled gradients
            self.factor = 1.0
            return super().clip_grad_norm(max_norm, aggregate_norm_fn)
        norm = total_norm(gradients)
        if self.scales_in_kernel():
            return self.clip_in_kernel(norm * self.factor, max_norm)
        coefficient = clip_coefficient(norm, max_norm)
        if coefficient != 1:
            torch._foreach_mul_(gradients, coefficient)
        return norm

    def clip_in_kernel(self, norm: Tensor, max_norm: float) -> Tensor:
        """Leave clipping to the optimizer's kernel, so that the host need not wait for the norm; the kernel skips an
        update whose norm is not finite."""
        self.clipping = clip_coefficient(norm, max_norm)
        self._optimizer.found_inf = norm.isfinite().logical_not().float()
        return norm

    def step(self, closure: Optional[Callable] = None, scale: float = 1.0, groups: Any = None) -> None:
        """Update the parameters with gradients divided by `scale`. groups: unused."""
        if scale != 1.0:
            self.multiply_grads(1.0 / scale)
        if self.scales_in_kernel():
            factor = self.factor * self.clipping
            if not isinstance(factor, Tensor):  # not clipped
                factor = torch.full((), factor, device=self.param_groups[0]["params"][0].device)
            self._optimizer.grad_scale = factor.reciprocal()  # the kernel divides by it
        super().step(closure)
        self.factor = self.clipping = 1.0

    def gradients(self) -> List[Tensor]:
        """Those that exist, in the order of the parameters."""
        return [parameter.grad for parameter in self.params if parameter.grad is not None]

    def scales_in_kernel(self) -> bool:
        """Whether the kernel can scale gradients: on a GPU only."""
        return self.param_groups[0]["params"][0].is_cuda

    @property
    def supports_flat_params(self) -> bool:
        """True: --fp16 keeps all weights in one tensor."""
        return True

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """Keyword arguments of torch.optim.AdamW; on resume they replace those of the checkpoint.

        Raises:
            UsageError: a flag out of its range.
        """
        rates: Any = self.cfg.lr
        lr = rates if isinstance(rates, (int, float)) else rates[0]
        require("--lr", lr, 0 <= lr < math.inf, "0 or more")
        require("--adam-eps", self.cfg.adam_eps, 0 < self.cfg.adam_eps <= 1, "a number in (0, 1]")
        require("--weight-decay", self.cfg.weight_decay, 0 <= self.cfg.weight_decay < math.inf
                and lr * self.cfg.weight_decay < 1, f"0 or more, and below 1 / --lr ({lr})")
        return {"lr": lr, "betas": betas_of(self.cfg.adam_betas),
                "eps": self.cfg.adam_eps, "weight_decay": self.cfg.weight_decay}


def betas_of(flag_value: Any) -> Tuple[float, float]:
    """Two floats, from a string on the command line or a list in YAML.

    Raises:
        UsageError: anything but two numbers in [0, 1).
    """
    betas: Any = None
    try:
        betas = tuple(map(float, ast.literal_eval(flag_value) if isinstance(flag_value, str) else flag_value))
        fine = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    except (ValueError, SyntaxError, TypeError, OverflowError):
        fine = False
    require("--adam-betas", flag_value, fine, 'two numbers in [0, 1), such as "(0.9, 0.98)"')
    return betas


def clip_coefficient(norm: Tensor, max_norm: float) -> Union[Tensor, float]:
    """The factor that clips gradients of this norm, 0-dim; max_norm 0: no clipping."""
    return (max_norm / (norm + 1e-6)).clamp_(max=1) if max_norm > 0 else 1.0


def total_norm(gradients: List[Tensor]) -> Tensor:
    """The norm of all gradients together, 0-dim fp32."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)))
