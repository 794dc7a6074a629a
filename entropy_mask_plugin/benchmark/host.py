"""Stage `host`: host overhead of an update, whatever the device: with layers of width 1 per head, little else is left.

A small model on a fast GPU is bound by this time. It can be measured on a CPU, since hardly anything is computed.
"""

import collections
import contextlib
import os
import shutil
import statistics
import tempfile
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import data, measure, variants
from .results import record

SYMBOLS, BLOCK_LENGTH, SENTENCES = 200, 8, 2
HOST_VARIANTS = ("random", "self")
NO_WORK = {"detach", "_unsafe_view", "lift_fresh", "_record_function_enter_new", "_record_function_exit", "empty_like",
           "empty", "empty_strided", "new_empty", "_reshape_alias"}


class Operations(TorchDispatchMode):
    """Counts the operations that do work, which excludes views and empty tensors; numbers: {name: count}."""

    def __init__(self):
        super().__init__()
        self.numbers = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.numbers[function.overloadpacket.__name__] += does_work(function)
        return function(*args, **(kwargs or {}))


def does_work(function):
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
    return not is_view and function.overloadpacket.__name__ not in NO_WORK


@contextlib.contextmanager
def entropies_as_on_a_gpu():
    """Score as on a GPU, whatever the machine, so that the figures of several machines compare."""
    with mock.patch("entropy_mask_plugin.scoring.scorer.bf16_pays", return_value=True), mock.patch(
            "entropy_mask_plugin.masking.devices.syncs_are_expensive", return_value=True):
        yield


def build_host_variant(arch, name, precision, folder):
    width = str(variants.ARCH_SIZES[arch][3])  # one dimension per head
    setting = variants.Setting(folder, arch, BLOCK_LENGTH, SENTENCES, precision, cpu=True)
    return variants.WithFairseq(setting.ours(*variants.OURS[name], "--encoder-embed-dim", width,
                                             "--encoder-ffn-embed-dim", width))


def run(options):
    torch.set_num_threads(1)  # more would have nothing to do, and would wait for each other on a busy machine
    folder = tempfile.mkdtemp(prefix="host-")
    steps = 3 if options.tiny else 200
    try:
        with mock.patch.object(data, "VOCABULARY", SYMBOLS), entropies_as_on_a_gpu():
            data.write_data_bin(os.path.join(folder, "bin"), (2 * steps + 40) * BLOCK_LENGTH * SENTENCES)
            for arch in options.archs:
                for precision in ("fp32", "bf16"):
                    for name in HOST_VARIANTS:
                        record("host", arch=arch, precision=precision, variant=name,
                               **step_cost(build_host_variant(arch, name, precision, folder), steps))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def step_cost(variant, steps):
    """Median and minimum time of a step in ms, and its number of operations. The log is read once every ten steps."""
    measure.seconds(variant.step, measure.WARM_UP, False)
    times = [1e3 * measure.seconds(variant.step, min(10, steps), False) for _ in range(-(-steps // 10))]
    with Operations() as operations:
        variant.step()
    return {"ms": statistics.median(times), "lowest_ms": min(times), "operations": operations.numbers.total()}
