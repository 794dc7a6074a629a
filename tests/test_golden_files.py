"""What commit 7911eb4 has left on disk is read, resumed and refused as it was then (see golden/record_files.py)."""

import json

import pytest
from golden import record, record_files

GIVEN = json.loads((record.HERE / "files.json").read_text(encoding="utf-8"))
CLOSE = 1e-3  # as in test_golden.py
is_like_the_recording_machine = record.machine() == GIVEN["machine"]


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def check_sums(sums, recorded):
    assert sums.keys() == recorded.keys()
    for name, (total, size) in recorded.items():
        assert sums[name] == pytest.approx([total, size], rel=0, abs=CLOSE * size), name


def test_a_run_is_resumed(folder):
    outcome, recorded = record_files.resumed(folder), GIVEN["resumed"]
    check_sums(outcome["sums"], recorded["sums"])
    assert outcome["sha256"] == recorded["sha256"] or not is_like_the_recording_machine


def test_a_cache_is_read_and_stays_as_it_is(folder, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.Scorer.projection", None)  # no teacher is asked
    outcome, recorded = record_files.cached(folder), GIVEN["cached"]
    assert outcome["files"] == recorded["files"]
    assert outcome["sha256"] == recorded["sha256"] or not is_like_the_recording_machine


def test_an_imported_model_predicts_what_it_predicted(folder):
    for row, recorded in zip(record_files.imported(folder)["logits"], GIVEN["imported"]["logits"], strict=True):
        assert row == pytest.approx(recorded, rel=1e-5)


def test_a_fine_tuned_model_predicts_what_it_predicted(folder):
    for row, recorded in zip(record_files.tuned(folder)["logits"], GIVEN["tuned"]["logits"], strict=True):
        assert row == pytest.approx(recorded, rel=1e-4, abs=1e-5)


def test_what_does_not_fit_is_refused_with_the_same_sentence(folder):
    assert record_files.refused(folder) == GIVEN["refused"]
