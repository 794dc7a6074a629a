"""ruff and pyright have nothing to say, and no file names a package registry or a path of somebody's machine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.training import ROOT

# In pieces, so that this file does not contain them.
REGISTRY_HOSTS = [".".join(parts) for parts in (
    ("pypi", "org"), ("pypi", "python", "org"), ("files", "pythonhosted", "org"), ("download", "pytorch", "org"),
    ("conda", "anaconda", "org"), ("registry", "npmjs", "org"), ("registry", "yarnpkg", "com"), ("crates", "io"),
    ("proxy", "golang", "org"), ("repo1", "maven", "org"), ("archive", "ubuntu", "com"), ("deb", "debian", "org"))]
MACHINE_FOLDERS = ["/".join(("", *parts)) for parts in (("work",), ("tmp", "h"), ("home",), ("root",), ("Users",))]


def tool(name):
    """The program beside the Python that runs this, or on the path."""
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.exists() else shutil.which(name)
    return program or pytest.skip(f"{name} is not installed: pip install -e .[dev]")


def output_of(*command):
    """What a failing command printed; nothing where it succeeded."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def project_files():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def matches(pattern):
    """["file: match"] of a pattern, binary files included."""
    compiled = re.compile(pattern.encode())
    return [f"{file.relative_to(ROOT)}: {match[0].decode()}" for file in project_files()
            for match in compiled.finditer(file.read_bytes())]


def test_ruff_finds_nothing():
    assert output_of(tool("ruff"), "check", ".") == ""


def test_pyright_finds_nothing():
    pytest.importorskip("triton", reason="triton is not installed: run bash scripts/test.sh")
    assert output_of(tool("pyright"), "--pythonpath", sys.executable) == ""


def test_no_file_names_a_package_registry():
    assert matches("|".join(rf"\b{re.escape(host)}\b" for host in REGISTRY_HOSTS)) == []


def test_no_file_names_a_path_of_a_machine():
    assert matches("|".join(rf"(?<![\w.~}})/-]){folder}(?=/|\b)" for folder in MACHINE_FOLDERS)) == []
