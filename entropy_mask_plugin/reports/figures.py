"""Pictures as files: no window, and none half-written under its final name."""

import matplotlib

from ..partial import completed

matplotlib.use("Agg")  # a file, no window
from matplotlib import pyplot  # noqa: E402


def save(figure, file):
    """Write a PNG and close the figure."""
    with completed(file) as beside:
        figure.savefig(beside, dpi=130, format="png")
    pyplot.close(figure)
