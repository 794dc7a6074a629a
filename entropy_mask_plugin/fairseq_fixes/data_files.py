"""Data that cannot be opened."""

from fairseq.data.indexed_dataset import MMapIndexedDataset


def close_what_was_opened() -> None:
    """Where a file of a data-bin vanishes or cannot be read, fairseq closes what it has not opened: a traceback about
    `_bin_buffer_mmap` follows the error."""
    for kind in (MMapIndexedDataset, MMapIndexedDataset.Index):
        kind.__del__ = closing(kind.__del__)


def closing(fairseq_del):
    def close(self):
        if hasattr(self, "_bin_buffer_mmap"):
            fairseq_del(self)

    return close
