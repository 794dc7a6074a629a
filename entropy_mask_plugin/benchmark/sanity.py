"""Stage `sanity`: does a training step on the GPU compute what it computes on the CPU?

For each way to train, three updates without dropout and a validation on both, from the same weights and batches; the
CPU's are in fp32. Losses, accuracy, mean entropies, gradient norms and the masked positions are compared: PASS or FAIL.
"""

import os
import shutil
import tempfile
import time

import numpy as np
from fairseq.logging import metrics

from ..corpus.index import write_index
from . import data, variants
from .results import attempt, read, record
from .steps import TINY
from .timing import ON_GPU

UPDATES = 3
NO_DROPOUT = ["--dropout", "0", "--attention-dropout", "0"]
BY_NOISE = ["--mask-strategy", "random"]
BY_SELF = ["--mask-strategy", "high", "--self-mask-from-epoch", "1"]
BY_TEACHER = ["--mask-strategy", "high", "--teacher", "TEACHER"]
DISTILLED = ["--teacher", "TEACHER", "--kd-weight", "0.5"]
WAYS = {  # name: (arch, flags)
    "random": ("bertlet", BY_NOISE),
    "random, 80/10/10": ("bertlet", [*BY_NOISE, "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"]),
    "high, teacher": ("bertlet", BY_TEACHER),
    "high, self": ("bertlet", BY_SELF),
    "high, self, exact": ("bertlet", [*BY_SELF, "--entropy-precision", "fp32"]),
    "high, self + KD": ("bertlet", [*BY_SELF, *DISTILLED]),
    "random, KD everywhere": ("bertlet", [*BY_NOISE, *DISTILLED, "--kd-positions", "all"]),
    "high, cached": ("bertlet", [*BY_TEACHER, "--entropy-cache", "CACHE"]),
    "marginal, self": ("bertlet", ["--mask-strategy", "marginal", "--self-mask-from-epoch", "1"]),
    "sentences, padded": ("bertlet", [*BY_SELF, "--sample-break-mode", "complete"]),
    "mask later": ("bertlet_3ml", BY_SELF),
    "hybrid": ("hbertlet", BY_SELF),
    "bert_base, self": ("bert_base", BY_SELF),
    "random, compiled": ("bertlet", [*BY_NOISE, "--compile"]),
}
TOLERANCE = {"fp32": 2e-3, "bf16": 4e-2}  # of losses; of gradient norms, ten times as much
SAME_MASKS = {"fp32": 0.995, "bf16": 0.9}  # of an untrained model's entropies; random masks are all the same


class Setting(variants.Setting):
    workers = 0

    def words(self, *flags):
        cache = os.path.join(self.folder, "cache-cpu" if self.cpu else "cache-gpu")
        return super().words(*(cache if flag == "CACHE" else flag for flag in flags))


def run(options):
    folder = tempfile.mkdtemp(prefix="sanity-")
    try:
        return Comparison(folder, options).run()
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

    def run(self):
        results = []
        for way in WAYS:
            expected = None
            for precision in ("fp32", "bf16"):
                if time.monotonic() > self.end:
                    record("sanity", way=way, precision=precision, failed="no time left")
                    return False
                expected = expected or self.updates(way, "fp32", cpu=True)
                results.append(attempt("sanity", lambda p=precision, e=expected, way=way: verdict(
                    way, p, e, self.updates(way, p, cpu=not ON_GPU)), way=way, precision=precision))
        verdicts = [figure.get("verdict") for figure in read(os.environ["BENCHMARK_OUT"]) if figure["kind"] == "sanity"]
        return all(results) and "FAIL" not in verdicts[-len(results):]

    def updates(self, way, precision, cpu):
        """[{name: value}] of each update, and the masked positions of each."""
        arch, flags = WAYS[way]
        setting = Setting(self.uneven if "complete" in flags else self.folder, arch, self.length, self.sentences,
                          precision, cpu)
        sizes = self.sizes(arch)
        self.provide_teacher(setting, flags, sizes)
        if cpu:
            flags = [flag for flag in flags if flag != "--compile"]
        return some_updates(setting.ours(*flags, *NO_DROPOUT, *sizes))

    def sizes(self, arch):
        pattern = ["--mixer-pattern", "self,additive"] if arch == "hbertlet" else []
        return [*TINY, *pattern] if self.tiny else []

    def provide_teacher(self, setting, flags, sizes):
        path = os.path.join(setting.folder, f"{setting.arch}.pt")
        if "TEACHER" in flags and not os.path.exists(path):
            on_cpu = Setting(setting.folder, setting.arch, self.length, self.sentences, "fp32", True)
            data.write_teacher(path, on_cpu.ours(*BY_NOISE, *sizes))


def some_updates(words):
    metrics.reset()
    variant = variants.WithFairseq(words)
    trainer, masks, log = variant.trainer, [], []
    masked = trainer.task.masked
    trainer.task.masked = lambda sample, selected, k: masks.append(selected.cpu()) or masked(sample, selected, k)
    for _ in range(UPDATES):
        trainer.train_step(next(variant.batches))
        log.append(latest_values())
    log[-1]["valid_loss"] = float(trainer.valid_step(next(variant.batches)[0])["loss"])
    return log, masks


def latest_values():
    """{name: value} of the last update."""
    meters = metrics.get_meters("train")
    return {name: float(meters[name].val) for name in ("loss", "accuracy", "entropy", "entropy_masked", "kd_loss",
                                                       "gnorm") if name in meters}


def verdict(way, precision, expected, actual):
    (log, masks), (expected_log, expected_masks) = actual, expected
    different = differences(expected_log, log)
    same = sum(int((a & b).sum()) for a, b in zip(masks, expected_masks)) / sum(int(b.sum()) for b in expected_masks)
    limit = TOLERANCE[precision]
    good = same == 1 if way.startswith("random") else same >= SAME_MASKS[precision]
    good &= all(value <= limit * (10 if name == "gnorm" else 1) for name, value in different.items())
    return {"verdict": "PASS" if good else "FAIL", "loss": log[0]["loss"], "expected_loss": expected_log[0]["loss"],
            "same_masks": same, **{f"{name}_differs": value for name, value in sorted(different.items())}}


def differences(one, other):
    """The largest relative difference of each value over the updates."""
    names = {name for row in one for name in row}
    return {name: max(abs(a[name] - b[name]) / max(abs(a[name]), 0.5) for a, b in zip(one, other)
                      if name in a and name in b) for name in names}


def make_uneven(folder, length):
    """Lines of 4 to T - 2 tokens, so that batches of whole sentences have padding."""
    draw = np.random.default_rng(3)
    for split in ("train", "valid"):
        left, sizes = os.path.getsize(os.path.join(folder, f"{split}.bin")) // 2, []
        while left:
            sizes.append(min(left, int(draw.integers(4, length - 1))))
            left -= sizes[-1]
        write_index(os.path.join(folder, f"{split}.idx"), np.array(sizes, np.int32), 2)
