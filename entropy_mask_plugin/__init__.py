"""Entropy-aware masking for fairseq. Where fairseq is imported already, as with --user-dir, importing the package
registers the task, the criterion and the archs; elsewhere `register()` does, and `masking` needs torch alone."""

import functools
import sys

__version__ = "0.2.0.dev0"


@functools.cache
def register():
    """Change in fairseq what has to be changed, and register everything with it, once."""
    from .fairseq_fixes import apply_fairseq_fixes
    from .system.errors import show_usage_errors_as_one_line

    show_usage_errors_as_one_line()
    apply_fairseq_fixes()

    from . import criterion, models, task  # noqa: F401
    from .training import budget_linear, fused_adamw  # noqa: F401


if "fairseq" in sys.modules:
    register()
