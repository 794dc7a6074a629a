"""The thread that reads batches ahead."""

import atexit
import contextlib
import itertools
import queue
import threading
import weakref

from fairseq.data import iterators


def stop_reading_ahead_before_python_ends():
    """fairseq reads batches ahead in a daemon thread. Where Python ends while that thread is inside torch, the process
    is aborted ("terminate called without an active exception") after a training that has succeeded."""
    ended, readers = threading.Event(), weakref.WeakSet()

    class Reader(iterators.BackgroundConsumer):
        def __init__(self, batches, source, *more):
            super().__init__(batches, itertools.takewhile(lambda _: not ended.is_set(), source), *more)
            readers.add(self)

    def stop():
        ended.set()
        for reader in list(readers):
            while reader.is_alive():  # it may be waiting for room in a full queue
                with contextlib.suppress(queue.Empty):
                    reader._queue.get(timeout=0.05)

    iterators.BackgroundConsumer = Reader
    atexit.register(stop)
