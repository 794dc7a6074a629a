"""Changes of a step, put over the package for good: each takes a `benchmark.variants.WithFairseq`."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ... import criterion
from ...masking import triton_entropy
from .entropy import best_form, entropy_by_value
from .losses import FusedDistillation, fused_cross_entropy


def cross_entropy_in_one_kernel(variant):
    criterion.cross_entropy_of_consumed = fused_cross_entropy


def distillation_in_one_kernel(variant):
    """With --kd-positions masked, where a sequence's KD counts as its MLM: all weights are 1."""

    def with_distillation(self, model, net_input, selected, target):
        logits, _ = model(**net_input, masked_tokens=selected)
        teacher_logits = self.task.teacher_logits(net_input, selected)
        weight = torch.ones(len(target), device=target.device)
        return FusedDistillation.apply(logits, teacher_logits, target, weight, self.cfg.kd_weight,
                                       self.cfg.kd_temperature)

    criterion.EntropyMaskedLMCriterion.with_distillation = with_distillation


def best_entropy_kernel(variant):
    weight, _ = variant.trainer.get_model().output_projection()
    form = best_form(weight.device, weight.size(1), len(weight))
    package = triton_entropy.fused_entropy

    def fused_entropy(hidden, weight, bias):
        return entropy_by_value(hidden, weight, bias, *form) if hidden.dtype == torch.bfloat16 else package(
            hidden, weight, bias)

    triton_entropy.fused_entropy = fused_entropy


def no_refinement(variant):
    """Masks by the entropies of the bf16 product as they are."""
    variant.trainer.task.cfg.entropy_precision = "bf16"


def layer_norm_in_bf16(variant):
    """The residual stream in bf16: autocast runs LayerNorm in fp32 and returns fp32."""

    def forward(self, x):
        if not torch.is_autocast_enabled(x.device.type):
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        dtype = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x.to(dtype), self.normalized_shape, self.weight.to(dtype), self.bias.to(dtype), self.eps)

    nn.LayerNorm.forward = forward


def compiled_layers(variant):
    variant.trainer.get_model().compile_layers()


def graphed_layers(variant):
    """CUDA graphs of all layers but the last, whose number of rows differs from batch to batch: the host launches one
    graph instead of forty kernels. Where the shape differs, padding is attended to, or the model is not in training,
    the layer runs as ever."""
    trainer = variant.trainer
    layers, sample = trainer.get_model().encoder.layers, next(variant.batches)[0]["net_input"]["src_tokens"]
    shape = (*sample.shape, trainer.get_model().cfg.encoder_embed_dim)
    trainer.model.train()
    for number, layer in enumerate(layers[:-1]):
        x = torch.randn(shape, device=trainer.device, requires_grad=True)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            graphed = torch.cuda.make_graphed_callables(Alone(layer), (x,))
        layers[number].forward = through(graphed, layer.forward, shape, layer)


class Alone(nn.Module):
    """A layer as a function of x alone."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.run = layer, layer.forward

    def forward(self, x):
        return self.run(x, None)


def through(graphed, eager, shape, layer):
    def forward(x, attend, positions=None, memory=()):
        if layer.training and x.shape == shape and attend is None and positions is None and torch.is_grad_enabled():
            return graphed(x)
        return eager(x, attend, positions, memory)

    return forward
