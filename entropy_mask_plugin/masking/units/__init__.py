"""Which tokens are masked together, one unit a file; `registry` says what a unit is."""

from . import token  # noqa: F401
from .registry import UNITS

__all__ = ["UNITS"]
