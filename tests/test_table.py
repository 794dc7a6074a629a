"""A table says the same in Markdown, LaTeX and CSV; records of older versions get the keys of this one."""

import csv
import io
import json

import pytest

from entropy_mask_plugin.reporting.records import NUMBER, TEXT, read_record
from entropy_mask_plugin.reporting.table import Table, table_of_records
from entropy_mask_plugin.system.errors import UsageError

TABLE = Table("Scores", ["run", "Δ"], [["a", "1.0 ± 0.1"], ["b_1", "–"]], "In %.\nOf two seeds.")


def test_markdown_has_title_cells_and_note_as_they_are():
    title, header, rule, *rows, note = [part for part in TABLE.markdown().splitlines() if part][:-1]
    assert title == "## Scores" and header.split() == ["|", "run", "|", "Δ", "|"] and set(rule) <= set("|-")
    assert [row.split("|")[2].strip() for row in rows] == ["1.0 ± 0.1", "–"] and note == "In %."
    assert TABLE.markdown().endswith("\n\nIn %.\nOf two seeds.")
    assert Table("", ["a"], [["007"]]).markdown().splitlines()[0] == "| a   |"  # no heading, and 007 is no number


def test_columns_can_be_aligned():
    lines = Table("", ["part", "ms"], [["a", "1"], ["b", "100"]]).markdown(align=("left", "right")).splitlines()
    assert lines[2].endswith("|    1 |") and lines[3].endswith("|  100 |")


def test_latex_has_title_and_note_as_comments_and_no_character_that_pdflatex_lacks():
    comments, body = TABLE.latex().split("\\begin{tabular}")
    assert comments.splitlines() == ["% Scores", "% In %.", "% Of two seeds."]
    assert "difference" in body and "1.0 $\\pm$ 0.1" in body and "--" in body and "b\\_1" in body
    assert body.isascii() and "\\toprule" in body


def test_csv_has_header_and_values_and_nothing_else():
    table = table_of_records([{"run": "a, b", "score_pct": 1.5}, {"run": "c", "n_seeds": 2, "score_pct": None}])
    assert table.csv() == 'run,score_pct,n_seeds\r\n"a, b",1.5,\r\nc,,2\r\n'
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [["run", "Δ"], *TABLE.rows]


def test_phrases_of_older_records_become_keys_at_every_level_and_values_stay(tmp_path):
    path = tmp_path / "finished.json"
    path.write_text(json.dumps({"seconds of the last call": 1.5, "peak memory": 7, "machine": "row",
                                "steps": [{"what": "entropy", "corpus 2 valid.*": "corpus 2 valid.*"}]}))
    assert read_record(str(path), {"peak_memory_bytes": NUMBER}) == {
        "last_call_seconds": 1.5, "peak_memory_bytes": 7, "machine": "row",
        "steps": [{"event": "entropy", "corpus2/valid.*": "corpus 2 valid.*"}]}
    with pytest.raises(UsageError, match="finished.json: a record with last_call_seconds, .*, steps found, expected "
                                         "command in it, as this version writes them"):
        read_record(str(path), {"command": TEXT})
