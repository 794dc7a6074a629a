"""Optional requirements: which extra of the package has to be installed for which module."""

import importlib.util
from typing import List

from .errors import UsageError

MODULES = {  # of each extra in setup.py, what is imported
    "corpus": ("datasets",),
    "glue": ("scipy", "sklearn"),
    "report": ("jinja2", "matplotlib", "tabulate"),
    "tracking": ("tensorboard", "wandb"),
    "atlas": ("HanTa",),
    "dev": ("transformers",),
}
PURPOSES = {
    "corpus": "public data sets", "glue": "scores of GLUE and their statistics", "report": "tables and figures",
    "tracking": "curves in TensorBoard and W&B", "atlas": "word classes in the mask atlas",
    "dev": "tests, and transformers to compare with",
}


def missing_modules(extra: str) -> List[str]:
    return [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]


def require_extras(*extras: str) -> None:
    """
    Raises:
        UsageError: a module of one of them is not installed; says what to install.
    """
    missing = {extra: names for extra in extras if (names := missing_modules(extra))}
    if missing:
        modules = ", ".join(name for names in missing.values() for name in names)
        raise UsageError(f"not installed: {modules}, expected {install(*missing)}")


def install(*extras: str) -> str:
    """The command that installs them."""
    return f'pip install "entropy-mask-plugin[{",".join(extras)}]"'
