"""Numbers over seeds."""

from typing import Optional, Sequence

import numpy as np


def mean(values: Sequence[float]) -> float:
    """nan where there are none."""
    return float(np.mean(values)) if values else float("nan")


def std(values: Sequence[float]) -> Optional[float]:
    """Sample standard deviation (n - 1); None where there is one value only."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
