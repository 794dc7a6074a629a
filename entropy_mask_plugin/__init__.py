"""Entropy-aware masking for fairseq. Where fairseq is imported already, as with --user-dir, importing the package
registers the task, the criterion and the archs; elsewhere `register()` does, and `masking` needs torch alone."""

import functools
import sys


@functools.cache
def register():
    """Change in fairseq what has to be changed, and register everything with it, once."""
    from .errors import show_usage_errors_as_one_line
    from .fairseq_fixes import apply_fairseq_fixes

    show_usage_errors_as_one_line()
    apply_fairseq_fixes()

    from . import budget_linear, criterion, fused_adamw, models, task  # noqa: F401


if "fairseq" in sys.modules:
    register()
