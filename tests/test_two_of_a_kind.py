"""The same command twice at once: the second shares the work, waits, or is refused in one line."""

import os
import signal
import time

import pytest
from builders.attempts import COMMANDS, fork, get_ready, perform, results, unfinished_files, words_of

from entropy_mask_plugin.scoring.cache import store
from entropy_mask_plugin.system.locks import exclusive_lock

pytestmark = pytest.mark.slow
LOCKED_WITH = {  # command: what it has made when it holds the lock of its folder
    "prepare-corpus": "corpus/unfinished.json", "glue": "glue/data", "studies": "study/study.json",
}


@pytest.fixture
def start(inputs, tmp_path):
    """name of a command, its folder -> its process id, its log."""
    numbers = iter(range(10))
    get_ready()

    def start(name, own):
        own.mkdir(exist_ok=True)
        log = tmp_path / f"log{next(numbers)}"
        return fork(lambda: perform(words_of(COMMANDS[name], inputs, own)), log), log

    return start


def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_two_cache_builders_share_the_work_and_make_the_cache_of_one(start, tmp_path, monkeypatch):
    written = tmp_path / "written"
    write = store.EntropyStore.write

    def noted(self, part, entropies):
        with written.open("a") as file:
            file.write(f"{part}\n")
        write(self, part, entropies)

    monkeypatch.setattr(store, "PART_TOKENS", 1000)
    monkeypatch.setattr(store.EntropyStore, "write", noted)
    pid, log = start("build-entropy-cache", tmp_path / "alone")
    assert status_of(pid) == 0, log.read_text()
    parts = written.read_text().split()
    written.unlink()
    both = [start("build-entropy-cache", tmp_path / "shared") for _ in range(2)]
    assert [status_of(pid) for pid, _ in both] == [0, 0], "".join(log.read_text() for _, log in both)
    assert len(parts) > 5 and sorted(written.read_text().split()) == sorted(parts)  # each once
    assert results(tmp_path / "shared") == results(tmp_path / "alone")
    assert not unfinished_files(tmp_path / "shared")


@pytest.mark.parametrize("name", LOCKED_WITH)
def test_a_double_is_refused_in_one_line_while_the_first_lives(name, start, tmp_path):
    own = tmp_path / "own"
    sign = own / LOCKED_WITH[name]
    first, log = start(name, own)
    try:
        while not sign.exists():
            assert os.waitpid(first, os.WNOHANG)[0] == 0, log.read_text()
            time.sleep(0.01)
        os.kill(first, signal.SIGSTOP)  # it shall not end meanwhile
        double, log = start(name, own)
        assert status_of(double) == 1
        folder = own / LOCKED_WITH[name].split("/")[0]
        lines = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
        assert lines == [f"error: --out: {folder}: another run is writing there: wait for it to end, or stop it"]
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    with exclusive_lock(str(folder)):  # free again
        pass
