"""Entropy-aware masking for fairseq. Importing the package registers the task, the criterion and the architectures."""

import sys

from .errors import show_usage_errors_as_one_line

show_usage_errors_as_one_line()


def register():
    """Change in fairseq what has to be changed, and register everything with it."""
    from .fairseq_fixes import apply_fairseq_fixes

    apply_fairseq_fixes()  # before the architectures: one of the fixes makes room for `bert_base`

    from . import budget_linear, criterion, fused_adamw, models, task  # noqa: F401


if sys.argv[0] != "-m":  # `python -m entropy_mask_plugin.doctor` has to run where fairseq cannot be imported
    register()
