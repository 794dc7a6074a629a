"""The memory of fairseq's meters."""

from collections import defaultdict

from fairseq.logging import metrics


class Counts(defaultdict):
    """How often each name is in use; a name that is not takes no memory."""

    def __setitem__(self, name: str, number: int) -> None:
        if number:
            super().__setitem__(name, number)
        else:
            self.pop(name, None)


def forget_names_out_of_use() -> None:
    """fairseq keeps the random names of all aggregators that it ever had, two in an update: 150 MB in a million."""
    metrics._active_aggregators_cnt = Counts(int, metrics._active_aggregators_cnt)
