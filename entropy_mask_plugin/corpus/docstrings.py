"""Docstrings of installed packages: English text without a network. Their sources are parsed, never imported."""

import ast
import importlib.util
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from typing import List, Optional

from ..system.text import one_line
from .sources import Document
from .splits import digest_of

DOCUMENTED_PACKAGES = ("torch", "numpy", "scipy", "sklearn")
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FEWEST_WORDS = 5  # of a docstring


class Docstrings:
    """One document per docstring. Duplicates and docstrings of a few words are left out.

    Args:
        roots: folders to search; None = the standard library and the installed ones of `DOCUMENTED_PACKAGES`.
    """

    unit = "file"

    def __init__(self, roots: Optional[List[str]] = None):
        self.roots = roots or installed_roots()
        self.files = [path for root in self.roots for path in python_files(root)]
        self.length = len(self.files)
        self.description = {f"--docstrings {root}": "every .py file" for root in self.roots}

    def documents(self) -> Iterator[Document]:
        """The documents, from the start at each call."""
        seen = set()
        for position, path in enumerate(self.files, 1):
            for docstring in docstrings_of_file(path):
                lines = list(paragraphs(docstring))
                digest = digest_of(lines)
                if digest in seen or sum(line.count(" ") + 1 for line in lines) < FEWEST_WORDS:
                    continue
                seen.add(digest)
                yield Document(None, lines, position)


def installed_roots() -> List[str]:
    """Folders of the standard library and of the installed DOCUMENTED_PACKAGES."""
    specs = [importlib.util.find_spec(name) for name in DOCUMENTED_PACKAGES]
    return [sysconfig.get_path("stdlib")] + [os.path.dirname(spec.origin) for spec in specs if spec and spec.origin]


def python_files(root: str) -> Iterator[str]:
    """Paths below a folder, sorted, so that the corpus does not depend on the file system."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(".py"))


def docstrings_of_file(path: str) -> Iterator[str]:
    """The docstrings of a Python file, in its order; nothing where it cannot be parsed."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in these packages
            module = ast.parse(file.read())
    except (SyntaxError, ValueError, RecursionError, OSError):  # for another version of Python, or broken on purpose
        return
    for node in statements(module):
        docstring = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if docstring:
            yield docstring.encode(errors="ignore").decode()  # without lone surrogates, which UTF-8 cannot hold


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all statements below it. `ast.walk` would visit expressions too, which takes four times as long."""
    yield node
    for block in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, block, ()):
            yield from statements(child)


def paragraphs(docstring: str) -> Iterator[str]:
    """Paragraphs with their hard-wrapped lines joined. Examples (from `>>>` to the next blank line) and lines without a
    letter are left out: they are code, numbers and underlines of headings, not language."""
    for block in re.split(r"\n\s*\n", docstring):
        prose = re.split(r"^\s*>>>", block, maxsplit=1, flags=re.MULTILINE)[0]
        line = one_line(" ".join(line for line in prose.splitlines() if re.search(r"[^\W\d_]", line)))
        if line:
            yield line
