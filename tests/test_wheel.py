"""What a user has who installs the wheel, without a checkout: the commands work, and read nothing of the checkout."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from builders.glue import write_glue
from builders.training import MODULES, ROOT, docstrings

from entropy_mask_plugin import __version__
from entropy_mask_plugin.cli import COMMANDS
from entropy_mask_plugin.system.extras import MODULES as EXTRAS

pytestmark = pytest.mark.slow  # all of them start processes

# In every process of the environment: what is opened, listed or started is written down where it is of a checkout.
WATCH = """
import os, sys

CHECKOUT, LOG = {checkout!r}, {log!r}

def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "subprocess.Popen"):
        words = arguments[1] if event == "subprocess.Popen" else [arguments[0]]
        for word in words:
            if isinstance(word, (str, bytes, os.PathLike)) and os.fsdecode(word).startswith(CHECKOUT):
                os.write(LOG_FILE, f"{{event}} {{os.fsdecode(word)}}\\n".encode())

LOG_FILE = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "README.md", "LICENSE", "pyproject.toml"):  # pip builds in the folder it is given
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "entropy_mask_plugin", folder / "entropy_mask_plugin",
                    ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder / "dist", folder)
    (file,) = (folder / "dist").iterdir()
    return file


def pip(*arguments):
    done = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of an environment that has the wheel, and the requirements of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ours = [path for path in sys.path if path.endswith("-packages")]  # behind its own; their .pth files are not read
    (site / "requirements.pth").write_text("\n".join([*ours, "import watch_the_checkout"]) + "\n")
    checkout = (*(str(ROOT / name) for name in ("entropy_mask_plugin", "scripts", "tests", "setup.py")),
                *(os.path.join(path, "entropy_mask_plugin") for path in ours))
    checkout += tuple(os.path.realpath(path) for path in checkout)
    (site / "watch_the_checkout.py").write_text(WATCH.format(checkout=checkout, log=str(folder / "opened.log")))
    return folder


@pytest.fixture
def entropy_mask(environment, tmp_path):
    """Runs the command in an empty folder: (exit status, standard output, standard error)."""
    log = environment / "opened.log"
    log.unlink(missing_ok=True)

    def run(*arguments, script="entropy-mask"):
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run([environment / "bin" / script, *map(str, arguments)], capture_output=True, text=True,
                              cwd=tmp_path, timeout=300,
                              env={**variables, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"})
        return done.returncode, done.stdout, done.stderr

    yield run
    assert log.read_text() == ""  # it is there: the hook was at work


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    lines = [" ".join(words) for name in MODULES for words in docstrings(name) if len(words) > 8]
    file.write_text("\n\n".join(lines[:150]) + "\n", encoding="utf-8")
    return file


def test_the_wheel_holds_the_package_and_what_it_reads_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    ours = {name for name in names if not name.startswith("entropy_mask_plugin-")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "entropy_mask_plugin").rglob("*.py")}
    others = {f"entropy_mask_plugin/{name}" for name in (
        "py.typed", "studies/page.html", "atlas/page.html", "atlas/page.css", "atlas/page.js")}
    assert ours == modules | others
    assert any(name.endswith("LICENSE") for name in names)


def test_the_extras_are_those_that_errors_name(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert re.search(r"^Version: (.+)$", metadata, re.MULTILINE).group(1) == __version__
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == EXTRAS.keys()
    required = re.findall(r"^Requires-Dist: ([\w-]+).*?(?:; extra == [\"'](\w+)[\"'])?$", metadata, re.MULTILINE)
    distributions = importlib.metadata.packages_distributions()
    for extra, modules in EXTRAS.items():
        theirs = {name.lower() for name, of in required if of == extra}
        assert all(distributions[module][0].lower() in theirs for module in modules), extra
        assert extra == "dev" or len(theirs) == len(modules)  # each is looked for


def test_a_read_of_the_checkout_would_be_seen(environment, tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import entropy_mask_plugin.system.text"
    subprocess.run([environment / "bin" / "python", "-c", code, ROOT], check=True, cwd=tmp_path)
    assert "entropy_mask_plugin/system/text.py" in (environment / "opened.log").read_text()


def test_the_doctor_finds_the_installed_package(entropy_mask, environment):
    status, printed, errors = entropy_mask("doctor")
    assert status == 0 and "fairseq knows the task" in printed, printed + errors
    status, printed, errors = entropy_mask("-c", "import entropy_mask_plugin as e; print(e.__file__)", script="python")
    assert printed.startswith(str(environment)), errors


def test_the_commands_are_listed_and_explained(entropy_mask):
    status, printed, _ = entropy_mask()
    assert status == 0 and all(f"  {name} " in printed for name in COMMANDS)
    status, printed, errors = entropy_mask("studies", "--help")
    assert status == 0 and printed.startswith("usage: entropy-mask studies STUDY "), errors
    assert "    entropy-mask studies teacher-masking --scale small" in printed


def test_a_corpus_is_made_and_a_study_of_it_planned_with_commands_of_the_package(entropy_mask, text, tmp_path):
    status, printed, errors = entropy_mask("prepare-corpus", "--text", text, "--out", "corpus", "--vocab-size", "300",
                                           "--valid-fraction", "0.2", "--workers", "1")
    assert status == 0 and printed.splitlines()[-1].endswith("corpus/bin"), errors
    assert (tmp_path / "corpus" / "bin" / "train.bin").exists()
    glue = write_glue(tmp_path / "glue")
    status, printed, errors = entropy_mask("studies", "self-masking", "--scale", "smoke", "--data", "corpus/bin",
                                           "--glue", glue, "--out", "study", "--tasks", "rte", "--seeds", "1",
                                           "--dry-run", "--", "--cpu")
    assert status == 0, errors
    commands = [line.split() for line in printed.splitlines() if not line.startswith("#")]
    assert {tuple(words[:3]) for words in commands} == {
        ("python", "-m", "entropy_mask_plugin.cli"), ("python", "-m", "fairseq_cli.train")}
    words = next(words for words in commands if words[3] == "glue")
    status, _, errors = entropy_mask(*words[1:], script="python")  # before there is a model
    assert status == 1 and "Traceback" not in errors
    assert "--checkpoint" in errors and errors.startswith("error: ") and errors.count("\n") == 1
