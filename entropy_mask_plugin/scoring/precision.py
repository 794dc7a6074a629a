"""Autocast."""

import contextlib
from typing import ContextManager

import torch


def autocast(device: torch.device, precision: str) -> ContextManager:
    """precision: "fp32", or "bf16": matrix products in bf16, weights in fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
