"""Writing a checkpoint so that a failed write is told from a mistake."""

from typing import Any

import torch


def write_checkpoint(path: str, state: Any) -> None:
    """torch.save. Not atomic: for names that are temporary themselves.

    Raises:
        OSError: the disk is full, read-only, …: torch itself reports a position in the file that it did not expect.
    """
    with open(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
