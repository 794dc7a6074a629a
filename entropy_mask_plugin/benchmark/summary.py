"""The decisive results of results.jsonl as short tables, printed last: the end of the output is read first."""

import os
from typing import Any, Dict, Iterator, List, Sequence, Tuple, Union

from ..reporting.table import Table
from ..system.atomic_files import write_text
from .results import read

N_LONGEST_SHOWN = 12  # kernels
Figure = Dict[str, Any]  # a line of results.jsonl
Column = Union[str, Tuple[str, str]]  # key, or key and format


def write_summary(folder: str) -> None:
    """Write summary.md, and print it."""
    text = summary_markdown(read(folder))
    write_text(os.path.join(folder, "summary.md"), text)
    print(text)


def summary_markdown(figures: Sequence[Figure]) -> str:
    parts = [sanity(of_kind(figures, "sanity")), *tables(figures), prototypes(of_kind(figures, "prototype")),
             failures(figures)]
    return "\n\n".join(part for part in parts if part) + "\n"


def of_kind(figures: Sequence[Figure], kind: str) -> List[Figure]:
    return [figure for figure in figures if figure["kind"] == kind]


def sanity(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    bad = [figure for figure in figures if figure.get("verdict") != "PASS"]
    lines = [f"- {figure['way']}, {figure['precision']}: {in_one_line(figure)}" for figure in bad]
    return "\n".join([f"**sanity**: {len(figures) - len(bad)} of {len(figures)} pass", *lines])


COLUMNS = {  # of the other tables: {kind: {header: key, or key and format}}
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


def tables(figures: Sequence[Figure]) -> Iterator[str]:
    for kind, columns in COLUMNS.items():
        good = [figure for figure in of_kind(figures, kind) if "failed" not in figure]
        if good:
            yield figure_table(kind, columns, good).markdown()
    for figure in (figure for figure in of_kind(figures, "kernel_times") if "longest" in figure):
        rows = [[f"{kernel['ms']:.3f}", f"{kernel['times']:.1f}", kernel["name"]]
                for kernel in figure["longest"][:N_LONGEST_SHOWN]]
        yield Table(f"longest kernels, {figure['arch']}, {figure['variant']}", ["ms a step", "times", "kernel"],
                    rows).markdown()


def figure_table(title: str, columns: Dict[str, Column], figures: Sequence[Figure]) -> Table:
    rows = [[text_of(figure, column) for column in columns.values()] for figure in figures]
    return Table(title, list(columns), rows)


def text_of(figure: Figure, column: Column) -> str:
    key, form = column if isinstance(column, tuple) else (column, "")
    value = figure.get(key)
    return "" if value is None else format(value, form) if form else str(value)


def prototypes(figures: Sequence[Figure]) -> str:
    good = [figure for figure in figures if "failed" not in figure]
    columns = {"arch": "arch", "variant": "variant", "prototype": "prototype", "ms": ("ms", ".2f"),
               "times faster": ("times_faster", ".2f"), "in all": ("times_faster_in_all", ".2f"),
               "MFU": ("mfu", ".0%"), "loss differs": ("loss_differs", ".0e")}
    return figure_table("prototypes, each on top of those above it", columns, good).markdown() if good else ""


def failures(figures: Sequence[Figure]) -> str:
    lines = [f"- {figure['kind']}: {in_one_line(figure)}" for figure in figures if "failed" in figure]
    return "\n".join(["**failed**", *lines]) if lines else ""


def in_one_line(figure: Figure) -> str:
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in figure.items() if name != "kind")
