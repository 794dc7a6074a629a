"""How long something takes, on the device or the host."""

import statistics
import time

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"


def wait():
    if ON_GPU:
        torch.cuda.synchronize()


def device_ms(function, repeats=15, warm_up=3):
    """Milliseconds of one call on the device, the median: by events where there is a GPU."""
    for _ in range(warm_up):
        function()
    wait()
    return statistics.median(by_events(function) if ON_GPU else by_clock(function) for _ in range(repeats))


def by_events(function):
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
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
    """Milliseconds until one call returns, the device idle before it: what the host pays, waits included."""
    times = []
    for _ in range(repeats + warm_up):
        wait()
        times.append(by_clock(function))
    wait()
    return statistics.median(times[warm_up:])


def matmul_rate(size):
    """FLOP/s of a large bf16 matrix product, of random numbers: of equal ones, a GPU makes more."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2e3 * size**3 / device_ms(lambda: a @ b)
