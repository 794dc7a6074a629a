"""Token mixers (attention of some kind), one per file; `registry` describes the interface."""

from .registry import MIXERS, mixer_of  # isort: skip
from .self_attention import SelfAttention  # isort: skip  (first in lists and tables)
from .additive import AdditiveAttention
from .cross import CrossAttention

__all__ = ["MIXERS", "AdditiveAttention", "CrossAttention", "SelfAttention", "mixer_of"]
