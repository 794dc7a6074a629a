"""Autocast by the names of --precision."""

import contextlib
from typing import ContextManager

import torch


def autocast(device: torch.device, precision: str) -> ContextManager:
    """The autocast context of a precision: "fp32" = none; "bf16" = matrix products in bf16, weights stay in fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
