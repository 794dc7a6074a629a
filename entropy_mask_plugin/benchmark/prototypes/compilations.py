"""The prototypes' kernels for the stage `compile`: at BERTlet's width, with BERT's vocabulary."""

import torch

from ..compilation import TRITON_TYPES, Compilation
from . import entropy, losses

WIDTH = 512
DTYPES = {32: torch.float32, 64: torch.bfloat16}  # the type of which a block of this width fits into shared memory
LOGITS = {"logits": "*bf16", "stride": "i32"}
LOSS = {"target": "*i64", "loss": "*fp32", "correct": "*i32", "n_symbols": "i32"}
DISTILLATION = {"teacher": "*bf16", "teacher_stride": "i32", "target": "*i64", "weight": "*fp32", "mlm": "*fp32",
                "kd": "*fp32", "correct": "*i32", "n_symbols": "i32", "kd_weight": "fp32",
                "inverse_temperature": "fp32"}


def of_tiling(tiling, kernel, form):
    operand = TRITON_TYPES[str(DTYPES[tiling.width])]
    types = {"hidden": operand, "weight": operand, "bias": "*fp32", "result": "*fp32", "n_rows": "i32",
             "n_symbols": "i32"}
    constants = {"WIDTH": WIDTH, "BLOCK_ROWS": tiling.rows, "BLOCK_SYMBOLS": tiling.symbols,
                 "BLOCK_WIDTH": tiling.width}
    return Compilation(f"prototype entropy, {form}, {operand[1:]} {tiling.rows} x {tiling.symbols} x {tiling.width}",
                       kernel, types, constants, tiling.warps, tiling.stages,
                       ("hidden", "weight", "bias", "result", "n_rows"))


def of_loss(title, kernel, types, aligned):
    return Compilation(f"prototype {title}", kernel, {**LOGITS, **types}, {"BLOCK": losses.BLOCK}, losses.NUM_WARPS, 3,
                       ("logits", *aligned))


KERNELS = [
    *(of_tiling(tiling, kernel, form) for tiling in entropy.TILINGS
      for form, kernel in (("pointers", entropy.pointer_kernel), ("TMA", entropy.tma_kernel))),
    of_loss("cross-entropy, rows of V", losses.cross_entropy_kernel, LOSS, ()),
    of_loss("cross-entropy, rows padded", losses.cross_entropy_kernel, LOSS, ("stride",)),
    of_loss("MLM and KD, rows padded", losses.distillation_kernel, DISTILLATION, ("stride", "teacher",
                                                                                 "teacher_stride")),
    Compilation("prototype scale", losses.scale_kernel,
                {"x": "*bf16", "stride": "i32", "n_columns": "i32", "factor": "*fp32"}, {"BLOCK": losses.BLOCK},
                losses.NUM_WARPS, 3, ("x", "stride")),
]
