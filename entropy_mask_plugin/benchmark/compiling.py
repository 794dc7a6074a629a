"""Stage `compile`: what machine code do the kernels become on GPUs that this machine does not have?

Triton can compile for a GPU without one. A kernel that spills registers to memory is several times as slow.
"""

import os
import re
import subprocess
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ..masking import triton_noise
from ..masking.scores import triton_entropy
from .compilation import TRITON_TYPES, Compilation
from .results import record

TARGETS = {"sm_90": 90, "sm_86": 86, "sm_80": 80}  # H100; RTX 30 and A40 (less shared memory); A100
TOOLS = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")
INSTRUCTIONS = {  # what to count: patterns of the disassembly
    "matrix_instructions": "H?GMMA|HMMA",
    "async_copies": "LDGSTS|UTMALDG",
    "spills": "LDL|STL",
}


def package_kernels():
    """Yield the package's kernels, with the block sizes that it uses."""
    for dtype, (rows, symbols, width) in triton_entropy.BLOCKS.items():
        operand = TRITON_TYPES[str(dtype)]
        types = {"hidden": operand, "weight": operand, "bias": "*fp32", "result": "*fp32", "n_rows": "i32",
                 "n_symbols": "i32", "width": "i32"}
        yield Compilation(f"entropy, {operand[1:]} {rows} x {symbols} x {width}", triton_entropy.entropy_kernel, types,
                          {"BLOCK_ROWS": rows, "BLOCK_SYMBOLS": symbols, "BLOCK_WIDTH": width},
                          triton_entropy.NUM_WARPS, 3, ("hidden", "weight", "bias", "result", "width"))
    yield Compilation("noise", triton_noise.noise_kernel,
                      {"out": "*fp32", "ids": "*i64", "state": "i64", "length": "i32"}, {"BLOCK": 128}, 4, 3,
                      ("out", "ids"))


def compile_ahead(compilation, capability):
    """{property: value} of a kernel's machine code for a compute capability (90 = H100)."""
    names = [*compilation.types, *compilation.constants]
    source = ASTSource(
        fn=compilation.kernel, constexprs=compilation.constants,
        signature={**compilation.types, **dict.fromkeys(compilation.constants, "constexpr")},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in compilation.aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32),
                              options={"num_warps": compilation.warps, "num_stages": compilation.stages})
    return {"shared_memory_bytes": compiled.metadata.shared, **inspect(compiled.asm["cubin"])}


def inspect(cubin):
    """Registers per thread and instruction counts, by the tools that come with Triton. cubin: the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (output_of(tool, flag, file.name) for tool, flag in (("cuobjdump", "-res-usage"),
                                                                           ("nvdisasm", "-c")))
    registers = re.search(r"REG:(\d+)", usage)
    return {"registers": int(registers[1]),
            **{name: len(re.findall(pattern, code)) for name, pattern in INSTRUCTIONS.items()}}


def output_of(tool, *arguments):
    return subprocess.run([os.path.join(TOOLS, tool), *arguments], capture_output=True, text=True, check=True).stdout


def run(options):
    """Record a line for each kernel and GPU. Returns False if one of the package's does not compile or spills."""
    good = all([check_compilation(compilation, target) for compilation in package_kernels() for target in TARGETS])
    for compilation in () if options.tiny else prototype_kernels():
        check_compilation(compilation, "sm_90")
    return good


def check_compilation(compilation, target):
    values = {"kernel": compilation.title, "gpu": target, "warps": compilation.warps, "stages": compilation.stages}
    try:
        values |= compile_ahead(compilation, TARGETS[target])
    except Exception as error:  # Triton has an exception type for each stage of compilation
        record("compile", **values, failed=" ".join(str(error).split())[:300])
        return False
    record("compile", **values)
    return values["spills"] == 0


def prototype_kernels():
    from .prototypes.compilations import KERNELS

    return KERNELS
