"""Progress bars: one short sentence, how far, how long."""

import threading

from tqdm import tqdm


def bar(sentence, total=None, unit="B", hidden=False):
    return tqdm(total=total, desc=sentence, unit=unit, unit_scale=True, mininterval=0.5, disable=hidden)


def documents_with_bar(source, sentence):
    with bar(sentence, source.length, source.unit) as shown:
        for document in source.documents():
            shown.update(document.position - shown.n)
            yield document
        shown.update((source.length or shown.n) - shown.n)  # a stream may not know its length


def result_with_clock(sentence, work):
    """Run `work`, which tells nothing about its progress, and show the time it has taken. Returns its result."""
    outcome = {}

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
