"""Who may import whom: a room imports its own modules and those of the rooms below it, read from the code by `ast`."""

import ast
import sys
from graphlib import TopologicalSorter

import pytest
from builders.training import ROOT

PACKAGE = "entropy_mask_plugin"
ROOMS = ["system", "masking", "scoring", "checkpoints", "training", "config", "flag_checks", "fairseq_fixes", "models",
         "criterion", "huggingface", "pretrained", "reporting", "recording", "corpus", "evaluation", "glue",
         "text_task", "validation_task", "task", "__init__", "policies", "doctor", "inspection", "atlas", "studies",
         "benchmark", "cli"]  # from the lowest to the highest


def name_of(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(file): file for file in (ROOT / PACKAGE).rglob("*.py")}


def room(module):
    return (module.split(".") + ["__init__"])[1]


def is_exempt(node):
    """What is for type checkers alone, and a program at the end of its module, which may start any other."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def imports(module):
    """The modules of the package that a module imports, wherever in its file."""
    file = FILES[module]
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not is_exempt(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            source = ".".join(base + (node.module.split(".") if node.module else []))
            if source.split(".")[0] == PACKAGE:
                yield from (f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source
                            for alias in node.names)


def test_every_room_has_a_place():
    assert {room(module) for module in FILES} <= set(ROOMS)


@pytest.mark.parametrize("module", sorted(FILES))
def test_nothing_imports_upwards(module):
    arrows = [f"{module} -> {imported}" for imported in imports(module)
              if ROOMS.index(room(imported)) > ROOMS.index(room(module))]
    assert not arrows, "imports upwards: " + ", ".join(arrows)


def test_no_module_imports_itself_over_others():
    list(TopologicalSorter({module: set(imports(module)) for module in FILES}).static_order())  # CycleError has it


def test_masking_imports_torch_numpy_and_triton_alone():
    allowed = {"torch", "numpy", "triton"}
    for module in (module for module in FILES if room(module) == "masking"):
        for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if (
                isinstance(node, ast.ImportFrom) and not node.level) else []
            for name in (name.split(".")[0] for name in names):
                assert name in allowed or name in sys.stdlib_module_names, f"{module} imports {name}"
