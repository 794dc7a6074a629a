"""The scores that a source gives to the tokens of a batch.

Shapes: B sentences, T positions, N positions in all.
"""

from typing import Any, Callable, NamedTuple, Optional

from torch import Tensor


class Scores(NamedTuple):
    """values: B x T fp32, finite, large = uncertain; exact_at: where they are only approximate, an index into B x T ->
    the exact values there, N."""

    values: Tensor
    exact_at: Optional[Callable[[Any], Tensor]] = None

    def exact(self) -> Tensor:
        """B x T fp32: exact everywhere."""
        return self.values if self.exact_at is None else self.exact_at(slice(None))
