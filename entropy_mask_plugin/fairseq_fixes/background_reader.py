"""The thread that prefetches batches."""

import atexit
import contextlib
import itertools
import queue
import threading
import weakref

from fairseq.data import iterators


def stop_prefetching_at_exit() -> None:
    """fairseq prefetches batches in a daemon thread. If Python exits while that thread is inside torch, the process
    aborts ("terminate called without an active exception") after a successful training."""
    ended, readers = threading.Event(), weakref.WeakSet()

    class Reader(iterators.BackgroundConsumer):
        """A reader that stops when `ended` is set."""

        def __init__(self, batches, source, *more):
            super().__init__(batches, itertools.takewhile(lambda _: not ended.is_set(), source), *more)
            readers.add(self)

    def stop():
        ended.set()
        for reader in list(readers):
            while reader.is_alive():  # it may be blocked on a full queue
                with contextlib.suppress(queue.Empty):
                    reader._queue.get(timeout=0.05)

    iterators.BackgroundConsumer = Reader
    atexit.register(stop)
