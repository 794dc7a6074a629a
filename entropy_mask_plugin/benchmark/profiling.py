"""Where the time of a step goes: kernels by time, and the lines where the host waits for the device."""

import collections
import contextlib
import time
import warnings

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from .results import record
from .timing import ON_GPU, wait

PROFILED_STEPS, N_LONGEST_RECORDED = 3, 30


def profile(variant, name, arch):
    """Record the waits and the kernels of a step of a variant."""
    if ON_GPU:
        lines = waits(variant)
        record("waits", arch=arch, variant=name, number=sum(lines.values()), lines=dict(lines.most_common(20)))
    variant.step()
    wait()
    begin = time.perf_counter()
    with torch_profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if ON_GPU else [])]) as watch:
        for _ in range(PROFILED_STEPS):
            variant.step()
        wait()
    record("kernel_times", arch=arch, variant=name, ms=1e3 * (time.perf_counter() - begin) / PROFILED_STEPS,
           **kernel_times(watch.key_averages()))


def waits(variant):
    """{file:line: how often the host waits for the device there in one step}."""
    lines = collections.Counter()
    with synchronization_warnings() as caught:
        variant.step()
    for warning in caught:
        if "synchroniz" in str(warning.message):
            path = warning.filename.split("site-packages/")[-1].split("/")
            lines["/".join(path[-3:]) + f":{warning.lineno}"] += 1
    return lines


@contextlib.contextmanager
def synchronization_warnings():
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        torch.cuda.set_sync_debug_mode("default")


def kernel_times(averages):
    """Number of kernels per step, their total time, and those that take longest; on a CPU, of operations."""
    time_of = (lambda event: event.self_device_time_total) if ON_GPU else (lambda event: event.self_cpu_time_total)
    events = [event for event in averages if not ON_GPU or event.device_type == torch.autograd.DeviceType.CUDA
              and not getattr(event, "is_user_annotation", False)]
    events.sort(key=time_of, reverse=True)
    longest = [{"name": event.key[:110], "ms": time_of(event) / 1e3 / PROFILED_STEPS,
                "times": event.count / PROFILED_STEPS} for event in events[:N_LONGEST_RECORDED]]
    return {"device_ms": sum(map(time_of, events)) / 1e3 / PROFILED_STEPS,
            "launches": sum(event.count for event in events) / PROFILED_STEPS, "longest": longest}
