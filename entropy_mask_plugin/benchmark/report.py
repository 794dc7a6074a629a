"""The results as Markdown, JSON and a plot."""

import json
import os
import platform
import statistics
from typing import Any, Dict, List, Sequence

import torch

from ..reporting.figures import pyplot, save
from ..reporting.table import Table
from ..system.atomic_files import write_text
from ..system.machine import cpu_name
from .variants import RANDOM, Setting

PANELS_IN_A_ROW = 4
ABOUT_FAIRSEQ = ("fairseq-train has no bf16 of its own: where the others train in bf16, `fairseq roberta` trains with "
                 "--amp (fp16) on a GPU and in fp32 on a CPU.")
ENTROPY_LABELS = {  # of the keys of `measure.accuracy_of_entropies`
    "fp32_largest_error_nats": "largest error, fp32 against float64 (nats)",
    "bf16_product_largest_error_nats": "largest error, bf16 product against fp32 (nats)",
    "std_nats": "standard deviation of the entropies (nats)",
    "all_bf16_same_fraction": "same positions, everything in bf16",
    "bf16_product_same_fraction": "same positions, bf16 product",
    "refined_same_fraction": "same positions, bf16 product refined",
    "recomputed_fraction": "positions computed again",
    "bf16_pays": "bf16 pays here",
}


def variant_records(setting: Setting, times: Dict[str, Sequence[float]],
                    peaks: Dict[str, float]) -> List[Dict[str, Any]]:
    """One dict for each variant. A ratio is the time of a step over that of `random` in the same round; the median over
    the rounds counts.

    Args:
        setting: what was measured, for the titles and the number of tokens in a batch.
        times: {variant: seconds of a step in each round}.
        peaks: {variant: peak memory of a step, in bytes}; variants may be missing.
    """
    records = []
    for name, seconds in times.items():
        ratios = [time / base for time, base in zip(seconds, times[RANDOM])]
        records.append({"setting": setting.title, "variant": name, "ms_per_step": 1e3 * statistics.median(seconds),
                        "tokens_per_second": setting.tokens / statistics.median(seconds),
                        "ratio": statistics.median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios),
                        "peak_memory_bytes": peaks.get(name)})
    return records


def describe_runtime() -> str:
    """GPU or CPU, threads, versions."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return f"{name}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"


def benchmark_markdown(results: Dict[str, Any]) -> str:
    """results: as in benchmark.json."""
    parts = [f"On {results['machine']}. Ratio: time of a step over that of `{RANDOM}` in the same round, median "
             "(lowest to highest)."]
    if any(block["title"].endswith("bf16") for block in results["settings"]):
        parts.append(ABOUT_FAIRSEQ)
    return "\n\n".join([*parts, *(setting_table(block).markdown() for block in results["settings"])]) + "\n"


def setting_table(block: Dict[str, Any]) -> Table:
    """block: one of the settings in benchmark.json."""
    rows = [[record["variant"], f"{record['ms_per_step']:,.0f}", f"{record['tokens_per_second']:,.0f}",
             f"{record['ratio']:.2f} ({record['lowest_ratio']:.2f} to {record['highest_ratio']:.2f})",
             "" if record["peak_memory_bytes"] is None else f"{record['peak_memory_bytes'] / 2**20:,.0f}"]
            for record in block["variants"]]
    before, after = block["gemm_gflop_per_second"]
    entropies = "; ".join(f"{label}: {short(block['entropies'][key])}" for key, label in ENTROPY_LABELS.items())
    return Table(block["title"], ["variant", "ms per step", "tokens/s", "ratio", "peak memory (MB)"], rows,
                 f"{block['rounds']} rounds; matrix products {before:,.0f} GFLOP/s before, {after:,.0f} after. "
                 f"{entropies}.")


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def draw_benchmark(results: Dict[str, Any], path: str) -> None:
    """Bar chart of each variant's ratio with its range, a panel for each setting."""
    blocks = results["settings"]
    columns = min(PANELS_IN_A_ROW, len(blocks))
    lines = -(-len(blocks) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(1.5 + 3.4 * columns, 3.2 * lines), layout="constrained",
                                   sharey=True, squeeze=False)
    for axis in axes.flat[len(blocks):]:
        axis.set_axis_off()
    for axis, block in zip(axes.flat, blocks):
        records = block["variants"][::-1]
        ratios = [record["ratio"] for record in records]
        spread = [[record["ratio"] - record["lowest_ratio"] for record in records],
                  [record["highest_ratio"] - record["ratio"] for record in records]]
        axis.barh([record["variant"] for record in records], ratios, xerr=spread, color="C0", ecolor="black",
                  capsize=2)
        axis.axvline(1.0, color="grey", linestyle="--", linewidth=1)
        axis.set(title=block["title"], xlabel="time of a step, random masks = 1")
        axis.title.set_fontsize(9)
    save(figure, path)


def write_report(results: Dict[str, Any], out: str) -> str:
    """Write benchmark.md, .json and .png to `out`. Returns the Markdown."""
    os.makedirs(out, exist_ok=True)
    text = benchmark_markdown(results)
    for name, content in (("benchmark.md", text), ("benchmark.json", json.dumps(results, indent=2) + "\n")):
        write_text(os.path.join(out, name), content)
    draw_benchmark(results, os.path.join(out, "benchmark.png"))
    return text
