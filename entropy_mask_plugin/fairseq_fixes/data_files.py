"""Data that cannot be opened or read."""

import functools

from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path

from ..system.errors import naming


def close_what_was_opened() -> None:
    """Where a file of a data-bin vanishes or cannot be read, fairseq closes what it has not opened: a traceback about
    `_bin_buffer_mmap` follows the error."""
    for kind in (MMapIndexedDataset, MMapIndexedDataset.Index):
        kind.__del__ = closing(kind.__del__)


def name_what_cannot_be_read() -> None:
    """The error of a failed read names no file."""
    MMapIndexedDataset.Index.__init__ = reading(MMapIndexedDataset.Index.__init__, str)
    MMapIndexedDataset._do_init = reading(MMapIndexedDataset._do_init, data_file_path)


def closing(fairseq_del):
    def close(self):
        if hasattr(self, "_bin_buffer_mmap"):
            fairseq_del(self)

    return close


def reading(fairseq_init, file_of):
    """file_of: function of the path that fairseq is given."""

    @functools.wraps(fairseq_init)
    def init(self, path):
        with naming(file_of(path)):
            fairseq_init(self, path)

    return init
