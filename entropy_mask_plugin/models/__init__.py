"""The architectures. Importing this package registers them with fairseq."""

from . import bert, hbert  # noqa: F401
