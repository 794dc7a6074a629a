"""Stage `parts`: the cost of each part of a training step at 32,768 tokens.

ms: time on the device; host_ms: time until the call returns, on an idle device, waits included. Where the host takes
longer, the device waits for it.
"""

import os
import shutil
import tempfile
import time

import torch
import torch.nn.functional as F
from fairseq import tasks, utils
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..masking import corruption, noise, refinement
from ..masking.scores.entropy import projected_entropy
from ..masking.strategies import ranked
from ..masking.take import number_to_mask, take
from ..models.positions import SelectedPositions
from . import data, variants
from .results import attempt
from .timing import DEVICE, ON_GPU, device_ms, host_ms

ALL_BACKENDS = tuple(SDPBackend.__members__.values())[1:]  # the first is ERROR


def run(options):
    folder = tempfile.mkdtemp(prefix="parts-")
    tokens, length = (256, 32) if options.tiny else (32768, 128)
    try:
        data.write_data_bin(os.path.join(folder, "bin"), (20 if options.tiny else 60) * tokens)
        setting = variants.Setting(folder, "bertlet", length, tokens // length, "bf16", not ON_GPU)
        task = tasks.setup_task(data.parse_fairseq_args(setting.ours(*variants.OURS["random"])).task)
        task.load_dataset("train")
        samples = task.datasets["train"]
        batch = samples.collater([samples[i] for i in range(setting.sentences)])
        widths = (64,) if options.tiny else (512, 768)
        return all([masking(batch), refining(batch, widths, 300 if options.tiny else data.VOCABULARY),
                    measure_attention(((2, 32),) if options.tiny else ((8, 128), (12, 128), (12, 512)), tokens),
                    reading(setting, (0, 1) if options.tiny else (1, 2, 4, 8))])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def both(function):
    return {"ms": device_ms(function), "host_ms": host_ms(function)}


def on_device(batch):
    return utils.apply_to_sample(lambda tensor: tensor.to(DEVICE, non_blocking=True), batch)


def record_parts(parts, **values):
    return all([attempt("part", lambda f=function: both(f), part=name, **values) for name, function in parts.items()])


def masking(batch):
    """The parts of the batch hook."""
    moved = on_device(batch)
    tokens, ids, maskable = moved["net_input"]["src_tokens"], moved["id"], moved["maskable"]
    k = number_to_mask(torch.tensor(batch["n_maskable"]), 0.15)
    there, length = k.to(DEVICE), tokens.size(1)
    scores = noise.uniform(1, 1, ids, length, noise.SELECTION)
    selected = take(scores, maskable, there)
    return record_parts({
        "the batch to the device": lambda: on_device(batch),
        "noise, one draw (80/10/10 takes three)": lambda: noise.uniform(1, 1, ids, length, noise.SELECTION),
        "k": lambda: number_to_mask(torch.tensor(batch["n_maskable"]), 0.15),
        "high": lambda: take(scores, maskable, there),
        "marginal": lambda: take(ranked.marginal(scores, maskable, there, None), maskable, there),
        "SelectedPositions": lambda: SelectedPositions(selected, k.numpy()),
        "corrupt": lambda: corruption.corrupt(tokens, selected, 4, 1),
    })


def refining(batch, widths, symbols):
    """Entropies by bf16 products, and their refinement near the cuts: iterative, and at a fixed number of positions."""
    maskable = on_device(batch)["maskable"]
    k = number_to_mask(maskable.sum(1), 0.15)
    choose = lambda scores: take(scores, maskable, k)  # noqa: E731
    good = True
    for width in widths:
        generator = torch.Generator(DEVICE).manual_seed(0)
        hidden, weight, bias = (torch.randn(*shape, device=DEVICE, generator=generator) for shape in (
            (*maskable.shape, width), (symbols, width), (symbols,)))
        hidden = 0.15 * hidden
        exact_at = lambda at, h=hidden, w=weight, b=bias: projected_entropy(h[at], w, b)  # noqa: E731
        cheap = projected_entropy(hidden, weight, bias, torch.bfloat16)
        good &= record_parts({
            "entropies, fp32, as for a cache": lambda h=hidden, w=weight, b=bias: projected_entropy(h, w, b),
            "entropies, bf16": lambda h=hidden, w=weight, b=bias: projected_entropy(h, w, b, torch.bfloat16),
            "refined, iteratively": lambda c=cheap, e=exact_at: refinement.refine_near_cut(c, maskable, choose, e),
            "refined, a fixed number": lambda c=cheap, e=exact_at: refinement.refine_nearest(c, maskable, choose, e),
        }, width=width)
    return good


def measure_attention(shapes, tokens):
    """Forward and backward pass with torch's choice and with each backend; heads of width 64."""
    backends = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
    good = True
    for heads, length in shapes:
        qkv = torch.randn(tokens // length, length, 3, heads, 64, device=DEVICE, dtype=torch.bfloat16,
                          requires_grad=True)
        for dropout in (0.1, 0.0):
            values = {"length": length, "heads": heads, "dropout": dropout}
            good &= attempt("attention", lambda q=qkv, d=dropout: {"ms": device_ms(lambda: attend(q, d))},
                            backend="torch's choice", **values)
            for backend in backends if ON_GPU else ():  # one that is not supported is recorded as failed
                attempt("attention", lambda q=qkv, d=dropout, b=backend: {"ms": device_ms(lambda: attend(q, d, [b]))},
                        backend=backend.name, **values)
    return good


def attend(qkv, dropout, backends=ALL_BACKENDS):
    with sdpa_kernel(list(backends)):
        output = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), dropout_p=dropout)
        return torch.autograd.grad(output.sum(), qkv)


def reading(setting, numbers):
    """Tokens per second of the data workers alone."""
    return all([attempt("reading", lambda n=number: {"tokens_per_second": reading_rate(setting, n)}, workers=number)
                for number in numbers])


def reading_rate(setting, workers):
    task = tasks.setup_task(data.parse_fairseq_args(setting.ours(*variants.OURS["random"])).task)
    task.load_dataset("train")
    iterator = task.get_batch_iterator(task.datasets["train"], max_sentences=setting.sentences, num_workers=workers,
                                       seed=1, required_batch_size_multiple=1)
    batches = iterator.next_epoch_itr(shuffle=False)
    next(batches)
    begin = time.perf_counter()
    tokens = sum(batch["ntokens"] for batch in batches)
    return tokens / (time.perf_counter() - begin)
