"""Stage `masks`: how many masked positions agree with those of exact entropies when parts of the pass are in bf16?

For a trained checkpoint on its own text, where entropies vary as they do in training. Refinement computes the entropies
near the cuts again with fp32 products; it cannot undo the rounding in the layers.
"""

import functools

import torch
from fairseq import checkpoint_utils

from ..checkpoints.reading import read_checkpoint
from ..checkpoints.structure import section_of
from ..inspection.checkpoints import TASK
from ..masking.refinement import refine_near_cut, refine_nearest
from ..masking.scores.entropy import projected_entropy
from ..masking.strategies import select
from ..masking.take import number_to_mask
from ..models.architecture import check_model
from ..system.errors import require
from .results import record

BATCHES, BATCH_SENTENCES, MASK_PROB = 24, 16, 0.15
COMPARED = ("high", "low", "mid", "marginal")


def run(options):
    require("--checkpoint", options.checkpoint, options.checkpoint is not None, "a trained model, for --stages masks")
    require("--data", options.data, options.data is not None, "its data-bin, for --stages masks")
    state = read_checkpoint(options.checkpoint, "--checkpoint")
    name = section_of(state, "task").get("_name")
    require("--checkpoint", f"{options.checkpoint} of --task {name}", state.get("args") is None and name == TASK,
            f"a checkpoint of --task {TASK}")
    check_model(state, options.checkpoint, "--checkpoint")
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [options.checkpoint], arg_overrides={"data": options.data})
    task.load_dataset("train")
    with torch.no_grad():
        for way, counts in compare(model.eval(), task.dataset("train"), 2 if options.tiny else BATCHES).items():
            record("masks", way=way, masked=counts["masked"], **{
                f"{name}_same": counts[name] / counts["masked"] for name in COMPARED})
    return True


def compare(model, samples, batches):
    """{way: {strategy: number of masked positions that exact entropies mask, too; "masked": number of all}}."""
    totals = {}
    for start in range(0, batches * BATCH_SENTENCES, BATCH_SENTENCES):
        batch = samples.collater([samples[i] for i in range(start, min(start + BATCH_SENTENCES, len(samples)))])
        maskable = batch["maskable"]
        k = number_to_mask(maskable.sum(1), MASK_PROB)
        passes = Passes(model, batch["net_input"]["src_tokens"], maskable)
        for name in COMPARED:
            choose = functools.partial(select, name, candidates=maskable, k=k)
            exact = choose(passes.exact())
            for way, scores in passes.ways(choose):
                count = totals.setdefault(way, dict.fromkeys((*COMPARED, "masked"), 0))
                count[name] += int((choose(scores) & exact).sum())
                count["masked"] += int(exact.sum()) * (name == COMPARED[0])
    return totals


class Passes:
    """The hidden states of a batch from layers in fp32 and in bf16, and their entropies: B x T fp32, nats."""

    def __init__(self, model, tokens, maskable):
        self.maskable, (self.weight, self.bias) = maskable, model.output_projection()
        self.hidden = {"fp32": model.lm_hidden(tokens)}
        with torch.autocast(tokens.device.type, torch.bfloat16):
            self.hidden["bf16"] = model.lm_hidden(tokens)

    def entropies(self, layers, product=torch.float32, at=slice(None)):
        return projected_entropy(self.hidden[layers][at], self.weight, self.bias, product)

    def exact(self):
        return self.entropies("fp32")

    def ways(self, choose):
        """Yield (name, scores B x T) of each way to compute the entropies."""
        for layers in ("fp32", "bf16"):
            cheap = self.entropies(layers, torch.bfloat16)
            exact_at = lambda at, layers=layers: self.entropies(layers, at=at)  # noqa: E731
            yield f"{layers} layers, bf16 product", cheap
            yield f"{layers} layers, refined iteratively", refine_near_cut(cheap, self.maskable, choose, exact_at)
            yield f"{layers} layers, a fixed number refined", refine_nearest(cheap, self.maskable, choose, exact_at)
        yield "bf16 layers, fp32 product", self.entropies("bf16")
