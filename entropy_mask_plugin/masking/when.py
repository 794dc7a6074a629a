"""All that a policy knows of time."""

from typing import NamedTuple


class When(NamedTuple):
    """epoch: from 1; update: from 0."""

    epoch: int
    update: int
