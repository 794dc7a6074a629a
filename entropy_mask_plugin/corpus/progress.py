"""Progress bars."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Dict, Optional

from tqdm import tqdm

from .sources import Document, DocumentSource


def bar(sentence: str, total: Optional[int] = None, unit: str = "B", hidden: bool = False) -> tqdm:
    """A bar in units of bytes, say. total: None = unknown; hidden: show nothing."""
    return tqdm(total=total, desc=sentence, unit=unit, unit_scale=True, mininterval=0.5, disable=hidden)


def documents_with_bar(source: DocumentSource, sentence: str) -> Iterator[Document]:
    """The documents of a source, with a bar."""
    with bar(sentence, source.length, source.unit) as shown:
        for document in source.documents():
            shown.update(document.position - shown.n)
            yield document
        shown.update((source.length or shown.n) - shown.n)  # a stream's length may be unknown


def result_with_clock(sentence: str, work: Callable[[], Any]) -> Any:
    """Run `work`, which reports no progress, show the elapsed time, and return its result."""
    outcome: Dict[str, Any] = {}

    def run():
        try:
            outcome["result"] = work()
        except BaseException as error:
            outcome["error"] = error

    # A daemon, so that an interrupt need not wait for the work to end.
    thread = threading.Thread(target=run, daemon=True)
    with tqdm(desc=sentence, bar_format="{desc}: {elapsed}") as shown:
        thread.start()
        while thread.is_alive():
            thread.join(0.5)
            shown.refresh()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]
