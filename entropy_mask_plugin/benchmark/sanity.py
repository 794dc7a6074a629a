"""Stage `sanity`: does a training step on the GPU compute what it computes on the CPU?

For each way to train, both run three updates without dropout and a validation, from the same weights and batches; the
CPU in fp32. Losses, accuracy, mean entropies, gradient norms and masked positions are compared: PASS or FAIL.
"""

import math
import os
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial

import numpy as np
from fairseq.logging import metrics

from ..corpus.index import write_index
from . import data, variants
from .results import attempt, read, record
from .steps import TINY
from .timing import ON_GPU

UPDATES = 3
NO_DROPOUT = ["--dropout", "0", "--attention-dropout", "0"]
RANDOM_ARGS = ["--mask-strategy", "random"]
SELF_ARGS = ["--mask-strategy", "high", "--self-mask-from-epoch", "1"]
TEACHER_ARGS = ["--mask-strategy", "high", "--teacher", "TEACHER"]
KD_ARGS = ["--teacher", "TEACHER", "--kd-weight", "0.5"]
WAYS = {  # name: (arch, flags)
    "random": ("bertlet", RANDOM_ARGS),
    "random, 80/10/10": ("bertlet", [*RANDOM_ARGS, "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"]),
    "high, teacher": ("bertlet", TEACHER_ARGS),
    "high, self": ("bertlet", SELF_ARGS),
    "high, self, exact": ("bertlet", [*SELF_ARGS, "--entropy-precision", "fp32"]),
    "high, self + KD": ("bertlet", [*SELF_ARGS, *KD_ARGS]),
    "random, KD everywhere": ("bertlet", [*RANDOM_ARGS, *KD_ARGS, "--kd-positions", "all"]),
    "high, cached": ("bertlet", [*TEACHER_ARGS, "--entropy-cache", "CACHE"]),
    "marginal, self": ("bertlet", ["--mask-strategy", "marginal", "--self-mask-from-epoch", "1"]),
    "sentences, padded": ("bertlet", [*SELF_ARGS, "--sample-break-mode", "complete"]),
    "mask later": ("bertlet_3ml", SELF_ARGS),
    "hybrid": ("hbertlet", SELF_ARGS),
    "bert_base, self": ("bert_base", SELF_ARGS),
}
COMPILED = {"random, compiled": ("bertlet", [*RANDOM_ARGS, "--compile"])}
LOSS_TOLERANCE = {"fp32": 2e-3, "bf16": 4e-2}  # of losses; of gradient norms, ten times as much
SAME_MASKS = {"fp32": 0.995, "bf16": 0.9}  # fraction, by an untrained model's entropies; random masks must all agree


def run_compiled(options):
    return run(options, COMPILED)


