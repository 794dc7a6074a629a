"""Rounds in rotating order, so that other load on the machine affects all variants alike; ratios are within a round."""

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence

import torch
from fairseq.logging import metrics
from tqdm import tqdm

from ..masking.refinement import refine_near_cut
from ..masking.scores.entropy import bf16_pays, projected_entropy
from ..masking.take import number_to_mask, take
from ..system.machine import peak_memory_bytes
from .timing import matmul_rate
from .variants import Setting, build_variant

WARM_UP = 3


def seconds(step: Callable[[], None], steps: int, cuda: bool) -> float:
    """Mean time of a step over several, including one reading of the log at the end."""
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    metrics.get_meter("train", "loss")
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps


def rounds(setting: Setting, names: Sequence[str], number: int, steps: int) -> Dict[str, List[float]]:
    """{name: seconds of a step in each round}."""
    cuda = not setting.cpu
    built = {name: build_variant(name, setting) for name in tqdm(names, desc=f"{setting.title}: building")}
    for name in tqdm(names, desc="warming up"):
        seconds(built[name].step, WARM_UP, cuda)
    times = {name: [] for name in names}
    for order in tqdm(rotations(names, number), desc="rounds", total=number):
        for name in order:
            times[name].append(seconds(built[name].step, steps, cuda))
    built.clear()
    give_memory_back()
    return times


def rotations(names: Sequence[str], number: int) -> Iterator[List[str]]:
    """Yield an order of the names for each round, so that each is measured at every place."""
    for first in range(number):
        shift = first % len(names)
        yield [*names[shift:], *names[:shift]]


def give_memory_back() -> None:
    """Release the models of a setting before the next one's are built: trainers are in reference cycles, and the C
    library keeps freed memory."""
    metrics.reset()  # unread metrics keep their trainer alive
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def gemm_rate(setting: Setting) -> float:
    """GFLOP/s of a large matrix product in the setting's precision."""
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    return 1e-9 * matmul_rate(2048 if setting.cpu else 8192, dtype, torch.device("cpu" if setting.cpu else "cuda"))


def output_of_process(code: str, **arguments: Any) -> str:
    """The output of code in a new Python process, with the plug-in registered and the arguments as JSON in
    sys.argv[1].

    Raises:
        RuntimeError: the process failed; with the end of its stderr.
    """
    registered = f"import json, sys; from entropy_mask_plugin import register; register(); {code}"
    command = [sys.executable, "-c", registered, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def peak_step_bytes(setting: Setting, name: str) -> float:
    """Peak memory of two steps of a variant, in bytes; in a separate process, since a peak never falls."""
    code = "from entropy_mask_plugin.benchmark.measure import print_peak; print_peak(sys.argv[1])"
    return float(output_of_process(code, name=name, **vars(setting)).split()[-1])


def print_peak(arguments: str) -> None:
    """Print the peak memory in bytes, of the GPU or, on a CPU, of the process. arguments: JSON of `peak_step_bytes`."""
    arguments = json.loads(arguments)
    name = arguments.pop("name")
    setting = Setting(**arguments)
    variant = build_variant(name, setting)
    with peak_is_kept():
        for _ in range(2):
            variant.step()
    print(peak_memory_bytes() if setting.cpu else torch.cuda.max_memory_allocated())


@contextlib.contextmanager
def peak_is_kept():
    """Within this context, the GPU's peak is not reset. fairseq's trainer resets it in every update, so that otherwise
    only the end of a step would be measured."""
    reset = torch.cuda.reset_peak_memory_stats
    torch.cuda.reset_peak_memory_stats = lambda *arguments, **named: None
    try:
        yield
    finally:
        torch.cuda.reset_peak_memory_stats = reset


def accuracy_of_entropies(model: Any, tokens: torch.Tensor, maskable: torch.Tensor) -> Dict[str, Any]:
    """How far the entropies are from float64, and how many masked positions agree with the reference.

    Args:
        model: in eval mode.
        tokens: B x T int64.
        maskable: B x T bool.
    """
    with torch.no_grad():
        hidden = model.lm_hidden(tokens).float()
        weight, bias = model.output_projection()
        reference = projected_entropy(hidden, weight, bias)
        few = hidden.flatten(0, 1)[:256]
        exact = torch.special.entr((few.double() @ weight.double().T + bias.double()).softmax(-1)).sum(-1)
        choose = lambda scores: take(scores, maskable, number_to_mask(maskable.sum(1), 0.15))  # noqa: E731
        cheap = projected_entropy(hidden, weight, bias, torch.bfloat16)
        with torch.autocast(tokens.device.type, torch.bfloat16):
            cheapest = projected_entropy(model.lm_hidden(tokens), weight, bias, torch.bfloat16)
        recomputed = []

        def exact_at(at):
            recomputed.append(int(at.sum()))
            return projected_entropy(hidden[at], weight, bias)

        scores = refine_near_cut(cheap, maskable, choose, exact_at)
        selected = choose(reference)
        same = lambda scores: float((choose(scores) & selected).sum() / selected.sum())  # noqa: E731
        return {
            "fp32_largest_error_nats": float((reference.flatten()[:256] - exact).abs().max()),
            "bf16_product_largest_error_nats": float((cheap - reference)[maskable].abs().max()),
            "std_nats": float(reference[maskable].std()),
            "all_bf16_same_fraction": same(cheapest),
            "bf16_product_same_fraction": same(cheap),
            "refined_same_fraction": same(scores),
            "recomputed_fraction": sum(recomputed) / int(maskable.sum()),
            "bf16_pays": bf16_pays(tokens.device),
        }
