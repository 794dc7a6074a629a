"""Stages `step` and `prototypes`: whole training steps, where their time goes, and what might make them faster.

MFU: the FLOPs of the matrix products that the method needs, by `models.flops`, divided by the time of a step and by the
FLOP/s of a large matrix product on this machine; mfu_of_datasheet: by the datasheet's FLOP/s, for cards in DATASHEET.
"""

import os
import shutil
import statistics
import tempfile
import time

import torch

from ..config import PAPERS, Corruption
from ..models import flops
from . import data, measure, variants
from .profiling import profile
from .results import attempt, record
from .timing import ON_GPU, matmul_rate, wait

BERTS = Corruption(0.15, 0.1, 0.1)
DATASHEET = {"H100 80GB HBM3": 989.4e12, "H200": 989.4e12, "A100": 312e12}  # card: dense bf16 FLOP/s
EXTRA = {  # in addition to `variants.OURS`
    "random, 80/10/10": [*variants.OURS["random"], "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"],
}
STEP_VARIANTS = ("random", *EXTRA, "teacher cached", "teacher on the fly", "self", "self, bf16 entropies", "self + KD",
         variants.FAIRSEQ, variants.TRANSFORMERS)
PROFILED = ("random", "self", "teacher on the fly", "self + KD")
WITH_PROTOTYPES = ("random", "self", "self + KD")
LENGTH, TOKENS, ROUNDS, STEPS = 128, 32768, 3, 10
SPARE_BATCHES = 120
TINY = ["--encoder-layers", "2", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64",
        "--encoder-attention-heads", "2"]


class Bench:
    """Variants of one arch in one process, on the same synthetic text; nothing new starts when the time is over."""

    def __init__(self, arch, options):
        self.arch, self.tiny = arch, options.tiny
        self.end = time.monotonic() + options.seconds / len(options.archs)
        self.length, tokens, self.rounds, self.steps = (16, 64, 1, 1) if self.tiny else (LENGTH, TOKENS, ROUNDS, STEPS)
        self.folder = tempfile.mkdtemp(prefix="steps-")
        sentences = tokens // self.length
        batches = measure.WARM_UP + self.rounds * self.steps + SPARE_BATCHES
        data.write_data_bin(os.path.join(self.folder, "bin"), batches * tokens)
        self.setting = variants.Setting(self.folder, arch, self.length, sentences, "bf16", not ON_GPU,
                                        TINY if self.tiny else ())
        data.write_teacher(os.path.join(self.folder, f"{arch}.pt"), self.setting.ours(*variants.OURS["random"]))
        self.matmul_rate = matmul_rate(512 if self.tiny else 8192)
        self.built, self.good = {}, True  # good: nothing has failed so far

    def close(self):
        self.built.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_late(self):
        return time.monotonic() > self.end

    def build(self, names):
        for name in names:
            if not self.is_late():
                self.good &= attempt("built", lambda name=name: self.build_one(name), arch=self.arch, variant=name)

    def build_one(self, name):
        begin = time.monotonic()
        variant = variants.WithFairseq(self.setting.ours(*EXTRA[name])) if name in EXTRA else variants.build_variant(
            name, self.setting)
        measure.seconds(variant.step, measure.WARM_UP, ON_GPU)
        self.built[name] = variant
        return {"seconds": time.monotonic() - begin, "step_memory_bytes": memory_of_step(variant) if ON_GPU else None}

    def measure(self):
        """{name: seconds of a step in each round}, the rounds in rotating order."""
        names = list(self.built)
        times = {name: [] for name in names}
        for order in measure.rotations(names, self.rounds):
            for name in order:
                times[name].append(measure.seconds(self.built[name].step, self.steps, ON_GPU))
            if self.is_late():
                break
        return times

    def flops(self, name):
        """Floating-point operations of the matrix products in a step of a variant."""
        return 2 * macs_of_variant(name, self.built["random"].trainer.get_model(), self.length) * self.setting.tokens

    def rates(self, name, seconds):
        """{name: value} of a step that takes `seconds`."""
        rate = self.flops(name) / seconds
        return {"ms": 1e3 * seconds, "tokens_per_second": self.setting.tokens / seconds, "flop_per_second": rate,
                "mfu": rate / self.matmul_rate, **of_datasheet(rate)}


def of_datasheet(rate):
    """{"mfu_of_datasheet": fraction of the card's dense bf16 FLOP/s}; empty for a card that is not in DATASHEET."""
    card = torch.cuda.get_device_name() if ON_GPU else ""
    peak = next((peak for name, peak in DATASHEET.items() if name in card), None)
    return {} if peak is None else {"mfu_of_datasheet": rate / peak}


