"""Pictures as files: no window, and none half-written under its final name."""

import io
from typing import Any

import matplotlib

from ..system.atomic_files import atomic_path, write_bytes

matplotlib.use("Agg")  # a file, no window
from matplotlib import pyplot  # noqa: E402


def save(figure: Any, file: str) -> None:
    """Write a PNG and close the figure."""
    content = io.BytesIO()  # where a library that writes pictures fails, its error has no number
    figure.savefig(content, dpi=130, format="png")
    pyplot.close(figure)
    with atomic_path(file) as tmp:
        write_bytes(tmp, content.getvalue())
