"""All that a policy knows about time."""

from typing import NamedTuple


class When(NamedTuple):
    """epoch: fairseq's, counted from 1; update: `update_num`, counted from 0."""

    epoch: int
    update: int
