"""Whether a GPU kernel may be used: each process runs it once and compares it with the plain implementation."""

import functools
import logging
from typing import Any, Callable

import torch

logger = logging.getLogger(__name__)


def verified_once(kernel: str) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Decorate check(device, …) -> bool so that it runs once for each device and other arguments. Where it fails or
    raises, it returns False and a warning is logged.

    Args:
        kernel: its name, for the warning.
    """

    def decorate(check: Callable[..., bool]) -> Callable[..., bool]:
        @functools.cache
        @functools.wraps(check)
        def is_right(device: torch.device, *arguments: Any) -> bool:
            try:
                if check(device, *arguments):
                    return True
                reason = "its results differ from the plain implementation's"
            except Exception as error:  # triton has an exception type for each stage of compilation
                reason = " ".join(str(error).split())[:200]
            logger.warning(f"the {kernel} kernel cannot be used on {device}: {reason}")
            return False

        return is_right

    return decorate
