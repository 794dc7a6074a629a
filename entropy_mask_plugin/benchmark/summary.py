"""The figures of results.jsonl that decide something, as short tables: the end of the output is what is read first."""

import os

from tabulate import tabulate

from ..system.atomic_files import write_text
from .results import read

LONGEST = 12  # kernels shown


def write(folder):
    """Leave summary.md, and print it."""
    text = markdown(read(folder))
    write_text(os.path.join(folder, "summary.md"), text)
    print(text)


def markdown(figures):
    of = lambda kind: [figure for figure in figures if figure["kind"] == kind]  # noqa: E731
    parts = [sanity(of("sanity")), *tables(of), prototypes(of("prototype")), failures(figures)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sanity(figures):
    if not figures:
        return ""
    bad = [figure for figure in figures if figure.get("verdict") != "PASS"]
    lines = [f"- {figure['way']}, {figure['precision']}: {shown(figure)}" for figure in bad]
    return "\n".join([f"**sanity**: {len(figures) - len(bad)} of {len(figures)} pass", *lines])


COLUMNS = {  # of the other tables: header -> key and format
    "machine": {name: name for name in ("device", "cores", "driver", "cuda", "python", "torch", "triton", "fairseq")},
    "step": {"arch": "arch", "variant": "variant", "ms": ("ms", ".2f"), "tokens/s": ("tokens_per_second", ",.0f"),
             "ratio": ("ratio", ".2f"), "MFU": ("mfu", ".0%"), "of datasheet": ("mfu_of_datasheet", ".0%")},
    "waits": {"arch": "arch", "variant": "variant", "waits a step": "number", "lines": "lines"},
    "kernel_times": {"arch": "arch", "variant": "variant", "device ms": ("device_ms", ".2f"),
                     "launches": ("launches", ".0f")},
    "host": {"arch": "arch", "precision": "precision", "variant": "variant", "ms": ("ms", ".2f"),
             "lowest ms": ("lowest_ms", ".2f"), "operations": "operations"},
    "entropy": {"form": "form", "C": "width", "type": "type", "ms": ("ms", ".2f"),
                "FLOP/s": ("flop_per_second", ".3g"), "largest error (nats)": ("largest_error_nats", ".1e")},
    "cross_entropy": {"form": "form", "stride": "stride", "ms": ("ms", ".3f")},
    "distillation": {"temperature": "temperature", "ms": ("ms", ".3f"), "package, ms": ("package_ms", ".3f")},
    "head": {"C": "width", "columns": "columns", "forward ms": ("forward_ms", ".3f"),
             "input gradient ms": ("input_gradient_ms", ".3f"), "weight gradient ms": ("weight_gradient_ms", ".3f")},
    "masks": {"way": "way", "masked": "masked", "high": ("high_same", ".2%"), "low": ("low_same", ".2%"),
              "mid": ("mid_same", ".2%"), "marginal": ("marginal_same", ".2%")},
    "compile": {"kernel": "kernel", "GPU": "gpu", "warps": "warps", "stages": "stages", "registers": "registers",
                "shared memory (bytes)": "shared_memory_bytes", "spills": "spills"},
}


def tables(of):
    for kind, columns in COLUMNS.items():
        figures = [figure for figure in of(kind) if "failed" not in figure]
        if figures:
            yield f"**{kind}**\n\n" + table(columns, figures)
    for figure in (figure for figure in of("kernel_times") if "longest" in figure):
        rows = [[f"{kernel['ms']:.3f}", f"{kernel['times']:.1f}", kernel["name"]]
                for kernel in figure["longest"][:LONGEST]]
        yield f"**longest kernels, {figure['arch']}, {figure['variant']}**\n\n" + tabulate(
            rows, ["ms a step", "times", "kernel"], tablefmt="github", disable_numparse=True)


def table(columns, figures):
    rows = [[cell(figure, column) for column in columns.values()] for figure in figures]
    return tabulate(rows, list(columns), tablefmt="github", disable_numparse=True)


def cell(figure, column):
    key, form = column if isinstance(column, tuple) else (column, "")
    value = figure.get(key)
    return "" if value is None else format(value, form) if form else str(value)


def prototypes(figures):
    good = [figure for figure in figures if "failed" not in figure]
    columns = {"arch": "arch", "variant": "variant", "prototype": "prototype", "ms": ("ms", ".2f"),
               "times faster": ("times_faster", ".2f"), "in all": ("times_faster_in_all", ".2f"),
               "MFU": ("mfu", ".0%"), "loss differs": ("loss_differs", ".0e")}
    return "**prototypes**, each on top of those above it\n\n" + table(columns, good) if good else ""


def failures(figures):
    lines = [f"- {figure['kind']}: {shown(figure)}" for figure in figures if "failed" in figure]
    return "\n".join(["**failed**", *lines]) if lines else ""


def shown(figure):
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in figure.items() if name != "kind")