def macs_of_variant(name, model, length):
    """Multiply-accumulates per token, forward and backward, that the method needs."""
    if name == variants.TRANSFORMERS:  # logits at every position
        return 3 * flops.macs(model, length, flops.Fractions(1.0, 1.0))
    if name == variants.FAIRSEQ:  # logits at the masked positions, all layers everywhere
        everywhere, masked = (flops.terms(model, length, flops.Fractions(predicted, 1.0))
                              for predicted in (1.0, PAPERS.mask_prob))
        return 3 * sum((masked if key[0] == "head" else everywhere)[key] for key in everywhere)
    source = "teacher" if "fly" in name else "self" if "self" in name else None
    return flops.macs_of_step(model, length, BERTS if "80/10/10" in name else PAPERS, model, source, "KD" in name)


def memory_of_step(variant):
    """Peak memory of a step in bytes, beyond what the process holds between steps (weights, optimizer state, …)."""
    if hasattr(variant, "trainer"):
        variant.trainer.zero_grad()
    wait()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with measure.peak_is_kept():
        variant.step()
        wait()
    return torch.cuda.max_memory_allocated() - before


def run_step(options):
    return all([on_bench(arch, options, measure_steps) for arch in options.archs])


def on_bench(arch, options, measure_on):
    """Call `measure_on` with the bench of an arch. Returns whether nothing failed."""
    bench = Bench(arch, options)
    try:
        measure_on(bench)
        return bench.good
    finally:
        bench.close()
        measure.give_memory_back()


def measure_steps(bench):
    bench.build([name for name in STEP_VARIANTS
                 if name != variants.TRANSFORMERS or not bench.tiny])  # whose model cannot be tiny
    if "random" in bench.built:
        record_steps(bench)
    for name in PROFILED:
        if name in bench.built and not bench.is_late():
            bench.good &= attempt("profile", lambda name=name: profile(bench.built[name], name, bench.arch),
                                  arch=bench.arch, variant=name)


def record_steps(bench):
    times = bench.measure()
    for name, seconds in times.items():
        ratios = [one / other for one, other in zip(seconds, times["random"])]
        record("step", arch=bench.arch, variant=name, **bench.rates(name, statistics.median(seconds)),
               ratio=statistics.median(ratios), lowest_ratio=min(ratios), highest_ratio=max(ratios))


# ---- prototypes


def run_prototypes(options):
    return all([on_bench(arch, options, measure_prototypes) for arch in options.archs])


def measure_prototypes(bench):
    """Measure each prototype. One that does not work is recorded as failed, but does not fail the stage."""
    from .prototypes import PROTOTYPES

    bench.build(WITH_PROTOTYPES)
    trials = {name: PrototypeTrial(bench, name) for name in bench.built}
    for prototype in (prototype for prototype in PROTOTYPES if ON_GPU or not prototype.needs_gpu):
        if bench.is_late():
            break
        if prototype.alone:
            bench.build(list(trials))
            trials = {name: PrototypeTrial(bench, name) for name in bench.built}
        try_prototype(prototype, bench, trials)


class PrototypeTrial:
    """A variant with the prototypes applied so far: its time, and its loss and gradient norm on one batch."""

    def __init__(self, bench, name):
        self.variant, self.name, self.bench = bench.built[name], name, bench
        self.batch = next(self.variant.batches)[0]
        self.weights = [parameter.detach().clone() for parameter in self.variant.trainer.model.parameters()]
        self.first = self.seconds = self.time()
        self.loss, self.norm = self.numbers()

    def time(self):
        measure.seconds(self.variant.step, measure.WARM_UP, ON_GPU)
        return min(measure.seconds(self.variant.step, self.bench.steps, ON_GPU) for _ in range(2))

    def numbers(self):
        """Loss and gradient norm of the first batch with the initial weights: does a prototype change them?"""
        trainer = self.variant.trainer
        now = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        self.set_weights(self.weights)
        trainer.zero_grad()
        torch.manual_seed(5)
        sample, _ = trainer._prepare_sample(self.batch)
        _, size, log = trainer.task.train_step(sample, trainer.model, trainer.criterion, trainer.optimizer, 0)
        gradients = [p.grad.float().norm() for p in trainer.model.parameters() if p.grad is not None]
        trainer.zero_grad()
        self.set_weights(now)
        return float(log["loss"]) / size, float(torch.stack(gradients).norm()) / size

    def set_weights(self, weights):
        with torch.no_grad():
            torch._foreach_copy_(list(self.variant.trainer.model.parameters()), weights)

    def changed(self, prototype):
        prototype.apply(self.variant)
        seconds, (loss, norm) = self.time(), self.numbers()
        gain, self.seconds = self.seconds / seconds, seconds
        return {**self.bench.rates(self.name, seconds), "times_faster": gain,
                "times_faster_in_all": self.first / seconds, "loss_differs": abs(loss / self.loss - 1),
                "gradient_norm_differs": abs(norm / self.norm - 1)}


def try_prototype(prototype, bench, trials):
    for name, trial in trials.items():
        if prototype.variants is not None and name not in prototype.variants or bench.is_late():
            continue
        attempt("prototype", lambda trial=trial: trial.changed(prototype), arch=bench.arch, variant=name,
                prototype=prototype.name)
