"""`--optimizer fused_adamw`: torch's AdamW in one kernel, where fairseq's Adam loops over the parameters in Python.

The same flags as fairseq's `adam`, which is AdamW too (Loshchilov and Hutter 2019). One difference: torch adds eps to
the root of the bias-corrected second moment, as in the paper, fairseq before the correction.
"""

import ast
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II

from ..system.errors import require


@dataclass
class FusedAdamWConfig(FairseqDataclass):
    adam_betas: Any = field(default="(0.9, 0.999)", metadata={"help": "betas, two numbers in [0, 1)"})
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the root of the second moment, above 0"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled weight decay, 0 or more"})
    lr: List[float] = II("optimization.lr")


@register_optimizer("fused_adamw", dataclass=FusedAdamWConfig)
class FusedAdamW(FairseqOptimizer):
    def __init__(self, cfg, params):
        """Raises `UsageError` for values out of their range."""
        super().__init__(cfg)
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)
        self.factor = self.clipping = 1.0  # of the gradients, not applied yet

    def zero_grad(self):
        for parameter in self.params:
            parameter.grad = None
        self.factor = 1.0

    def multiply_grads(self, c):
        """On a GPU, the optimizer's kernel does it: a pass over all gradients less, and with clipping two."""
        if self.scales_in_kernel():
            self.factor = self.factor * (c.float() if isinstance(c, torch.Tensor) else c)  # between ranks, a double
        elif gradients := self.gradients():
            torch._foreach_mul_(gradients, c)

    def clip_grad_norm(self, max_norm, aggregate_norm_fn=None):
        """The norm before clipping, 0-dim fp32. As fairseq's, with one operation for the norms of all gradients."""
        gradients = self.gradients()
        if not gradients or aggregate_norm_fn is not None:
            super().multiply_grads(self.factor)  # fairseq's clips what is scaled already
            self.factor = 1.0
            return super().clip_grad_norm(max_norm, aggregate_norm_fn)
        norm = total_norm(gradients)
        if self.scales_in_kernel():
            return self.clip_in_kernel(norm * self.factor, max_norm)
        coefficient = clip_coefficient(norm, max_norm)
        if coefficient != 1:
            torch._foreach_mul_(gradients, coefficient)
        return norm

    def clip_in_kernel(self, norm, max_norm):
        """Nothing waits for the norm, which the optimizer's kernel reads: it clips, and skips an update whose norm is
        not finite."""
        self.clipping = clip_coefficient(norm, max_norm)
        self._optimizer.found_inf = norm.isfinite().logical_not().float()
        return norm

    def step(self, closure=None, scale=1.0, groups=None):
        if scale != 1.0:
            self.multiply_grads(1.0 / scale)
        if self.scales_in_kernel():
            factor = self.factor * self.clipping
            if not isinstance(factor, torch.Tensor):  # not clipped
                factor = torch.full((), factor, device=self.param_groups[0]["params"][0].device)
            self._optimizer.grad_scale = factor.reciprocal()  # the kernel divides by it
        super().step(closure)
        self.factor = self.clipping = 1.0

    def gradients(self):
        return [parameter.grad for parameter in self.params if parameter.grad is not None]

    def scales_in_kernel(self):
        return self.param_groups[0]["params"][0].is_cuda

    @property
    def supports_flat_params(self):
        """For --fp16, which keeps all weights in one tensor."""
        return True

    @property
    def optimizer_config(self):
        """Keyword arguments of torch.optim.AdamW; on resume they replace those of the checkpoint."""
        require("--adam-eps", self.cfg.adam_eps, self.cfg.adam_eps > 0, "a number above 0")
        require("--weight-decay", self.cfg.weight_decay, self.cfg.weight_decay >= 0, "0 or more")
        rate = self.cfg.lr[0] if isinstance(self.cfg.lr, Collection) else self.cfg.lr
        return {"lr": rate, "betas": betas_of(self.cfg.adam_betas), "eps": self.cfg.adam_eps,
                "weight_decay": self.cfg.weight_decay}


def betas_of(given):
    """Two floats, from a string on the command line or a list in YAML."""
    try:
        betas = tuple(map(float, ast.literal_eval(given) if isinstance(given, str) else given))
        fine = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    except (ValueError, SyntaxError, TypeError):
        fine = False
    require("--adam-betas", given, fine, 'two numbers in [0, 1), such as "(0.9, 0.98)"')
    return betas


def clip_coefficient(norm, max_norm):
    """What gradients of this norm, 0-dim, are multiplied with; max_norm 0: no clipping."""
    return (max_norm / (norm + 1e-6)).clamp_(max=1) if max_norm > 0 else 1.0


def total_norm(gradients):
    """The norm of all gradients together, 0-dim fp32."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)))
