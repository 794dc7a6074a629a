"""The command line: `entropy-mask`, `python -m entropy_mask_plugin.cli` and the fronts in scripts/ are the same."""

import io
import os
import re
import subprocess
import sys

import pytest
from builders.training import ROOT

from entropy_mask_plugin import __version__
from entropy_mask_plugin.cli import COMMANDS
from entropy_mask_plugin.system.command_line import writing_to_standard_output
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.system.extras import MODULES, require_extras

MODULE = ["-m", "entropy_mask_plugin.cli"]
FRONTS = {re.search(r'run_command\("(.+?)"', path.read_text()).group(1): path
          for path in (ROOT / "scripts").glob("*.py")}


def python(*arguments, cwd=ROOT):
    """The wide terminal keeps every usage on one line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "999"}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          env=environment, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_front_says_the_same(command, tmp_path):
    done = python(*MODULE, command, "--help")
    prog = f"python -m entropy_mask_plugin.cli {command}"
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {prog} "), done.stderr
    assert "%(prog)s" not in done.stdout
    if command not in ("doctor", "policies"):  # which can be called as modules
        front = FRONTS[command]
        by_front = python(front, "--help", cwd=tmp_path)
        assert by_front.returncode == 0, by_front.stderr
        assert by_front.stdout.replace(f"python scripts/{front.name}", prog) == done.stdout


def test_every_front_is_of_a_command():
    assert FRONTS.keys() == COMMANDS.keys() - {"doctor", "policies"}


def test_help_imports_nothing_that_takes_seconds():
    code = f"""if True:
        import contextlib, io, sys
        from entropy_mask_plugin import cli
        for command in {[name for name in COMMANDS if name != "build-entropy-cache"]}:  # whose flags are the task's
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
                cli.parse(command, ["--help"])
        print(*sys.modules.keys() & {{"torch", "fairseq", "numpy", "matplotlib", "tabulate", "sklearn"}})"""
    done = python("-c", code)
    assert done.returncode == 0 and done.stdout.split() == [], done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_command_all_are_listed_with_a_line_each(arguments):
    done = python("-S", *MODULE, *arguments)  # also on a bare Python
    listed = re.findall(r"^  (\S+)  +(\S.{20,})$", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and [name for name, _ in listed] == list(COMMANDS), done.stderr


@pytest.mark.parametrize("given, nearest", [
    ("prepare_corpus", "prepare-corpus"), ("study", "studies"), ("reproduce", "studies"),
])
def test_an_unknown_command_is_answered_with_the_list_and_the_nearest_one(given, nearest):
    done = python(*MODULE, given)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.endswith(f"error: unknown command {given}, did you mean {nearest}?\n")
    assert all(f"  {name} " in done.stderr for name in COMMANDS)


def test_the_version_is_printed():
    assert python(*MODULE, "--version").stdout == __version__ + "\n"


@pytest.mark.slow
def test_a_mistake_is_one_line_and_an_exit_status(tmp_path):
    done = python(*MODULE, "prepare-corpus", "--text", tmp_path / "missing", "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: --text ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("extra, module", [(extra, names[-1]) for extra, names in MODULES.items()])
def test_a_missing_extra_is_named_with_what_installs_it(extra, module, monkeypatch):
    require_extras(extra)
    monkeypatch.setitem(sys.modules, module, None)
    command = re.escape(f'pip install "entropy-mask-plugin[{extra}]"')
    with pytest.raises(UsageError, match=f"^not installed: {module}, expected {command}$"):
        require_extras(extra)


def test_a_command_without_its_extras_ends_in_one_line(tmp_path):
    code = """if True:
        import sys
        sys.modules.update(sklearn=None, tabulate=None)
        from entropy_mask_plugin.cli import main
        sys.exit(main(["glue-table", "run", "--out", "tables"]))"""
    done = python("-c", code)
    assert done.returncode == 1
    assert done.stderr == ('error: not installed: sklearn, tabulate, expected pip install '
                           '"entropy-mask-plugin[glue,report]"\n')


@pytest.mark.slow
def test_a_dataset_without_the_package_that_fetches_it_ends_in_one_line(tmp_path):
    code = f"""if True:
        import sys
        sys.modules["datasets"] = None
        from entropy_mask_plugin.cli import main
        sys.exit(main(["prepare-corpus", "--dataset", "wikitext-2", "--out", {str(tmp_path / "out")!r}]))"""
    done = python("-c", code)
    assert done.returncode == 1
    assert done.stderr == 'error: not installed: datasets, expected pip install "entropy-mask-plugin[corpus]"\n'
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def start_listing(stdout, *arguments, **environment):
    """The list of commands, which a shell may cut off."""
    return subprocess.run([sys.executable, "-m", "entropy_mask_plugin.cli", *arguments], stdout=stdout, text=True,
                          stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


@pytest.mark.parametrize("arguments", [[], ["prepare-corpus", "--help"], ["prepare-corpus", "--out", ""]])
def test_a_reader_that_has_gone_ends_a_command_without_a_traceback(arguments):
    read, write = os.pipe()
    os.close(read)
    done = start_listing(write, *arguments)
    os.close(write)
    assert (done.returncode != 0 or "--help" in arguments) and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (1 if "" in arguments else 0)


def test_a_full_disk_behind_the_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = start_listing(full)
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device, expected room for what is printed\n"


def test_letters_that_the_encoding_lacks_are_escaped(monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="ascii"))
    with writing_to_standard_output():
        print("t\u00e4xt")
    assert file.getvalue() == b"t\\xe4xt\n"


def test_the_error_of_another_file_is_not_taken_for_one_of_the_standard_output():
    with pytest.raises(FileNotFoundError), writing_to_standard_output():
        open("/nowhere/file")
