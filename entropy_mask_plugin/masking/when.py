"""All that a policy knows about time."""

from typing import NamedTuple


class When(NamedTuple):
    """epoch: fairseq's, counted from 1; update: `update_num`, counted from 0; progress: the fraction of the run that is
    over, in [0, 1]."""

    epoch: int
    update: int
    progress: float = 0.0
