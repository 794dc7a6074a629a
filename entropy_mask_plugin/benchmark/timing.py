"""Measures time on the device and on the host."""

import statistics
import time

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
CYCLES_PER_MS = 2_000_000  # of a GPU's clock; an upper bound


def wait():
    if ON_GPU:
        torch.cuda.synchronize()


def device_ms(function, repeats=15, warm_up=3, device=DEVICE):
    """Median time of a call on the device in ms; by CUDA events on a GPU."""
    for _ in range(warm_up):
        function()
    if device.type != "cuda":
        return statistics.median(by_clock(function) for _ in range(repeats))
    head_start = int(CYCLES_PER_MS * (1 + host_ms(function, repeats=1, warm_up=0)))
    return statistics.median(by_events(function, head_start) for _ in range(repeats))


def by_events(function, head_start):
    """Time of a call in ms. head_start: cycles that the device is kept busy before the first event, so that all kernels
    are queued by then; otherwise, the time for launching them would be measured."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(head_start)
    first.record()
    function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def by_clock(function):
    begin = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - begin)


def host_ms(function, repeats=15, warm_up=2):
    """Median time in ms until a call returns, on an idle device: the cost on the host, waits included."""
    times = []
    for _ in range(repeats + warm_up):
        wait()
        times.append(by_clock(function))
    wait()
    return statistics.median(times[warm_up:])


def matmul_rate(size, dtype=torch.bfloat16, device=DEVICE):
    """FLOP/s of a large matrix product of random numbers; with equal numbers, a GPU draws less power and is faster."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2e3 * size**3 / device_ms(lambda: a @ b, repeats=7, warm_up=2, device=device)
