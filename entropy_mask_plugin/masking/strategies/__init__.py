"""Which tokens are masked (paper, section 2.3), one file for each kind; `registry` says what a strategy is.

ranked   one or two parts of the ranking of the scores
chance   strategies with a random component
"""

from .registry import STRATEGIES, NotFinite, check, select  # isort: skip
from . import ranked, chance  # noqa: F401  # isort: skip  (the order of lists)

__all__ = ["STRATEGIES", "NotFinite", "check", "select"]
