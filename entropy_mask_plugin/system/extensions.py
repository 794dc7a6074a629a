"""Packages that add something to this one: installed ones, and the one of a command's --user-dir."""

import importlib.metadata
import os
from argparse import Namespace

from .errors import UsageError

USER_DIR = "ENTROPY_MASK_USER_DIR"  # in the environment, so that processes which a command starts have it too


def load_extensions(group: str) -> None:
    """Import what the entry points of a group name, and the user's own package; importing it registers its parts.

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
    if USER_DIR in os.environ:
        load_user_dir(os.environ[USER_DIR])


def load_user_dir(folder: str) -> None:
    """Import a package as fairseq-train does with its --user-dir."""
    from fairseq import utils

    if not os.path.exists(os.path.join(folder, "__init__.py")):
        raise UsageError(f"--user-dir: no __init__.py in {folder}, expected a package that registers parts")
    utils.import_user_module(Namespace(user_dir=folder))
