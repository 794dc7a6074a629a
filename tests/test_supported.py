"""What is supported is said once, in system/supported.py: all else agrees with it, and what is not is refused."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from distutils.core import run_setup  # setuptools'

import pytest
from builders.training import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from entropy_mask_plugin import doctor, fairseq_fixes
from entropy_mask_plugin.system import supported
from entropy_mask_plugin.system.errors import UsageError

NAMES = ["{}.{}".format(*version) for version in supported.PYTHON]
OTHERS = [(3, 10), (3, 14), (4, 0)]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def distribution():
    """setup.py's declarations."""
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        return run_setup("setup.py", stop_after="init")
    finally:
        os.chdir(before)


# ---- who says it

def test_pip_takes_the_supported_pythons_and_refuses_the_others(distribution):
    allowed = SpecifierSet(str(distribution.python_requires))
    assert all(f"{name}.5" in allowed for name in NAMES)
    assert not any("{}.{}.0".format(*version) in allowed for version in OTHERS)
    named = [line.rpartition(" ")[2] for line in distribution.get_classifiers() if ":: 3." in line]
    assert named == NAMES


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("version", supported.PYTHON)
def test_pip_takes_one_fairseq_and_it_is_that_of_the_install_script(distribution, version, machine):
    place = {"python_version": "{}.{}".format(*version), "platform_machine": machine}
    requirements = [Requirement(line) for line in distribution.install_requires]
    (taken,) = [item for item in requirements if item.name in supported.FAIRSEQ and item.marker.evaluate(place)]
    assert taken.name == supported.fairseq_for(version, machine)
    assert str(taken.specifier) == f"=={supported.FAIRSEQ[taken.name]}"


def test_pip_and_the_doctor_want_the_same_oldest_packages(distribution):
    requirements = {item.name: str(item.specifier) for item in map(Requirement, distribution.install_requires)}
    assert {name: requirements[name] for name in supported.OLDEST} == {
        name: ">={}.{}".format(*oldest) for name, oldest in supported.OLDEST.items()}
    assert doctor.OLDEST is supported.OLDEST


def test_the_pages_name_the_supported_pythons():
    assert f"Python {supported.python_range()}" in read("README.md")
    rows = re.findall(r"^\| (3\.\d+) \| `([\w-]+)` ([\d.]+), (.+?) \|", read("docs/install.md"), re.MULTILINE)
    assert rows == [(name, fairseq, supported.FAIRSEQ[fairseq], "a wheel" if (version, "x86_64") in supported.WHEELS
                     else "compiled") for name, version in zip(NAMES, supported.PYTHON, strict=True)
                    for fairseq in [supported.fairseq_for(version, "x86_64")]]
    for name, oldest in supported.OLDEST.items():
        assert "{} {}.{} or newer".format(name, *oldest) in read("docs/install.md")


def test_the_hosted_workflow_tests_each_supported_python():
    workflow = read(".github/workflows/test.yml")
    assert sorted(set(re.findall(r'python-version: "(3\.\d+)"', workflow))) == NAMES


def test_lint_and_types_are_those_of_the_oldest_python():
    oldest = supported.PYTHON[0]
    assert 'target-version = "py{}{}"'.format(*oldest) in read("pyproject.toml")
    assert 'pythonVersion = "{}.{}"'.format(*oldest) in read("pyproject.toml")


def test_the_recorded_environment_is_a_supported_one():
    pins = dict(re.findall(r"^([\w.-]+)==(.+)$", read("constraints.txt"), re.MULTILINE))
    assert any(pins.get(name) == release for name, release in supported.FAIRSEQ.items())
    assert all(tuple(map(int, pins[name].split(".")[:2])) >= oldest for name, oldest in supported.OLDEST.items())


# ---- who refuses the others

def refuses(message, version):
    return re.fullmatch(rf"python {version} is not supported, expected {supported.python_range()}: .+", message)


def test_a_python_that_is_not_supported_is_refused_with_the_reason(monkeypatch):
    assert not any(map(supported.python_problem, supported.PYTHON))
    for version in OTHERS:
        problem = supported.python_problem(version)
        assert refuses(problem, "{}.{}".format(*version))
        assert ("hydra.main" in problem) == (version > supported.PYTHON[-1])
        monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
        assert doctor.python() == (doctor.ERROR, problem)
        with pytest.raises(UsageError) as error:
            fairseq_fixes.apply_fairseq_fixes()
        assert str(error.value) == problem


@pytest.mark.parametrize(("name", "release", "is_fine"), [
    ("fairseq-fixed", "0.12.3.1", True), ("ve-fairseq", "0.12.3", True),
    ("fairseq-fixed", "0.12.4", False), ("ve-fairseq", "0.12.3.1", False), ("fairseq", "0.12.2", False)])
def test_a_fairseq_for_which_the_patches_were_not_written_is_refused(name, release, is_fine, monkeypatch):
    def version(asked):
        if asked == name:
            return release
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", version)
    if is_fine:
        fairseq_fixes.refuse_another_fairseq()
        assert supported.installed_fairseq() == (name, release)
        return
    with pytest.raises(UsageError) as error:
        fairseq_fixes.refuse_another_fairseq()
    assert "expected fairseq-fixed 0.12.3.1 or ve-fairseq 0.12.3" in str(error.value)
    assert f"{name} {release}" in str(error.value) or "neither fairseq-fixed nor ve-fairseq" in str(error.value)


@pytest.fixture
def python_that_is(tmp_path):
    """A program that takes itself for Python of another version."""

    def make(version, file=None):
        file = file or tmp_path / "python"
        file.parent.mkdir(parents=True, exist_ok=True)
        code = f"import runpy, sys; sys.version_info = {(*version, 0, 'final', 0)}; " \
               "runpy.run_path(sys.argv[1], run_name='__main__')"
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
        file.chmod(0o755)
        return file

    return make


