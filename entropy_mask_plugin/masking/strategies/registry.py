"""Which tokens are masked (paper, section 2.3): a strategy is a priority; `take` selects the k largest of each row.

    @STRATEGIES.add("name", needs_scores=True, cuts_scores=False)
    def name(scores, candidates, k, draw):

        scores      B x T fp32, finite: large = uncertain; None for a strategy that needs none
        candidates  B x T bool: what may be masked
        k           B int64: how many will be taken in each row
        draw        a `masking.noise.Draw`: draw.noise(STRATEGY) is B x T in [0, 1), draw.coin() one coin per update
        returns     B x T float, finite: larger first, ties to the lower position; other positions do not matter

A strategy with options gets them as further keyword arguments. One that looks at scores draws from STRATEGY: SELECTION
draws the masks that are random.

needs_scores: whether the tokens must be scored, which costs a forward pass.
cuts_scores: whether the selection consists of contiguous parts of the ranking of the scores: then approximate scores
need to be made exact only near the cuts.
"""

from typing import Any, Optional

import numpy
from torch import Tensor

from ..noise import Draw
from ..registry import Registry
from ..take import mean_of_units, take

STRATEGIES = Registry("--mask-strategy", needs_scores=True, cuts_scores=False)


def select(strategy: str, scores: Optional[Tensor], candidates: Tensor, k: Tensor, draw: Optional[Draw] = None,
           units: Optional[Tensor] = None, **options: Any) -> Tensor:
    """The positions that a strategy masks: B x T bool, k in each row, at most k where units are given.

    Args:
        strategy: a name in STRATEGIES.
        scores: B x T fp32, finite; None for a strategy that needs none.
        candidates: B x T bool, what may be masked.
        k: B int64, how many to select in each row.
        draw: the noise of this batch; may be None where the strategy draws nothing.
        units: B x T int64, what is masked together (see `units`); the score of a unit is the mean of its tokens'
            scores. None = each token alone.
        options: of the strategy.
    Raises:
        ValueError: there is no such strategy; it returns something other than priorities.
    """
    if units is not None and scores is not None:
        scores = mean_of_units(scores, candidates, units)
    priority = STRATEGIES[strategy].fn(scores, candidates, k, draw, **options)
    check(priority, candidates, f"--mask-strategy {strategy}: priority")
    return take(priority, candidates, k, units)


class NotFinite(ValueError):
    """A value is nan or infinite."""


def check(priority: Any, candidates: Tensor, label: str) -> None:
    """Check what a strategy returned. Whether it is finite is checked on a CPU only: with a GPU, the host would wait.

    Args:
        priority: expected to be B x T float, finite at the candidates.
        candidates: B x T bool.
        label: begins the error message.
    Raises:
        ValueError: the type or the shape is wrong.
        NotFinite: a value is.
    """
    if not isinstance(priority, Tensor) or not priority.is_floating_point() or priority.shape != candidates.shape:
        kind = (f"{priority.dtype} of shape {tuple(priority.shape)}" if isinstance(priority, Tensor)
                else type(priority).__name__)
        raise ValueError(f"{label}: {kind} found, expected floats of shape {tuple(candidates.shape)}")
    if priority.device.type == "cpu":
        finite = numpy.isfinite(priority.detach().numpy()) | ~candidates.numpy()
        if not finite.all():
            raise NotFinite(f"{label}: {int((~finite).sum())} values that are not finite found, expected none")
