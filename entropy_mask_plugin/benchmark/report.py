"""What was measured, as Markdown, JSON and a picture."""

import json
import os
import platform
import statistics

import torch
from tabulate import tabulate

from ..reporting.figures import pyplot, save
from ..system.atomic_files import write_text
from ..system.machine import cpu_name
from .variants import RANDOM

PANELS_IN_A_ROW = 4
ABOUT_FAIRSEQ = ("fairseq-train has no bf16 of its own: where the others train in bf16, `fairseq roberta` trains with "
                 "--amp (fp16) on a GPU and in fp32 on a CPU.")


def rows_of(setting, times, memory):
    """List of dicts, one for each variant. Ratios are to `random`, the median over the rounds of ratios in a round."""
    rows = []
    for name, found in times.items():
        ratios = [time / base for time, base in zip(found, times[RANDOM])]
        rows.append({"setting": setting.title, "variant": name, "ms per step": 1e3 * statistics.median(found),
                     "tokens/s": setting.tokens / statistics.median(found), "ratio": statistics.median(ratios),
                     "lowest ratio": min(ratios), "highest ratio": max(ratios), "peak memory (MB)": memory.get(name)})
    return rows


def machine():
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return f"{name}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"


def markdown(found):
    parts = [f"On {found['machine']}. Ratio: time of a step over that of `{RANDOM}` in the same round, median (lowest "
             "to highest)."]
    if any(block["title"].endswith("bf16") for block in found["settings"]):
        parts.append(ABOUT_FAIRSEQ)
    for block in found["settings"]:
        header = ["variant", "ms per step", "tokens/s", "ratio", "peak memory (MB)"]
        table = [[row["variant"], f"{row['ms per step']:,.0f}", f"{row['tokens/s']:,.0f}",
                  f"{row['ratio']:.2f} ({row['lowest ratio']:.2f} to {row['highest ratio']:.2f})",
                  "" if row["peak memory (MB)"] is None else f"{row['peak memory (MB)']:,.0f}"]
                 for row in block["rows"]]
        before, after = block["GEMM rate (GFLOP/s), before and after"]
        parts += [f"**{block['title']}** ({block['rounds']} rounds; matrix products {before:,.0f} GFLOP/s before, "
                  f"{after:,.0f} after)", tabulate(table, header, tablefmt="github", disable_numparse=True)]
        parts.append("; ".join(f"{name}: {said(value)}" for name, value in block["entropies"].items()) + ".")
    return "\n\n".join(parts) + "\n"


def said(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def draw(found, path):
    """Bars: the ratio of each variant, with its spread, a panel for each setting."""
    blocks = found["settings"]
    columns = min(PANELS_IN_A_ROW, len(blocks))
    lines = -(-len(blocks) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(1.5 + 3.4 * columns, 3.2 * lines), layout="constrained",
                                   sharey=True, squeeze=False)
    for axis in axes.flat[len(blocks):]:
        axis.set_axis_off()
    for axis, block in zip(axes.flat, blocks):
        rows = block["rows"][::-1]
        ratios = [row["ratio"] for row in rows]
        spread = [[row["ratio"] - row["lowest ratio"] for row in rows],
                  [row["highest ratio"] - row["ratio"] for row in rows]]
        axis.barh([row["variant"] for row in rows], ratios, xerr=spread, color="C0", ecolor="black", capsize=2)
        axis.axvline(1.0, color="grey", linestyle="--", linewidth=1)
        axis.set(title=block["title"], xlabel="time of a step, random masks = 1")
        axis.title.set_fontsize(9)
    save(figure, path)


def write_report(found, out):
    os.makedirs(out, exist_ok=True)
    for name, content in (("benchmark.md", markdown(found)), ("benchmark.json", json.dumps(found, indent=2) + "\n")):
        write_text(os.path.join(out, name), content)
    draw(found, os.path.join(out, "benchmark.png"))
