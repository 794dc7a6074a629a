"""Pictures as files: no window, and none half-written under its final name."""

from typing import Any

import matplotlib

from ..system.atomic_files import atomic_path

matplotlib.use("Agg")  # a file, no window
from matplotlib import pyplot  # noqa: E402


def save(figure: Any, file: str) -> None:
    """Write a PNG and close the figure."""
    with atomic_path(file) as tmp:
        figure.savefig(tmp, dpi=130, format="png")
    pyplot.close(figure)
