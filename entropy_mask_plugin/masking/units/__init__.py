"""Which tokens are masked together, one unit a file; `registry` says what a unit is."""

from . import token, word, span  # noqa: F401  # isort: skip  (the order of lists)
from .registry import UNITS, check_symbols, check_units

__all__ = ["UNITS", "check_symbols", "check_units"]
