"""All settings of a benchmark, one after the other; what is finished is in the report already."""

import os
import shutil
import tempfile
from typing import List, NamedTuple

import torch

from ..system.errors import require
from . import data, measure, report
from .variants import KNOWN, NAMES, RANDOM, SIZES, Setting, build

SPARE_BATCHES = 24  # an epoch has so many more than are needed: a new one would start new data workers


class Asked(NamedTuple):
    """The flags of the command `benchmark`."""

    archs: List[str]
    lengths: List[int]
    precisions: List[str]
    variants: List[str]
    batch_tokens: int
    rounds: int
    steps: int
    memory: bool
    cpu: bool
    out: str


def benchmark(asked):
    """Leave benchmark.md, .json and .png in `asked.out`; returns the Markdown."""
    for flag, values, known in (("--archs", asked.archs, SIZES), ("--variants", asked.variants, KNOWN)):
        for value in values:
            require(flag, value, value in known, "some of " + ", ".join(known))
    require("--variants", ", ".join(asked.variants), RANDOM in asked.variants, f"{RANDOM} among them: the others are "
            "compared with it")
    require("--rounds", asked.rounds, asked.rounds >= 1, "1 or more")
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        batches = measure.WARM_UP + asked.rounds * asked.steps + SPARE_BATCHES
        data.write_data_bin(os.path.join(folder, "bin"), batches * asked.batch_tokens)
        found = {"machine": report.machine(), "settings": []}
        for arch in asked.archs:
            for length in asked.lengths:
                for precision in asked.precisions:
                    sentences = max(1, asked.batch_tokens // length)
                    setting = Setting(folder, arch, length, sentences, precision, asked.cpu)
                    found["settings"].append(measured(setting, asked))
                    report.write_report(found, asked.out)
        return report.markdown(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measured(setting, asked):
    teacher = os.path.join(setting.folder, f"{setting.arch}.pt")
    if not os.path.exists(teacher):
        data.write_teacher(teacher, setting.ours("--mask-strategy", "random"))
    before = measure.gemm_rate(setting)
    times = measure.rounds(setting, asked.variants, asked.rounds, asked.steps)
    after = measure.gemm_rate(setting)
    memory = {name: measure.peak_memory(setting, name) for name in asked.variants} if asked.memory else {}
    return {"title": setting.title, "rounds": asked.rounds, "rows": report.rows_of(setting, times, memory),
            "seconds in each round": times, "GEMM rate (GFLOP/s), before and after": [before, after],
            "entropies": entropies(setting)}


def entropies(setting):
    """On one batch of the training that a sharpened model begins with."""
    trainer = build(RANDOM, setting).trainer
    task, model = trainer.task, trainer.model.eval()
    samples = task.datasets["train"]
    batch = samples.collater([samples[i] for i in range(min(8, setting.sentences))])
    tokens = batch["net_input"]["src_tokens"].to(next(model.parameters()).device)
    return measure.accuracy_of_entropies(model, tokens, batch["maskable"].to(tokens.device))


def settled(quick, archs, lengths, precisions, variants, batch_tokens, rounds, steps, memory, cpu, out):
    """`Asked` with everything that was left open."""
    cpu = cpu or not torch.cuda.is_available()
    return Asked(
        archs or (["bertlet"] if quick else ["bertlet", "bert_base"]),
        lengths or ([128] if quick else [128, 512]), precisions or (["fp32"] if quick else ["fp32", "bf16"]),
        variants or list(NAMES), batch_tokens or (1024 if cpu else 32768), rounds or (3 if quick else 7),
        steps or (1 if cpu else 20), memory and not quick, cpu, out,
    )
