"""Whose prediction scores the tokens, one source a file; `registry` says what a source is."""

from . import teacher, own  # noqa: F401  # isort: skip  (the order of lists)
from .registry import SOURCES, Source, models_read, refuse_nan

__all__ = ["SOURCES", "Source", "models_read", "refuse_nan"]