def install(*arguments, **variables):
    return subprocess.run(["bash", ROOT / "scripts" / "install.sh", *map(str, arguments)], capture_output=True,
                          text=True, timeout=60, env={**os.environ, **variables})


@pytest.mark.parametrize("version", OTHERS)
def test_the_install_script_refuses_it_before_it_does_anything(version, python_that_is, tmp_path):
    program, venv, existing = python_that_is(version), tmp_path / "venv", tmp_path / "existing"
    python_that_is(version, existing / "bin" / "python")
    calls = [install("--venv", venv, "--python", program), install("--venv", venv, PYTHON=str(program)),
             install("--venv", existing)]  # made with that Python
    for done in calls:
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (1, "")
        assert refuses(line.removeprefix("error: "), "{}.{}".format(*version))
    assert not venv.exists() and [path.name for path in existing.rglob("*")] == ["bin", "python"]


def test_the_install_script_names_a_python_that_is_missing(tmp_path):
    done = install("--venv", tmp_path / "venv", "--python", "python9.9")
    assert done.stderr == "error: --python: python9.9 not found, expected a Python program\n"
    assert done.returncode == 1 and not (tmp_path / "venv").exists()


def test_the_install_script_refuses_another_python_than_that_of_the_environment(environment, tmp_path):
    folder, log = environment
    other = tmp_path / "python8.8"
    other.write_text("#!/bin/sh\necho Python 8.8\n")
    other.chmod(0o755)
    done = install("--venv", folder, "--python", other)
    assert done.stderr == f"error: --python: {other} is Python 8.8, but the environment {folder} has Python " \
                          "{}.{}: delete it, or choose another folder with --venv\n".format(*sys.version_info)
    assert (done.returncode, done.stdout) == (1, "") and not log.exists()
    assert install("--venv", folder, "--python", sys.executable, EXTRAS="dev").returncode == 0


@pytest.mark.parametrize(("script", "flag"), [("install.sh", "--venv"), ("quickstart.sh", "--out")])
def test_a_folder_that_cannot_be_created_is_named(script, flag, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    done = subprocess.run(["bash", ROOT / "scripts" / script, flag, folder], capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f"error: {flag}: cannot write to {folder}, expected a folder ")


@pytest.mark.parametrize(("form", "has_headers", "has_venv", "missing"), [
    ("wheel", False, True, ""), ("wheel", False, False, "python3-venv"), ("source", True, True, "g++"),
    ("source", False, False, "python3-venv g++ python3-dev")])
def test_what_only_compiling_needs_is_asked_for_where_there_is_no_wheel(form, has_headers, has_venv, missing, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "grep", "ln", "mkdir", "sed"):
        (tools / tool).symlink_to(shutil.which(tool))
    if has_headers:
        (tmp_path / "Python.h").touch()
    python = tmp_path / "python"  # answers as a system's Python would, and makes no environment
    python.write_text(f"""#!{tools}/bash
case "$*" in
    *supported.py) echo fairseq-fixed {form} ;;
    *ensurepip*) exit {int(not has_venv)} ;;
    *include*) echo {tmp_path} ;;
    *) exit 1 ;;
esac
""")
    python.chmod(0o755)
    done = install("--venv", tmp_path / "venv", "--python", python, PATH=str(tools))
    assert done.returncode == 1 and ("== 1/3 environment" in done.stdout) == (not missing)
    expected = f"error: --python: {python} without {missing} found, expected what makes an environment and compiles " \
               f"fairseq (Debian: apt-get install {missing})\n"
    assert done.stderr == (expected if missing else "")


@pytest.fixture
def environment(tmp_path):
    """An environment with a torch and a fairseq in name alone, whose pip writes down what it is asked."""
    folder, log = tmp_path / "environment", tmp_path / "pip.log"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for module, code in {
        "torch": "__version__ = '2.13.0+cu130'", "pip": "",
        "pip/__main__": f"import sys; open({str(log)!r}, 'a').write(' '.join(sys.argv[2:]) + '\\n')",
    }.items():
        file = site / f"{module}.py" if "/" in module else site / module / "__init__.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    (site / "torch-2.13.0.dist-info").mkdir()
    (site / "torch-2.13.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    return folder, log


def test_the_install_script_keeps_the_torch_that_is_there_and_has_one_fairseq(environment):
    folder, log = environment
    done = install("--venv", folder, EXTRAS="dev")
    assert done.returncode == 0, done.stderr
    assert (folder / "keep-torch.txt").read_text() == "torch==2.13.0\n"  # a CUDA build's distribution, without +cu130
    calls = log.read_text().splitlines()
    fairseq = supported.fairseq_for(sys.version_info[:2], platform.machine())
    (other,) = set(supported.FAIRSEQ) - {fairseq}
    assert f"uninstall -y {other}" in calls and f"uninstall -y {fairseq}" not in calls
    (plug_in,) = [call for call in calls if call.startswith("install -c")]
    assert plug_in == f"install -c {folder}/keep-torch.txt --no-build-isolation -e {ROOT}[dev]"
    log.unlink()
    assert "nothing to do" in install("--venv", folder, EXTRAS="dev").stdout and not log.exists()


# ---- what is released

def test_the_version_of_the_citation_and_of_the_changelog_is_that_of_the_package(distribution):
    version = distribution.get_version()
    assert re.search(r"^version: (.+)$", read("CITATION.cff"), re.MULTILINE).group(1) == version
    assert re.search(r"^## ([\d.]+)", read("CHANGELOG.md"), re.MULTILINE).group(1) == version
