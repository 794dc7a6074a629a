"""Installed packages that add something to this one."""

import importlib.metadata

from .errors import UsageError


def load_extensions(group: str) -> None:
    """Import what the entry points of a group name; importing it registers its parts.

    Raises:
        UsageError: one cannot be imported; names its package.
    """
    for entry in importlib.metadata.entry_points(group=group):
        try:
            entry.load()
        except Exception as error:
            package = entry.dist.name if entry.dist else "a package"
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(f"{package}: its extension {entry.value} cannot be loaded ({reason}); repair or uninstall "
                             "it") from error
