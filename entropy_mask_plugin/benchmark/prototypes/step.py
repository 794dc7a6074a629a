"""How each prototype is applied to a variant. It changes only this variant's objects, or a module during this variant's
steps: other variants, and the next arch in the same process, are measured without it.

Shapes: B sentences, T positions, C width, K selected positions.
"""

import functools

import torch
import torch.nn as nn
import torch.nn.functional as F

from ... import criterion


def patch_steps(variant, owner, name, replacement):
    """Replace `owner.name` during the variant's train_step (masking, forward, backward)."""
    task = variant.trainer.task
    train_step = task.train_step

    def patched(*arguments, **named):
        original = getattr(owner, name)
        setattr(owner, name, replacement)
        try:
            return train_step(*arguments, **named)
        finally:
            setattr(owner, name, original)

    task.train_step = patched


def models_of(variant):
    """The model being trained, and the teacher where there is one."""
    teacher = variant.trainer.task.teacher
    return [variant.trainer.get_model(), *([] if teacher is None else [teacher])]


# ---- losses and entropies


def fuse_cross_entropy(variant):
    from .losses import fused_cross_entropy

    patch_steps(variant, criterion, "inplace_cross_entropy", fused_cross_entropy)


def fuse_distillation(variant):
    """Only for KD at the masked positions, where every position has the same weight."""
    from .losses import FusedDistillation

    loss = variant.trainer.criterion
    assert loss.cfg.kd_positions == "masked", "written for the masked positions"

    def with_distillation(model, net_input, selected, target, learner=None):
        logits, _ = model(**net_input, masked_tokens=selected)  # K x V
        weight = torch.ones(len(target), device=target.device)
        return FusedDistillation.apply(logits, loss.task.teacher_logits(net_input, selected), target, weight,
                                       loss.cfg.kd_weight, loss.cfg.kd_temperature)

    loss.with_distillation = with_distillation


def tune_entropy_kernel(variant):
    from ...masking.scores import triton_entropy
    from .entropy import tuned_entropy

    patch_steps(variant, triton_entropy, "fused_entropy", tuned_entropy)


def leave_out_refinement(variant):
    """Choose masks by the entropies of the bf16 product without refinement, as `--entropy-precision bf16` does."""
    scorer = variant.trainer.task.scorer
    scorer.layers_in, scorer.product = "bf16", torch.bfloat16


# ---- layers


def normalize_in_bf16(variant):
    """Run LayerNorm in bf16. Autocast runs it in fp32 and returns fp32, so that the residuals take twice the memory
    traffic, too."""
    for model in models_of(variant):
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.forward = functools.partial(layer_norm_in_bf16, module)


def layer_norm_in_bf16(norm, x):
    """LayerNorm of ... x C in autocast's type; the kernel accumulates in fp32."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return F.layer_norm(x.to(dtype), norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)


def compile_layers(variant):
    """As `--compile` does. Dropout then draws other numbers, so that losses differ by more than the order of sums."""
    variant.trainer.get_model().compile_layers()


def replay_layers(variant):
    """Only for one backward pass per update: a graph writes its gradients to the same memory each time, so that a
    second backward pass would overwrite what it should add to."""
    assert list(variant.trainer.cfg.optimization.update_freq) == [1], "written for --update-freq 1"
    for model in models_of(variant):
        model.encoder.run_layers = ReplayedLayers(model.encoder)


class ReplayedLayers:
    """`BertEncoder.run_layers` with all layers but the last as CUDA graphs, one launch instead of dozens: a graph for
    training and one for passes without gradients, each recorded at the first batch of its kind. A batch with padding or
    of another shape takes the usual path, and so does the last layer, whose number of rows changes."""

    def __init__(self, encoder):
        self.encoder, self.run_layers, self.graphs = encoder, encoder.run_layers, {}

    def __call__(self, x, attend, positions=None):
        trains = self.encoder.training and torch.is_grad_enabled()
        evaluates = not self.encoder.training and not torch.is_grad_enabled()
        if attend is not None or not (trains or evaluates):
            return self.run_layers(x, attend, positions)
        if trains not in self.graphs:
            layers = Stack(self.encoder.layers[:-1])
            self.graphs[trains] = like(x), recorded(layers, x) if trains else Replay(layers, x)
        kind, replay = self.graphs[trains]
        if like(x) != kind:
            return self.run_layers(x, attend, positions)
        return self.encoder.layer_norm(self.encoder.layers[-1](replay(x), None, positions))


def like(x):
    """What must be equal for a graph to be replayed: shape, types, whether a gradient is needed."""
    return x.shape, x.dtype, torch.is_autocast_enabled(x.device.type), x.requires_grad


class Stack(nn.Module):
    """Layers one after the other, without padding: B x T x C -> B x T x C."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x, None)
        return x


def without_cast_cache(x):
    """Autocast as it is set, but without its cache of cast weights, which a graph would not update."""
    device = x.device.type
    return torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device),
                          cache_enabled=False)


def recorded(layers, x):
    """The layers with forward and backward pass as CUDA graphs."""
    with without_cast_cache(x):
        return torch.cuda.make_graphed_callables(layers, (x.detach().clone().requires_grad_(x.requires_grad),))


class Replay:
    """The layers as a CUDA graph without gradients. Its output is valid until the next call."""

    def __init__(self, layers, x):
        self.input, self.graph = x.clone(), torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # everything that is allocated once, such as workspaces, must exist before recording
        side.wait_stream(torch.cuda.current_stream())
        with without_cast_cache(x):
            with torch.cuda.stream(side):
                layers(self.input)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self.graph):
                self.output = layers(self.input)

    def __call__(self, x):
        self.input.copy_(x)
        self.graph.replay()
        return self.output
