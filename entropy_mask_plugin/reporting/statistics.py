"""Numbers over seeds."""

import math
from typing import Optional, Sequence, Tuple

import numpy as np


def mean(values: Sequence[float]) -> float:
    """nan where there are none."""
    return float(np.mean(values)) if values else float("nan")


def std(values: Sequence[float]) -> Optional[float]:
    """Sample standard deviation (n - 1); None where there is one value only."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def wilson_interval(successes: float, n: int, z: float = 1.959964) -> Tuple[float, float]:
    """Wilson's score interval (1927) of a binomial proportion: (lowest, highest), in [0, 1] also at 0 and n successes.

    Args:
        successes: 0 to n; halves, for ties, are allowed.
        n: trials, 1 or more.
        z: quantile of the normal distribution; 95 % by default.
    """
    p, square = successes / n, z * z / n
    center, half = p + square / 2, z * math.sqrt(p * (1 - p) / n + square / (4 * n))
    return max(0.0, (center - half) / (1 + square)), min(1.0, (center + half) / (1 + square))
