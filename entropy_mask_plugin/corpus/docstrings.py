"""Docstrings of installed packages: English text that needs no network. Their sources are parsed, never imported."""

import ast
import importlib.util
import os
import re
import sysconfig
import warnings

from ..system.text import one_line
from .sources import Document
from .splits import digest_of

PACKAGES = ("torch", "numpy", "scipy", "sklearn")
NOT_FOR_READERS = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FEWEST_WORDS = 5


class Docstrings:
    """One docstring is one document. Repeated ones and those of a few words are left out.

    roots: folders to search; the standard library and `PACKAGES`, where installed, unless given.
    """

    unit = "file"

    def __init__(self, roots=None):
        self.roots = roots or installed_roots()
        self.files = [path for root in self.roots for path in python_files(root)]
        self.length = len(self.files)
        self.description = {f"--docstrings {root}": "every .py file" for root in self.roots}

    def documents(self):
        seen = set()
        for position, path in enumerate(self.files, 1):
            for docstring in docstrings_of_file(path):
                lines = list(paragraphs(docstring))
                digest = digest_of(lines)
                if digest in seen or sum(line.count(" ") + 1 for line in lines) < FEWEST_WORDS:
                    continue
                seen.add(digest)
                yield Document(None, lines, position)


def installed_roots():
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    return [sysconfig.get_path("stdlib")] + [os.path.dirname(spec.origin) for spec in specs if spec]


def python_files(root):
    """In sorted order, so that the corpus does not depend on the file system."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - NOT_FOR_READERS)
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(".py"))


def docstrings_of_file(path):
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in other people's strings
            module = ast.parse(file.read())
    except (SyntaxError, ValueError, RecursionError, OSError):  # meant for another Python, or a broken example
        return
    for node in statements(module):
        docstring = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if docstring:
            yield docstring.encode(errors="ignore").decode()  # without lone surrogates, which UTF-8 cannot hold


def statements(node):
    """The node and all statements below it. `ast.walk` would visit expressions too, which takes four times as long."""
    yield node
    for block in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, block, ()):
            yield from statements(child)


def paragraphs(docstring):
    """Hard-wrapped lines joined. Examples (from `>>>` to the next blank line) and lines without a letter are left out:
    they are code, numbers and rules under headings, not language."""
    for block in re.split(r"\n\s*\n", docstring):
        prose = re.split(r"^\s*>>>", block, maxsplit=1, flags=re.MULTILINE)[0]
        line = one_line(" ".join(line for line in prose.splitlines() if re.search(r"[^\W\d_]", line)))
        if line:
            yield line
