"""Time and memory of self-attention and additive attention over the length of a sentence, for as many tokens in all.

Each is measured in a process of its own, as a peak of memory never falls.
"""

import json
import os
import statistics
import time

import torch
from tabulate import tabulate
from tqdm import tqdm

from ..models.mixers import MIXERS
from ..reporting.figures import pyplot, save
from ..system.atomic_files import write_text
from ..system.errors import require
from ..system.machine import peak_memory_bytes
from .measure import output_of_process
from .report import machine

HEAD_WIDTH = 64


def measure(mixer, length, width, tokens, steps, cuda):
    """{"ms": median of a forward and backward pass, "MB": what it needs beyond its input}."""
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(1)
    module = MIXERS[mixer].fn(width, width // HEAD_WIDTH, 0.0).to(device)
    x = torch.randn(max(1, tokens // length), length, width, device=device, requires_grad=True)
    before, times = (torch.cuda.memory_allocated() / 2**20 if cuda else peak_memory_bytes() / 2**20), []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        module(x, None).sum().backward()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        x.grad = None
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_memory_bytes() / 2**20
    return {"ms": 1e3 * statistics.median(times[1:]), "MB": peak - before}


def in_own_process(**arguments):
    code = ("from entropy_mask_plugin.benchmark.mixers import measure; "
            "print(json.dumps(measure(**json.loads(sys.argv[1]))))")
    return json.loads(output_of_process(code, **arguments).splitlines()[-1])


def benchmark(lengths, width, tokens, steps, cpu, out):
    """Leave mixers.md, .json and .png in `out`; returns the Markdown."""
    require("--width", width, width >= HEAD_WIDTH and width % HEAD_WIDTH == 0, f"a multiple of {HEAD_WIDTH}")
    require("--lengths", ", ".join(map(str, lengths)), all(1 <= length <= tokens for length in lengths),
            f"numbers from 1 to --tokens ({tokens})")
    cuda = torch.cuda.is_available() and not cpu
    rows = [{"mixer": mixer, "length": length,
             **in_own_process(mixer=mixer, length=length, width=width, tokens=tokens, steps=steps, cuda=cuda)}
            for length in tqdm(lengths) for mixer in MIXERS]
    found = {"machine": machine(), "width": width, "tokens": tokens, "rows": rows}
    text = markdown(found)
    os.makedirs(out, exist_ok=True)
    for name, content in (("mixers.md", text), ("mixers.json", json.dumps(found, indent=2) + "\n")):
        write_text(os.path.join(out, name), content)
    draw(found, os.path.join(out, "mixers.png"))
    return text


def markdown(found):
    of = {(row["mixer"], row["length"]): row for row in found["rows"]}
    lengths = sorted({length for _, length in of})
    header = ["T", *(f"{mixer}, {unit}" for unit in ("ms", "MB") for mixer in MIXERS)]
    table = [[f"{length:,}", *(f"{of[mixer, length][unit]:,.0f}" for unit in ("ms", "MB") for mixer in MIXERS)]
             for length in lengths]
    return (f"On {found['machine']}: one mixer of width {found['width']}, forward and backward, {found['tokens']:,} "
            "tokens in sentences of T.\n\n" + tabulate(table, header, tablefmt="github", disable_numparse=True) + "\n")


def draw(found, path):
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, unit, label in zip(axes, ("ms", "MB"), ("ms, forward and backward", "MB beyond the input")):
        for mixer in MIXERS:
            rows = sorted((row for row in found["rows"] if row["mixer"] == mixer), key=lambda row: row["length"])
            axis.plot([row["length"] for row in rows], [row[unit] for row in rows], marker="o", label=mixer)
        axis.set(xscale="log", xlabel="tokens of a sentence", ylabel=label, ylim=(0, None))
        axis.set_xticks([row["length"] for row in rows], [str(row["length"]) for row in rows])
        axis.minorticks_off()
    axes[0].legend()
    figure.suptitle(f"{found['tokens']:,} tokens, width {found['width']}", fontsize=10)
    save(figure, path)
