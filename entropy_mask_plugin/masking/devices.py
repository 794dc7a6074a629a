"""Host and device, without needless waiting."""

from collections.abc import Callable

import torch
from torch import Tensor


def syncs_are_expensive(device: torch.device) -> bool:
    """Whether reading a number on the host waits for all work that is queued on the device."""
    return device.type == "cuda"


def to_device_async(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device of a tensor on the host; the host does not wait for it to arrive."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def to_host_async(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the host. Returns a function that waits for the copy to arrive and returns it."""
    if tensor.device.type == "cpu":
        return lambda: tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait
