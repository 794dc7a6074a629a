"""The benchmark runs every variant and reports what it measured. No test asserts a time."""

import json

import pytest

from entropy_mask_plugin.benchmark import data, mixers, report, run, variants
from entropy_mask_plugin.system.errors import UsageError


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(data, "VOCABULARY", 200)
    monkeypatch.setattr(variants, "VOCABULARY", 200)


def options(out, **more):
    return run.with_defaults(**{**dict(
        quick=True, archs=None, lengths=[16], precisions=None, variants=None, batch_tokens=32, rounds=2, steps=1,
        memory=False, cpu=True, out=str(out)), **more})


@pytest.mark.slow
def test_every_variant_is_measured_and_reported(tiny, tmp_path):
    text = run.benchmark(options(tmp_path))
    (block,) = json.loads((tmp_path / "benchmark.json").read_text())["settings"]
    assert [row["variant"] for row in block["variants"]] == list(variants.DEFAULT_VARIANTS)
    for row in block["variants"]:
        times, base = (block["seconds_by_round"][name] for name in (row["variant"], variants.RANDOM))
        ratios = sorted(time / other for time, other in zip(times, base))
        assert len(times) == 2 and row["lowest_ratio"] == ratios[0] and row["highest_ratio"] == ratios[1]
        assert f"| {row['variant']} " in text
    assert block["entropies"]["refined_same_fraction"] == 1
    assert block["entropies"].keys() == report.ENTROPY_LABELS.keys()
    assert (tmp_path / "benchmark.md").read_text() == text
    assert (tmp_path / "benchmark.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    setting = variants.Setting(str(tmp_path), "bertlet", 16, 2, "fp32", True)
    data.write_data_bin(str(tmp_path / "bin"), 4096)
    megabytes = run.measure.peak_step_bytes(setting, variants.RANDOM) / 2**20
    parameters = 4 * 28_794_170 / 2**20  # and as many gradients and two moments
    assert 4 * parameters < megabytes < 4 * parameters + 2000


@pytest.mark.slow
def test_an_unfinished_benchmark_leaves_what_it_has(tiny, tmp_path, monkeypatch):
    write, written = report.write_report, []

    def only_once(results, out):
        if written:
            raise KeyboardInterrupt
        write(results, out)
        written.append(out)

    monkeypatch.setattr(run.report, "write_report", only_once)
    with pytest.raises(KeyboardInterrupt):
        run.benchmark(options(tmp_path, lengths=[16, 8], variants=["random"]))
    assert len(json.loads((tmp_path / "benchmark.json").read_text())["settings"]) == 1


@pytest.mark.parametrize("wrong, message", [
    (dict(archs=["bert"]), "--archs: bert found, expected some of bertlet, bert_base"),
    (dict(variants=["self"]), "--variants: self found, expected random among them"),
    (dict(rounds=-1), "--rounds: -1 found, expected 1 to 1,000"),
])
def test_mistakes_are_named(wrong, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run.benchmark(options(tmp_path, **wrong))


def test_mixers_are_measured_at_every_length(tmp_path, monkeypatch):
    monkeypatch.setattr(mixers, "in_own_process", lambda **arguments: mixers.measure(**arguments))
    text = mixers.benchmark_mixers([8, 16], 64, 32, 1, True, str(tmp_path))
    records = json.loads((tmp_path / "mixers.json").read_text())["records"]
    assert [(record["length"], record["mixer"]) for record in records] == [
        (length, mixer) for length in (8, 16) for mixer in ("self", "additive")]
    assert all(record["ms"] > 0 and record["extra_memory_bytes"] >= 0 for record in records)
    assert (tmp_path / "mixers.md").read_text() == text and "| 16 " in text
    assert (tmp_path / "mixers.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("lengths, width, message", [
    ([64], 64, r"--lengths: 64 found, expected numbers from 1 to --tokens \(32\)"),
    ([8], 100, "--width: 100 found, expected a multiple of 64"),
])
def test_mistakes_of_the_mixers_are_named(lengths, width, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        mixers.benchmark_mixers(lengths, width, 32, 1, True, str(tmp_path))


@pytest.mark.slow
def test_masks_can_come_later_in_the_benchmark(tiny, tmp_path):
    text = run.benchmark(options(tmp_path, variants=["random", "3ML", "3ML, self"]))
    assert "| 3ML, self " in text
