"""What is released: the same bytes from the same commit, and a source distribution that holds the whole repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from builders.training import ROOT

from entropy_mask_plugin import __version__

pytestmark = pytest.mark.slow

SOURCE = f"entropy_mask_plugin-{__version__}"
MADE = {"PKG-INFO", "setup.cfg"}  # by setuptools, beside the folder egg-info


def git(*arguments):
    return subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository whose last commit has the files of this checkout as they are now."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    folder = tmp_path_factory.mktemp("repository")
    names = git("-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in (name for name in names if (ROOT / name).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git("init", "-q", folder)
    git("-C", folder, "add", "-A")
    git("-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all", "--date=@1700000000")
    return folder


def release(repository, out, umask):
    """The two files that scripts/release.sh makes, as {name: bytes}."""
    (out / "bin").mkdir(parents=True)
    (out / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (out / "bin" / "python").chmod(0o755)
    path = f"{out / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", repository / "scripts" / "release.sh", out / "dist"], capture_output=True, text=True,
                          env={**os.environ, "PATH": path}, timeout=300, umask=umask)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.name: file.read_bytes() for file in (out / "dist").iterdir()}


@pytest.fixture(scope="module")
def released(repository, tmp_path_factory):
    return [release(repository, tmp_path_factory.mktemp("release") / "out", umask) for umask in (0o022, 0o077)]


def test_two_builds_of_a_commit_are_the_same_bytes(released):
    first, second = released
    assert first.keys() == second.keys() == {f"{SOURCE}.tar.gz", f"{SOURCE}-py3-none-any.whl"}
    assert first == second


def test_the_source_distribution_holds_all_files_of_the_repository(released, repository, tmp_path):
    (tmp_path / "source.tar.gz").write_bytes(released[0][f"{SOURCE}.tar.gz"])
    with tarfile.open(tmp_path / "source.tar.gz") as archive:
        names = {Path(item.name).relative_to(SOURCE) for item in archive if item.isfile()}
    names = {str(name) for name in names if name.parts[0] != "entropy_mask_plugin.egg-info"}
    assert names - MADE == set(git("-C", repository, "ls-files").split())


def test_the_wheel_holds_the_package_and_its_licence_alone(released, tmp_path):
    (tmp_path / "wheel").write_bytes(released[0][f"{SOURCE}-py3-none-any.whl"])
    folders = {name.split("/")[0] for name in zipfile.ZipFile(tmp_path / "wheel").namelist()}
    assert folders == {"entropy_mask_plugin", f"{SOURCE}.dist-info"}


def test_the_release_script_names_a_missing_package_and_an_unknown_argument(repository, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for argument, problem in [(tmp_path / "dist", "the package build was not found"), ("--wheel", "unknown argument")]:
        done = subprocess.run(["bash", repository / "scripts" / "release.sh", argument], capture_output=True, text=True,
                              env=env, cwd=tmp_path)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1 and line.startswith(f"error: {problem}"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["python"]
