"""Changes that may make a step faster on a GPU and are not in the package: the benchmark's stage `prototypes` measures
what each gains. A gain of 3 % or more moves into the package, with its tests; the others are deleted.

losses    cross-entropy, and with distillation, in one kernel
entropy   entropies in other kernels and tilings
step      the rest: refinement, LayerNorm, compiled layers, CUDA graphs
"""

from typing import Callable, NamedTuple, Optional, Tuple

from . import step

SELF = ("self", "self + KD")


class Prototype(NamedTuple):
    """A change to a training step.

    name: in the tables; apply: changes one `variants.WithFairseq` permanently, and no other; variants: those that it
    applies to, None = all; needs_gpu: whether it cannot run on a CPU; alone: applied to the package's step instead of
    on top of the other prototypes.
    """

    name: str
    apply: Callable
    variants: Optional[Tuple[str, ...]] = None
    needs_gpu: bool = True
    alone: bool = False


# In the order in which they are applied on top of each other: first those that change results only by the order of
# sums. CUDA graphs are last, since they capture the layers as they are.
PROTOTYPES = (
    Prototype("cross-entropy in one kernel", step.fuse_cross_entropy),
    Prototype("MLM and KD in one kernel", step.fuse_distillation, ("self + KD",)),
    Prototype("entropy kernel, tuned", step.tune_entropy_kernel, SELF),
    Prototype("no refinement", step.leave_out_refinement, SELF, needs_gpu=False),
    Prototype("LayerNorm and residuals in bf16", step.normalize_in_bf16, needs_gpu=False),
    Prototype("compiled layers", step.compile_layers, ("random",)),  # compiling takes half a minute per model
    Prototype("CUDA graphs of the layers", step.replay_layers),
    Prototype("CUDA graphs alone", step.replay_layers, alone=True),
)
