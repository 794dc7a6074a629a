"""Changes that may make a step faster on a GPU, none of which the package has: the benchmark's stage `prototypes` says
what each is worth. What brings 3 % or more moves into the package, with its tests; what does not is deleted.

losses    cross-entropy, and with distillation, in one kernel
entropy   entropies in other kernels and tilings
step      the rest: refinement, LayerNorm, compiled layers, CUDA graphs
"""

from typing import Callable, NamedTuple, Optional, Tuple

from . import step

SELF = ("self", "self + KD")


class Prototype(NamedTuple):
    """name: in the tables; apply: changes a `variants.WithFairseq` for good, and no other; variants: those that it
    concerns, None = all; needs_gpu: whether it can do nothing on a CPU; alone: put over the package's step instead of
    on top of the others, which may not stay."""

    name: str
    apply: Callable
    variants: Optional[Tuple[str, ...]] = None
    needs_gpu: bool = True
    alone: bool = False


# In the order in which they are put on top of each other: first what changes no number but in the order of sums. CUDA
# graphs are last, since they keep the layers as they find them.
PROTOTYPES = (
    Prototype("cross-entropy in one kernel", step.fuse_cross_entropy),
    Prototype("MLM and KD in one kernel", step.fuse_distillation, ("self + KD",)),
    Prototype("entropy kernel, tuned", step.tune_entropy_kernel, SELF),
    Prototype("no refinement", step.leave_out_refinement, SELF, needs_gpu=False),
    Prototype("LayerNorm and residuals in bf16", step.normalize_in_bf16, needs_gpu=False),
    Prototype("compiled layers", step.compile_layers, ("random",)),  # half a minute for each model that is compiled
    Prototype("CUDA graphs of the layers", step.replay_layers),
    Prototype("CUDA graphs alone", step.replay_layers, alone=True),
)