def run(options, ways=None):
    folder = tempfile.mkdtemp(prefix="sanity-")
    try:
        return Comparison(folder, options).run(ways or WAYS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Comparison:
    def __init__(self, folder, options):
        self.tiny, self.end = options.tiny, time.monotonic() + options.seconds
        self.length, self.sentences = (32, 4) if self.tiny else (128, 8)
        self.folder, self.uneven = folder, os.path.join(folder, "uneven")
        for place in (self.folder, self.uneven):
            os.makedirs(place, exist_ok=True)
            data.write_data_bin(os.path.join(place, "bin"), 12 * self.length * self.sentences)
        make_uneven(os.path.join(self.uneven, "bin"), self.length)

    def run(self, ways):
        results = []
        for way, (arch, flags) in ways.items():
            expected = None
            for precision in ("fp32", "bf16"):
                if time.monotonic() > self.end:
                    record("sanity", way=way, precision=precision, failed="no time left")
                    return False
                expected = expected or self.updates(arch, flags, "fp32", cpu=True)
                compare = partial(self.compare, way, arch, flags, precision, expected)
                results.append(attempt("sanity", compare, way=way, precision=precision))
        verdicts = [figure.get("verdict") for figure in read(os.environ["BENCHMARK_OUT"]) if figure["kind"] == "sanity"]
        return all(results) and "FAIL" not in verdicts[-len(results):]

    def compare(self, way, arch, flags, precision, expected):
        return verdict(way, precision, expected, self.updates(arch, flags, precision, cpu=not ON_GPU))

    def updates(self, arch, flags, precision, cpu):
        """Train. Returns the logged values of each update, {name: value}, and its masked positions, B x T bool."""
        folder = self.uneven if "complete" in flags else self.folder
        setting = variants.Setting(folder, arch, self.length, self.sentences, precision, cpu, self.sizes(arch), 0)
        teacher = os.path.join(folder, f"{arch}.pt")
        if "TEACHER" in flags and not os.path.exists(teacher):
            data.write_teacher(teacher, replace(setting, precision="fp32", cpu=True).ours(*RANDOM_ARGS))
        if cpu:
            flags = [flag for flag in flags if flag != "--compile"]
        return some_updates(setting.ours(*flags, *NO_DROPOUT))

    def sizes(self, arch):
        pattern = ["--mixer-pattern", "self,additive"] if arch == "hbertlet" else []
        return [*TINY, *pattern] if self.tiny else []


def some_updates(args):
    metrics.reset()
    variant = variants.WithFairseq(args)
    trainer, masks, log = variant.trainer, [], []
    mask = trainer.task.mask
    trainer.task.mask = lambda *batch: record_selection(mask(*batch), masks)
    for _ in range(UPDATES):
        trainer.train_step(next(variant.batches))
        log.append(latest_values())
    log[-1]["valid_loss"] = float(trainer.valid_step(next(variant.batches)[0])["loss"])
    return log, masks


def record_selection(masked, masks):
    masks.append(masked[0]["selected"].mask.cpu())
    return masked


def latest_values():
    """{name: value} of the last update."""
    meters = metrics.get_meters("train")
    return {name: float(meters[name].val) for name in ("loss", "accuracy", "entropy", "entropy_masked", "kd_loss",
                                                       "gnorm") if name in meters}


def verdict(way, precision, expected, actual):
    (log, masks), (expected_log, expected_masks) = actual, expected
    different = largest_differences(expected_log, log)
    same = sum(int((a & b).sum()) for a, b in zip(masks, expected_masks, strict=True)) / sum(
        int(b.sum()) for b in expected_masks)
    limit = LOSS_TOLERANCE[precision]
    good = same == 1 if way.startswith("random") else same >= SAME_MASKS[precision]
    good &= all(value <= limit * (10 if name == "gnorm" else 1) for name, value in different.items())
    return {"verdict": "PASS" if good else "FAIL", "loss": log[0]["loss"], "expected_loss": expected_log[0]["loss"],
            "same_masks": same, **{f"{name}_differs": value for name, value in sorted(different.items())}}


def largest_differences(expected, actual):
    """The largest relative difference of each value over the updates; infinity for a value that is nan or that only one
    of the two has."""
    largest = {}
    for one, other in zip(expected, actual, strict=True):
        for name in one.keys() | other.keys():
            a, b = one.get(name, math.inf), other.get(name, math.inf)
            difference = abs(a - b) / max(abs(a), 0.5)
            largest[name] = max(largest.get(name, 0.0), difference if math.isfinite(difference) else math.inf)
    return largest


def make_uneven(folder, length):
    """Split the text into lines of 4 to T - 2 tokens, so that batches of complete sentences have padding."""
    draw = np.random.default_rng(3)
    for split in ("train", "valid"):
        left, sizes = os.path.getsize(os.path.join(folder, f"{split}.bin")) // 2, []
        while left:
            sizes.append(min(left, int(draw.integers(4, length - 1))))
            left -= sizes[-1]
        write_index(os.path.join(folder, f"{split}.idx"), np.array(sizes, np.int32), 2)
