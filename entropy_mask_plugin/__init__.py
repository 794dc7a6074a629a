"""Entropy-aware masking for fairseq. Where fairseq is imported already, as with --user-dir, importing the package
registers the task, the criterion and the archs; elsewhere `register()` does, and `masking` needs torch alone."""

import sys

__version__ = "1.0.0"
EXTENSIONS = "entropy_mask_plugin.extensions"  # the entry-point group of installed packages that add parts


def register() -> None:
    """Change in fairseq what has to be changed, and register everything with it. Called again, it adds the flags of
    parts that have been registered since.

    Raises:
        UsageError: another release of fairseq; an installed extension that cannot be imported.
    """
    global _is_registered
    if not _is_registered:
        _is_registered = True  # an extension may call this too
        from .fairseq_fixes import apply_fairseq_fixes
        from .system.errors import show_usage_errors_as_one_line

        show_usage_errors_as_one_line()
        apply_fairseq_fixes()
        from . import criterion, models  # noqa: F401
        from .system.extensions import load_extensions
        from .training import budget_linear, fused_adamw  # noqa: F401

        load_extensions(EXTENSIONS)
    from .task import add_flags_of_parts

    add_flags_of_parts()


_is_registered = False

if "fairseq" in sys.modules:
    register()
