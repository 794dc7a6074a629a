"""Host and device, without needless waiting."""

import torch
from torch import Tensor


def syncs_are_expensive(device: torch.device) -> bool:
    """Whether reading a number on the host waits for all work that is queued on the device."""
    return device.type == "cuda"


def to_device_async(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device of a tensor on the host; the host does not wait for it to arrive."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
