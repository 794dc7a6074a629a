"""The stages of the benchmark: figures are kept as they come, limits are kept, and each stage runs on a CPU."""

import json
import subprocess
import sys
import textwrap
from importlib.metadata import version

import pytest
import torch
from builders.training import ROOT

from entropy_mask_plugin.benchmark import (
    end_to_end,
    host,
    kernels,
    measure,
    parts,
    results,
    sanity,
    stages,
    steps,
    summary,
    timing,
    variants,
)
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.training.cross_entropy import inplace_cross_entropy

TINY = stages.StageOptions(("bertlet",), 60.0, True)


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHMARK_OUT", str(tmp_path))
    return tmp_path


def planted(monkeypatch, tmp_path, body, seconds=60):
    """A stage `planted` with this body, in place of the command that runs a stage."""
    monkeypatch.setattr(stages, "START", textwrap.dedent(body))
    monkeypatch.setitem(stages.STAGES, "planted", stages.Stage("planted", seconds, "planted"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lambda *names, **more: stages.run_benchmark_stages(names or ["planted"], str(tmp_path), TINY, **more)


SLEEPS = """
    import json, os, sys, time
    with open(os.environ["BENCHMARK_OUT"] + "/results.jsonl", "a") as file:
        file.write(json.dumps({"kind": "figure", "stage": sys.argv[1], "value": 1.5}) + "\\n")
    print("before", flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
def test_a_stage_that_is_cut_off_leaves_its_figures_and_the_next_one_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(stages.STAGES, "other", stages.Stage("the same", 3, "other"))
    run = planted(monkeypatch, tmp_path, SLEEPS, seconds=3)
    assert run("planted", "other") == {"planted": "cut off", "other": "cut off"}
    figures = results.read(tmp_path)
    assert [(figure["stage"], figure["value"]) for figure in figures] == [("planted", 1.5), ("other", 1.5)]
    log = (tmp_path / "log").read_text()
    assert log.count("before") == 2 and "== planted: cut off" in log and log in capsys.readouterr().out
    assert (tmp_path / "summary.md").exists()


def test_a_stage_that_fails_is_reported(monkeypatch, tmp_path):
    run = planted(monkeypatch, tmp_path, "print('about to fail'); raise SystemExit(3)")
    assert run() == {"planted": "failed"} and "about to fail" in (tmp_path / "log").read_text()


def test_no_stage_begins_when_the_budget_is_nearly_over(monkeypatch, tmp_path):
    run = planted(monkeypatch, tmp_path, "raise SystemExit(3)")
    assert run(budget=stages.LEAST_SECONDS - 1) == {"planted": "no time left"}


@pytest.mark.parametrize("names, budget, message", [
    (["step", "foo"], None, "--stages: foo found, expected some of machine, sanity, "),
    (["step"], 0, "--budget: 0 found, expected a number of seconds"),
])
def test_mistakes_are_named(names, budget, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        stages.run_benchmark_stages(names, str(tmp_path / "out"), TINY, budget=budget)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_runs_a_stage_in_a_process_of_its_own_and_lists_them(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "benchmark.py"]
    done = subprocess.run([*command, "--out", tmp_path, "--stages", "machine"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (figure,) = results.read(tmp_path)
    assert figure["kind"] == "machine" and figure["torch"] == version("torch") and "machine: passed" in done.stdout
    usage = subprocess.run([*command, "--help"], capture_output=True, text=True).stdout
    assert all(f"{name} " in usage and stage.summary in usage for name, stage in stages.STAGES.items())


def test_a_failing_measurement_is_a_figure_and_the_next_one_is_made(out):
    assert not results.attempt("part", lambda: 1 / 0, part="first")
    assert results.attempt("part", lambda: {"ms": 2.0}, part="second")
    with open(out / results.RESULTS, "a") as file:
        file.write('{"kind": "part", "cut o')  # by a kill
    first, second = results.read(out)
    assert first["failed"].startswith("ZeroDivisionError") and second == {"kind": "part", "part": "second", "ms": 2.0}
    text = summary.summary_markdown([first, second])
    assert "**failed**" in text and "ZeroDivisionError" in text
    with pytest.raises(RuntimeError):  # nothing works after that
        results.attempt("part", lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: an illegal access")))


@pytest.mark.slow
def test_sanity_compares_and_names_a_difference(out, monkeypatch):
    random = sanity.WAYS["random"]
    monkeypatch.setattr(sanity, "WAYS", {way: sanity.WAYS[way] for way in (
        "random, 80/10/10", "high, cached", "sentences, padded", "mask later")})
    assert sanity.run(TINY)
    figures = results.read(out)
    assert len(figures) == 8 and all(figure["verdict"] == "PASS" for figure in figures)
    monkeypatch.setattr(sanity, "WAYS", {"random": random})
    exact = sanity.some_updates
    monkeypatch.setattr(sanity, "some_updates", lambda words: spoiled(exact(words), "bf16" in words))
    assert not sanity.run(TINY)
    *_, good, bad = results.read(out)
    assert good["verdict"] == "PASS" and bad["verdict"] == "FAIL" and bad["loss_differs"] > 0.09
    assert summary.summary_markdown([good, bad]).startswith("**sanity**: 1 of 2 pass\n- random, bf16: ")


@pytest.mark.parametrize("actual, expected", [
    ([{"loss": 2.2}, {"loss": 1.0}], 0.1), ([{"loss": 2.0}, {"loss": float("nan")}], float("inf")),
    ([{"loss": 2.0}, {}], float("inf")), ([{"loss": 2.0}, {"loss": 1.0}], 0.0)])
def test_a_value_that_is_missing_or_no_number_differs_by_infinity(actual, expected):
    (difference,) = sanity.largest_differences([{"loss": 2.0}, {"loss": 1.0}], actual).values()
    assert difference == pytest.approx(expected)
    with pytest.raises(ValueError, match="zip"):  # the two have different numbers of updates
        sanity.largest_differences([{"loss": 2.0}], actual)


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_a_wrong_kernel_fails_its_stage(error, out):
    logits, target = torch.randn(3, 7), torch.tensor([0, 3, 6])

    def wrong(logits, target):
        loss, correct = inplace_cross_entropy(logits, target)
        return loss * (1 + error), correct

    right, failing = (results.attempt("cross_entropy", lambda f=f: kernels.of_cross_entropy(f, logits, target, True))
                      for f in (inplace_cross_entropy, wrong))
    assert right and not failing and "loss_differs" in results.read(out)[1]["failed"]


def spoiled(outcome, is_bf16):
    log, masks = outcome
    return ([{**row, "loss": row["loss"] * (1.1 if is_bf16 else 1)} for row in log], masks)


@pytest.mark.slow
def test_steps_are_measured_with_their_parts_in_one_run(out, monkeypatch):
    monkeypatch.setattr(steps, "PROFILED", ("random", "self"))
    assert steps.run_step(TINY)
    figures = results.read(out)
    rows = {figure["variant"]: figure for figure in figures if figure["kind"] == "step"}
    assert set(rows) == set(steps.STEP_VARIANTS) - {variants.TRANSFORMERS}
    assert all(row["tokens_per_second"] > 0 and row["mfu"] > 0 for row in rows.values())
    flops = {name: row["flop_per_second"] * row["ms"] for name, row in rows.items()}
    assert rows["random"]["ratio"] == 1 and flops["self"] > 1.3 * flops["random"]
    assert [figure["variant"] for figure in figures if figure["kind"] == "kernel_times"] == list(steps.PROFILED)
    assert not any("failed" in figure for figure in figures)
    assert "| bertlet | random " in summary.summary_markdown(figures)


def test_the_host_overhead_of_an_update_is_a_time_and_a_number_of_operations(out):
    assert host.run(TINY)
    figures = results.read(out)
    assert [(figure["precision"], figure["variant"]) for figure in figures] == [
        ("fp32", "random"), ("fp32", "self"), ("bf16", "random"), ("bf16", "self")]
    of = {(figure["precision"], figure["variant"]): figure["operations"] for figure in figures}
    assert 0 < of["fp32", "random"] < of["bf16", "random"] < of["bf16", "self"]


# What an update launches, and may not exceed: each operation costs a GPU's host some microseconds.
OPERATIONS = {
    "bertlet": {("random", "fp32"): 374, ("random", "bf16"): 453, ("self", "fp32"): 411, ("self", "bf16"): 555},
    "bert_base": {("random", "fp32"): 854, ("random", "bf16"): 1069, ("self", "fp32"): 971, ("self", "bf16"): 1275},
}


@pytest.mark.parametrize("arch", OPERATIONS)
def test_an_update_launches_no_more_operations_than_it_did(arch, out):
    host.run(TINY._replace(archs=(arch,)))
    launched = {(figure["variant"], figure["precision"]): figure["operations"] for figure in results.read(out)}
    assert launched.keys() == OPERATIONS[arch].keys()
    assert not {way: number for way, number in launched.items() if number > OPERATIONS[arch][way]}


def test_views_and_empty_tensors_are_no_operations():
    with host.Operations() as operations:
        x = torch.empty(3, 4)
        x.t().t().view(12)[2:].unsqueeze(0).detach()
        (x * 2).add_(1)
        torch._foreach_add_([x, x], 1)
    assert operations.numbers.total() == 3


def test_the_masks_of_a_trained_model_are_compared(out, teacher, data_bin):
    from entropy_mask_plugin.benchmark import masks

    assert masks.run(TINY._replace(checkpoint=teacher, data=data_bin))
    ways = {figure["way"]: figure for figure in results.read(out)}
    assert len(ways) == 7 and ways["fp32 layers, refined iteratively"]["mid_same"] == 1
    assert all(0 < figure[f"{name}_same"] <= 1 for figure in ways.values() for name in masks.COMPARED)
    with pytest.raises(UsageError, match="--checkpoint: None found, expected a trained model, for --stages masks"):
        masks.run(TINY)


def test_parts_are_measured(out):
    assert parts.run(TINY)
    figures = results.read(out)
    assert {"part", "attention", "reading"} == {figure["kind"] for figure in figures}
    assert not any("failed" in figure for figure in figures) and len(figures) > 12


@pytest.mark.parametrize("loads, status, expected", [(True, 0, True), (False, 0, False), (True, 1, False)])
def test_a_user_trains_and_resumes(loads, status, expected, out, monkeypatch, capsys):
    says = "Loaded checkpoint" if loads else "No existing checkpoint"
    (out / "python").write_text(f"""#!/bin/sh
        case "$*" in *"--max-epoch 3") echo "{says}"; exit {status};; esac
        echo "2026 | INFO | train_inner | loss=3"; echo other""")
    (out / "python").chmod(0o755)
    monkeypatch.setattr(end_to_end.sys, "executable", str(out / "python"))
    assert end_to_end.run(TINY) is expected
    assert [(f["run"], f["max_epoch"], f["exit_status"], f["resumed"]) for f in results.read(out)] == [
        ("teacher", 1, 0, False), ("student", 2, 0, False), ("student", 3, status, loads)]
    assert "loss=3" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["kernels", "compile"])
def test_kernels_are_right_in_the_interpreter_and_compile_without_spills(stage, tmp_path):
    pytest.importorskip("triton")
    outcomes = stages.run_benchmark_stages([stage], str(tmp_path), TINY)
    assert outcomes == {stage: "passed"}, (tmp_path / "log").read_text()
    figures = results.read(tmp_path)
    assert figures and not any("failed" in figure for figure in figures)
    if stage == "compile":
        assert len(figures) == 9 and all(f["spills"] == 0 and f["registers"] <= 255 for f in figures)


@pytest.mark.slow
def test_the_prototypes_are_put_over_a_step(tmp_path):
    pytest.importorskip("triton")
    assert stages.run_benchmark_stages(["prototypes"], str(tmp_path), TINY) == {"prototypes": "passed"}
    figures = [figure for figure in results.read(tmp_path) if figure["kind"] == "prototype"]
    assert figures and all("failed" in f or f["times_faster"] > 0 for f in figures)


# ---- memory, and the rate of matrix products


def test_nobody_resets_the_peak_of_the_memory_that_is_measured(monkeypatch):
    resets = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *arguments: resets.append(arguments))
    with measure.peak_is_kept():
        torch.cuda.reset_peak_memory_stats()  # as fairseq's trainer does in each update
        torch.cuda.reset_peak_memory_stats(0)
    assert resets == []
    torch.cuda.reset_peak_memory_stats()
    assert resets == [()]


def test_the_steps_of_a_peak_are_made_where_nobody_resets_it(tmp_path, monkeypatch, capsys):
    resets = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *arguments: resets.append(arguments))

    class Variant:
        def step(self):
            torch.cuda.reset_peak_memory_stats()

    monkeypatch.setattr(measure, "build_variant", lambda name, setting: Variant())
    setting = variants.Setting(str(tmp_path), "bertlet", 16, 2, "fp32", True)
    measure.print_peak(json.dumps({"name": "random", **vars(setting)}))
    assert resets == [] and float(capsys.readouterr().out) > 0


def test_the_rate_of_matrix_products_is_that_of_random_numbers(monkeypatch):
    operands = []
    monkeypatch.setattr(timing, "device_ms", lambda product, **named: operands.extend(
        cell.cell_contents for cell in product.__closure__) or 1.0)
    for precision in ("fp32", "bf16"):
        measure.gemm_rate(variants.Setting("", "bertlet", 16, 2, precision, True))
    assert {operand.dtype for operand in operands} == {torch.float32, torch.bfloat16}
    assert all(operand.float().std() > 0.5 for operand in operands)
