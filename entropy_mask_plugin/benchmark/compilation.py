"""A kernel to be compiled ahead of time, for a GPU that this machine need not have."""

from typing import NamedTuple

TRITON_TYPES = {"torch.bfloat16": "*bf16", "torch.float32": "*fp32"}


class Compilation(NamedTuple):
    """What an ahead-of-time compilation needs.

    types: {argument: Triton's name of its type}; constants: {constexpr: value}; aligned: arguments that are multiples
    of 16 (pointers: bytes).
    """

    title: str
    kernel: object
    types: dict
    constants: dict
    warps: int
    stages: int
    aligned: tuple
