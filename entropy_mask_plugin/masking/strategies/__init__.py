"""Which tokens are masked (paper, section 2.3), in one file for each kind; `registry` says what a strategy is.

ranked   one part of the ranking of the scores, or two
chance   something is left to chance
"""

from .registry import STRATEGIES, check, select  # isort: skip
from . import ranked, chance  # noqa: F401  # isort: skip  (the order of lists)

__all__ = ["STRATEGIES", "check", "select"]
