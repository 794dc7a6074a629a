"""Time and memory of self-attention and additive attention over the length of a sentence, at a fixed number of tokens.

Each is measured in a separate process, since peak memory never falls.
"""

import json
import os
import statistics
import time
from typing import Any, Dict, Sequence

import torch
from tqdm import tqdm

from ..models.mixers import MIXERS
from ..reporting.figures import pyplot, save
from ..reporting.table import Table
from ..system.atomic_files import write_text
from ..system.errors import require
from ..system.machine import memory_bytes, peak_memory_bytes
from .measure import output_of_process
from .report import describe_runtime

HEAD_WIDTH = 64


def measure(mixer: str, length: int, width: int, tokens: int, steps: int, cuda: bool) -> Dict[str, float]:
    """{"ms": median of a forward and backward pass, "extra_memory_bytes": peak memory beyond the input}."""
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(1)
    module = MIXERS[mixer].fn(width, width // HEAD_WIDTH, 0.0).to(device)
    x = torch.randn(max(1, tokens // length), length, width, device=device, requires_grad=True)
    before, times = (torch.cuda.memory_allocated() if cuda else peak_memory_bytes()), []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        module(x, None).sum().backward()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        x.grad = None
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory_bytes()
    return {"ms": 1e3 * statistics.median(times[1:]), "extra_memory_bytes": peak - before}


def in_own_process(**arguments):
    code = ("from entropy_mask_plugin.benchmark.mixers import measure; "
            "print(json.dumps(measure(**json.loads(sys.argv[1]))))")
    return json.loads(output_of_process(code, **arguments).splitlines()[-1])


def benchmark_mixers(lengths: Sequence[int], width: int, tokens: int, steps: int, cpu: bool, out: str) -> str:
    """Write mixers.md, .json and .png to `out`. Returns the Markdown.

    Raises:
        UsageError: names the first flag out of its range.
    """
    require("--width", width, HEAD_WIDTH <= width <= 16_384 and width % HEAD_WIDTH == 0,
            f"a multiple of {HEAD_WIDTH}, at most 16,384")
    require("--steps", steps, 1 <= steps <= 1000, "1 to 1,000")
    require("--tokens", f"{tokens} of --width {width}", 4 * tokens * width < memory_bytes(),
            "fewer numbers than this machine's memory holds")
    require("--lengths", ", ".join(map(str, lengths)), all(1 <= length <= tokens for length in lengths),
            f"numbers from 1 to --tokens ({tokens})")
    cuda = torch.cuda.is_available() and not cpu
    records = [{"mixer": mixer, "length": length,
                **in_own_process(mixer=mixer, length=length, width=width, tokens=tokens, steps=steps, cuda=cuda)}
            for length in tqdm(lengths) for mixer in MIXERS]
    results = {"machine": describe_runtime(), "width": width, "tokens": tokens, "records": records}
    text = mixers_markdown(results)
    os.makedirs(out, exist_ok=True)
    for name, content in (("mixers.md", text), ("mixers.json", json.dumps(results, indent=2) + "\n")):
        write_text(os.path.join(out, name), content)
    draw_mixers(results, os.path.join(out, "mixers.png"))
    return text


def mixers_markdown(results: Dict[str, Any]) -> str:
    """results: as in mixers.json."""
    of = {(record["mixer"], record["length"]): record for record in results["records"]}
    lengths = sorted({length for _, length in of})
    header = ["T", *(f"{mixer}, {unit}" for unit in ("ms", "MB") for mixer in MIXERS)]
    rows = [[f"{length:,}", *(f"{of[mixer, length]['ms']:,.0f}" for mixer in MIXERS),
             *(f"{of[mixer, length]['extra_memory_bytes'] / 2**20:,.0f}" for mixer in MIXERS)] for length in lengths]
    return (f"On {results['machine']}: one mixer of width {results['width']}, forward and backward, "
            f"{results['tokens']:,} tokens in sentences of T.\n\n{Table('', header, rows).markdown()}\n")


def draw_mixers(results: Dict[str, Any], path: str) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    panels = (("ms", 1, "ms, forward and backward"), ("extra_memory_bytes", 2**20, "MB beyond the input"))
    for axis, (key, unit, label) in zip(axes, panels):
        for mixer in MIXERS:
            records = sorted((record for record in results["records"] if record["mixer"] == mixer),
                             key=lambda record: record["length"])
            axis.plot([record["length"] for record in records], [record[key] / unit for record in records],
                      marker="o", label=mixer)
        axis.set(xscale="log", xlabel="tokens of a sentence", ylabel=label, ylim=(0, None))
        axis.set_xticks([record["length"] for record in records], [str(record["length"]) for record in records])
        axis.minorticks_off()
    axes[0].legend()
    figure.suptitle(f"{results['tokens']:,} tokens, width {results['width']}", fontsize=10)
    save(figure, path)
