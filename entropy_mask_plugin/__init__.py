"""Entropy-aware masking for fairseq. Importing the package registers the task, the criterion and the architectures."""

from .errors import show_usage_errors_as_one_line
from .fairseq_fixes import apply_fairseq_fixes

show_usage_errors_as_one_line()
apply_fairseq_fixes()  # before the architectures: one of the fixes makes room for `bert_base`

from . import criterion, models, task  # noqa: E402, F401
