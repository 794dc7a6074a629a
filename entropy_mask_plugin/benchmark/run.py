"""Runs all settings of a benchmark one after the other and updates the report after each."""

import os
import shutil
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional

import torch

from ..system.errors import require
from . import data, measure, report
from .variants import ALL_VARIANTS, ARCH_SIZES, DEFAULT_VARIANTS, RANDOM, Setting, build_variant

RESERVE_BATCHES = 24  # batches beyond those needed, so that no new epoch begins and starts new data workers


class BenchmarkOptions(NamedTuple):
    """The flags of `entropy-mask benchmark`, with the defaults filled in."""

    archs: List[str]
    lengths: List[int]
    precisions: List[str]
    variants: List[str]
    batch_tokens: int
    rounds: int
    steps: int
    memory: bool
    cpu: bool
    out: str


def benchmark(options: BenchmarkOptions) -> str:
    """Write benchmark.md, .json and .png to `options.out`. Returns the Markdown.

    Raises:
        UsageError: names the first flag out of its range.
    """
    for flag, values, choices in (("--archs", options.archs, ARCH_SIZES),
                                  ("--variants", options.variants, ALL_VARIANTS)):
        for value in values:
            require(flag, value, value in choices, "some of " + ", ".join(choices))
    require("--variants", ", ".join(options.variants), RANDOM in options.variants,
            f"{RANDOM} among them: the others are compared with it")
    for flag, values, least, most in (("--lengths", options.lengths, 8, 512), ("--rounds", [options.rounds], 1, 1000),
                                      ("--steps", [options.steps], 1, 1000),
                                      ("--batch-tokens", [options.batch_tokens], 1, 1 << 20)):
        for value in values:
            require(flag, value, least <= value <= most, f"{least} to {most:,}")
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        batches = measure.WARM_UP + options.rounds * options.steps + RESERVE_BATCHES
        data.write_data_bin(os.path.join(folder, "bin"), batches * options.batch_tokens)
        results = {"machine": report.describe_runtime(), "settings": []}
        for arch in options.archs:
            for length in options.lengths:
                for precision in options.precisions:
                    sentences = max(1, options.batch_tokens // length)
                    setting = Setting(folder, arch, length, sentences, precision, options.cpu)
                    results["settings"].append(measure_setting(setting, options))
                    text = report.write_report(results, options.out)
        return text
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_setting(setting: Setting, options: BenchmarkOptions) -> Dict[str, Any]:
    """Measure one setting: an element of "settings" in benchmark.json."""
    teacher = os.path.join(setting.folder, f"{setting.arch}.pt")
    if not os.path.exists(teacher):
        data.write_teacher(teacher, setting.ours("--mask-strategy", "random"))
    before = measure.gemm_rate(setting)
    times = measure.rounds(setting, options.variants, options.rounds, options.steps)
    after = measure.gemm_rate(setting)
    peaks = {name: measure.peak_step_bytes(setting, name) for name in options.variants} if options.memory else {}
    return {"title": setting.title, "rounds": options.rounds,
            "variants": report.variant_records(setting, times, peaks), "seconds_by_round": times,
            "gemm_gflop_per_second": [before, after],  # before the rounds and after them
            "entropies": entropy_accuracy(setting)}


def entropy_accuracy(setting: Setting) -> Dict[str, Any]:
    """`measure.accuracy_of_entropies` of a sharpened model on a batch of its training data."""
    trainer = build_variant(RANDOM, setting).trainer
    task, model = trainer.task, trainer.model.eval()
    samples = task.datasets["train"]
    batch = samples.collater([samples[i] for i in range(min(8, setting.sentences))])
    tokens = batch["net_input"]["src_tokens"].to(next(model.parameters()).device)
    return measure.accuracy_of_entropies(model, tokens, batch["maskable"].to(tokens.device))


def with_defaults(quick: bool, archs: Optional[List[str]], lengths: Optional[List[int]],
                  precisions: Optional[List[str]], variants: Optional[List[str]], batch_tokens: Optional[int],
                  rounds: Optional[int], steps: Optional[int], memory: bool, cpu: bool, out: str) -> BenchmarkOptions:
    """The options, with the defaults of a quick or a full benchmark where a flag is None."""
    cpu = cpu or not torch.cuda.is_available()
    return BenchmarkOptions(
        archs or (["bertlet"] if quick else ["bertlet", "bert_base"]),
        lengths or ([128] if quick else [128, 512]), precisions or (["fp32"] if quick else ["fp32", "bf16"]),
        variants or list(DEFAULT_VARIANTS), given(batch_tokens, 1024 if cpu else 32768),
        given(rounds, 3 if quick else 7), given(steps, 1 if cpu else 20), memory and not quick, cpu, out,
    )


def given(value: Optional[int], default: int) -> int:
    """The value, unless it is None."""
    return default if value is None else value
