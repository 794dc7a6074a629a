"""Changes that may make a step faster on a GPU, put over the package from outside, one on top of the other: the stage
`prototypes` tells what each is worth. None is used by the package. What brings 3 % moves into it, what does not is deleted.

losses    cross-entropy, alone and with distillation, in one kernel
entropy   other forms of the entropy kernel
step      what is put over a step
"""

from typing import Callable, NamedTuple, Optional, Tuple

from ..compiling import Compilation
from . import entropy, losses, step


class Prototype(NamedTuple):
    """apply: takes a benchmark variant and changes it for good; variants: which are concerned, None = all."""

    name: str
    apply: Callable
    variants: Optional[Tuple[str, ...]] = None
    needs_gpu: bool = True


ENTROPY_PASSES = ("self", "self + KD", "teacher on the fly")

PROTOTYPES = (  # first what changes no numbers
    Prototype("cross-entropy in one kernel", step.cross_entropy_in_one_kernel),
    Prototype("distillation in one kernel", step.distillation_in_one_kernel, ("self + KD",)),
    Prototype("best entropy kernel", step.best_entropy_kernel, ENTROPY_PASSES),
    Prototype("no refinement", step.no_refinement, ENTROPY_PASSES, needs_gpu=False),
    Prototype("CUDA graphs of layers", step.graphed_layers),
    Prototype("LayerNorm in bf16", step.layer_norm_in_bf16, needs_gpu=False),
    Prototype("compiled layers", step.compiled_layers, ("random",)),
)


def kernels():
    """A `Compilation` of each kernel."""
    logits = {"logits": "*bf16", "stride": "i32"}
    results = {"target": "*i64", "loss": "*fp32", "correct": "*i32", "n_symbols": "i32"}
    yield Compilation("prototype: cross-entropy", losses.cross_entropy_kernel, {**logits, **results},
                      {"BLOCK": losses.BLOCK}, losses.WARPS, 3, ("logits", "stride"))
    yield Compilation(
        "prototype: distillation", losses.distillation_kernel,
        {**logits, "teacher": "*bf16", "teacher_stride": "i32", "target": "*i64", "weight": "*fp32", "mlm": "*fp32",
         "kd": "*fp32", "correct": "*i32", "n_symbols": "i32", "mix": "fp32", "inverse_temperature": "fp32"},
        {"BLOCK": losses.BLOCK}, losses.WARPS, 3, ("logits", "teacher", "stride", "teacher_stride"))
    yield Compilation("prototype: scale", losses.scale_kernel,
                      {"x": "*bf16", "stride": "i32", "n_columns": "i32", "factor": "*fp32"},
                      {"BLOCK": losses.BLOCK}, losses.WARPS, 3, ("x", "stride"))
    for tiling in entropy.TILINGS:
        types = {"hidden": "*bf16", "weight": "*bf16", "bias": "*fp32", "result": "*fp32", "n_rows": "i32",
                 "n_symbols": "i32"}
        constants = {"WIDTH": 512, "BLOCK_ROWS": tiling.rows, "BLOCK_SYMBOLS": tiling.symbols,
                     "BLOCK_WIDTH": tiling.width, "FLATTEN": tiling.flatten, "PRECISION": "tf32x3"}
        for form, kernel in (("pointers", entropy.pointer_kernel), ("TMA", entropy.bulk_copy_kernel)):
            yield Compilation(f"prototype: entropy, {form}, {tiling}", kernel, types, constants, tiling.warps,
                              tiling.stages, ("hidden", "weight", "bias", "result", "n_rows"))


KERNELS = tuple(kernels())
