"""The host and the device: who waits for whom."""

import torch
from torch import Tensor


def syncs_are_expensive(device: torch.device) -> bool:
    """Whether the host, when it asks for a number, waits there for all that it has asked for before."""
    return device.type == "cuda"


def to_device_async(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, which is on the host, on the device, where it may arrive after the host has gone on."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
