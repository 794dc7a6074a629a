"""README and docs: short enough, up to date, every link resolves, every command works."""

import functools
import importlib.util
import itertools
import logging
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import List, Optional

import pytest
from builders.training import PLUGIN, ROOT, TINY, binarise_task, parse
from fairseq import checkpoint_utils, options
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from fairseq_cli import train as fairseq_train
from omegaconf import II, MISSING
from torch.distributed.run import get_args_parser

import entropy_mask_plugin  # noqa: F401  (registers the archs)

DOCS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "examples").rglob("*.md"))
PAGES = [*DOCS, "CHANGELOG.md", *EXAMPLES]

# How each command block is tested, by page and first command. HELP: its scripts' --help, here; TRAINS: its trainings,
# here, at a smoke size; else the files that run its commands in full. Whatever it is, its flags are checked here.
HELP, TRAINS = "help", "trains"
BLOCKS = {
    "README.md": {
        "bash scripts/quickstart.sh": [HELP],  # its steps: test_corpus, test_training, test_glue_run, test_reports
        "bash scripts/install.sh": [HELP],
    },
    "CONTRIBUTING.md": {
        "bash scripts/install.sh": [HELP],
        "python docs/make_flags.py": ["test_docs.py"],
        "bash scripts/release.sh": [HELP, "test_release.py"],
    },
    "docs/install.md": {"bash scripts/install.sh": [HELP, "test_supported.py"]},
    "docs/pretrain.md": {
        "python scripts/prepare_corpus.py": ["test_corpus.py", TRAINS],
        "python -m entropy_mask_plugin.doctor": ["test_doctor.py"],
        "fairseq-train --lr-scheduler budget_linear": [TRAINS],
        "torchrun": ["test_front_ends.py"],
        "fairseq-hydra-train": ["test_front_ends.py"],
        "fairseq-train --init-from": [TRAINS, "test_initialization.py"],
        "fairseq-train --mixer-pattern": [TRAINS, "test_hbert.py"],
        "python scripts/flops.py": ["test_flops.py"],
        "mkdir": [TRAINS, "test_reports.py"],
    },
    "docs/block-length.md": {"fairseq-train --tokens-per-sample": [TRAINS, "test_block_lengths.py"]},
    "docs/corpus.md": {
        "python scripts/prepare_corpus.py --vocab-size": ["test_corpus.py"],
        "python scripts/prepare_corpus.py --dataset": ["test_corpus.py"],
        "python scripts/prepare_corpus.py --bert-vocab": ["test_huggingface_tokenizers.py"],
    },
    "docs/teacher-and-cache.md": {
        "fairseq-train --teacher": [TRAINS],
        "python scripts/build_entropy_cache.py": [TRAINS, "test_entropy_cache.py"],
        "python scripts/build_entropy_cache.py --entropy-folds": ["test_entropy_cache.py"],
        "fairseq-train --self-entropy-every": [TRAINS, "test_entropy_cache.py"],
    },
    "docs/huggingface.md": {
        "python scripts/import_hf_bert.py": [TRAINS, "test_huggingface.py", "test_domain_adaptation.py"],
        "python scripts/export_hf_bert.py": [HELP, "test_domain_adaptation.py"],
    },
    "docs/glue.md": {
        "python scripts/finetune_glue.py": [HELP, "test_glue_run.py", "test_glue_table.py"],
        "python scripts/make_docstring_tasks.py": [HELP, "test_glue_reading.py"],
        "bash examples/paper/finetune.sh": ["test_docs.py"],
    },
    "docs/evaluation.md": {
        "python scripts/minimal_pairs.py": [HELP, "test_minimal_pairs.py"],
        "python scripts/pseudo_perplexity.py": [HELP, "test_minimal_pairs.py"],
        "fairseq-train --valid-pairs": [TRAINS, "test_valid_pairs.py"],
        "python scripts/cross.py": [HELP, "test_cross.py"],
    },
    "docs/reproduce.md": {"python scripts/prepare_corpus.py": ["test_studies.py"]},
    "docs/policies.md": {
        "python -m entropy_mask_plugin.policies": ["test_policy_parts.py"],
        "fairseq-train --self-mask-from-epoch": [TRAINS],
        "fairseq-train --self-mask-from-epoch --kd-weight": [TRAINS],
        "fairseq-train --mask-score surprisal": [TRAINS],
        "fairseq-train --mask-score accuracy": [TRAINS, "test_learners_in_training.py"],
        "fairseq-train --self-mask-from-epoch --self-mask-model": [TRAINS],
        "fairseq-train --entropy-folds": [TRAINS, "test_folds.py"],
    },
    "docs/atlas.md": {
        "entropy-mask atlas --beside": ["test_atlas.py"],
        "entropy-mask atlas --passages": ["test_atlas.py"],
    },
    "docs/record-masks.md": {
        "fairseq-train --record-masks": [TRAINS, "test_recording.py"],
        "fairseq-train --replay-masks": ["test_recording.py"],
        "entropy-mask diff": ["test_recording.py"],
    },
    "docs/tracking.md": {"fairseq-train": ["test_tracking.py"]},
}
# Blocks that test_policy_parts.py, test_extensions.py and test_recording.py execute.
PYTHON = {"README.md": 1, "docs/policies.md": 6, "docs/record-masks.md": 1}
WITHOUT_FLAGS = {"mkdir", "source", "tee", "head"}


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def fenced(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)


def prose(page):
    """The page without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


# ---- size and links

def test_readme_is_short():
    text = read("README.md")
    assert text.count("\n") <= 150 and len(text.encode()) <= 10_000


def anchors(page):
    """GitHub's names for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_and_their_anchors_resolve(page):
    text = re.sub(r"`[^`]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file.resolve().relative_to(ROOT)), f"{page}: {target}"


@pytest.mark.parametrize("page", DOCS)
def test_files_that_are_named_exist(page):
    for path in re.findall(r"`([\w./-]+/[\w.-]*\.(?:py|sh|yaml|yml|md|txt))`", prose(page)):
        if path.split("/")[0] in ("mine", "runs", "corpora", "models", "gpu"):  # a user's own
            continue
        assert any((root / path).exists() for root in (ROOT, ROOT / "entropy_mask_plugin", ROOT / "tests")), path


# ---- the page that is written by a script

@functools.cache
def make_flags():
    spec = importlib.util.spec_from_file_location("make_flags", ROOT / "docs" / "make_flags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logging.disable(logging.NOTSET)  # a program may be silent, the tests of this process read the log
    return module


@pytest.mark.slow
def test_the_page_of_flags_is_up_to_date():
    # In a process of its own: other tests register parts here.
    code = "import sys; sys.path.insert(0, 'docs'); import make_flags; sys.stdout.write(make_flags.page())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == read("docs/flags.md"), "run python docs/make_flags.py"


class Fruit(Enum):
    PEAR = "pear"
    PLUM = "plum"


@dataclass
class AnyConfig(FairseqDataclass):
    path: str = field(default=MISSING, metadata={"help": "where | from"})
    fruit: str = field(default="pear", metadata={"help": "which", "argparse_const": None})
    number: Optional[float] = field(default=None, metadata={"help": "how many, as --fruit (BERT: 0.1; default: a few)"})
    is_ripe: bool = field(default=False, metadata={"help": "eat <mask> now"})
    is_peeled: bool = field(default=True, metadata={"help": "without skin"})
    sizes: List[int] = field(default_factory=lambda: [1, 2], metadata={"help": "of each"})
    alias: int = field(default=3, metadata={"help": "short", "argparse_alias": "-a"})
    seed: int = II("common.seed")
    hidden: int = 1


def test_any_field_of_a_dataclass_becomes_a_row():
    rows = {flag: (meaning, default) for flag, meaning, default in make_flags().rows_of(AnyConfig)}
    assert rows["--path"] == ("where | from", "required")
    assert rows["--number"] == ("how many, as --fruit (BERT: 0.1)", "a few")
    assert rows["--is-ripe"][1] == "off" and rows["--is-peeled"][1] == "on" and rows["--sizes"][1] == "1,2"
    assert rows["--alias"] == ("short", "3") and "--seed" not in rows and rows["--hidden"] == ("", "1")
    text = make_flags().table([("--path", *rows["--path"]), ("--number", *rows["--number"]),
                               ("--is-ripe", *rows["--is-ripe"])])
    assert "where \\| from" in text and "as `--fruit`" in text and "eat `<mask>` now" in text


def test_a_flag_of_archs_names_the_defaults_that_differ():
    @dataclass
    class Large(FairseqDataclass):
        width: int = field(default=8, metadata={"help": "of layers"})

    @dataclass
    class Small(FairseqDataclass):
        width: int = field(default=4, metadata={"help": "of layers"})
        depth: int = field(default=1, metadata={"help": "of it"})

    assert make_flags().rows_of_archs({"large": Large, "larger": Large, "small": Small}) == [
        ("--width", "of layers", "8; 4 for `small`"), ("--depth", "of it (only `small`)", "1")]


# ---- commands

def expanded(block, arrays):
    """The block with its bash arrays and substitutions replaced, one command a line."""
    block = re.sub(r"\$\(cat \S+/flags.txt\)", "--arch bertlet", block)
    block = re.sub(r"\$\(which (\S+)\)", r"\1", block)

    def insert(text):
        return re.sub(r'"\$\{(\w+)\[@\]\}"', lambda match: arrays[match[1]], text)

    def define(match):
        arrays[match[1]] = insert(match[2].replace("\n", " "))
        return ""

    block = re.sub(r"^(\w+)=\((.*?)\)$", define, block, flags=re.DOTALL | re.MULTILINE)
    return insert(block.replace("\\\n", " "))


@functools.cache
def arrays_of_pretrain():
    arrays = {}
    expanded("\n".join(fenced("docs/pretrain.md", "bash")), arrays)
    return arrays


def commands(block):
    """Its commands as lists of words; both sides of a pipe."""
    for line in expanded(block, dict(arrays_of_pretrain())).splitlines():
        words = shlex.split(re.sub(r"^\s*(for .*; do|done|(\w+=\S+ )+)", "", line), comments=True)
        while words:
            end = words.index("|") if "|" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


def key_of(page, block):
    """The entry of BLOCKS that a block is meant by: the program, and a flag where several begin with the program."""
    words = next(commands(block))
    matching = [key for key in BLOCKS.get(page, {})
                if words[: len(key.split(" --")[0].split())] == key.split(" --")[0].split()
                and set(re.findall(r"--[\w-]+(?: [a-z]\w*)?", key)) <= set(words) | pairs(words)]
    assert matching, f"{page}: nothing in BLOCKS says how this is tested:\n{block}"
    return max(matching, key=len)


def pairs(words):
    return {" ".join(pair) for pair in itertools.pairwise(words)}


ALL_BLOCKS = [(page, block) for page in DOCS for block in fenced(page, "bash")]


def test_every_command_block_is_in_the_table_once():
    keys = [(page, key_of(page, block)) for page, block in ALL_BLOCKS]
    assert sorted(keys) == sorted((page, key) for page, of_page in BLOCKS.items() for key in of_page)
    for page in DOCS:
        assert len(fenced(page, "python")) == PYTHON.get(page, 0), page
        assert not re.findall(r"^```(?!bash$|python$|$)", read(page), re.MULTILINE), f"{page}: a block of another kind"


@pytest.mark.parametrize("file", sorted({how for of_page in BLOCKS.values() for hows in of_page.values()
                                         for how in hows if how.endswith(".py")}))
def test_files_in_the_table_exist(file):
    assert list((ROOT / "tests").rglob(file))


@functools.cache
def help_of(*program):
    """What it prints with --help."""
    done = subprocess.run([*program, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0 and done.stdout, done.stderr
    return done.stdout


def flags_in(text):
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def flags_of(words):
    return {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}


def fairseq_flags(words):
    """All flags of a fairseq-train of this task, criterion, arch …; ends where one of the words is none of them."""
    parser = options.get_training_parser()
    options.parse_args_and_arch(parser, words)
    return set(parser._option_string_actions)


ANY_TRAINING = ["data", "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--optimizer", "fused_adamw"]


def check(words):
    """Raise where the command would not understand a flag."""
    if words[0] == "entropy-mask":
        words = ["python", "-m", "entropy_mask_plugin.cli", *words[1:]]
    program, *rest = words
    if program == "fairseq-train":
        assert flags_of(rest) <= fairseq_flags(rest)
    elif program == "torchrun":
        at = rest.index("fairseq-train")
        get_args_parser().parse_args([*rest[:at], "script"])
        check(rest[at:])
    elif program == "fairseq-hydra-train":
        check_hydra(rest)
    elif program == "bash":
        check_shell(*rest)
    elif words[:2] == ["python", "-c"]:
        compile(words[2], "<docs>", "exec")
    elif program == "python":
        n = 3 if "entropy_mask_plugin.cli" in rest[:2] else 2 if rest[0] == "-m" else 1
        own, more = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
        if flags_of(own):
            assert flags_of(own) <= flags_in(help_of(sys.executable, *own[:n]))
        assert flags_of(more) <= fairseq_flags([*ANY_TRAINING, "--arch", "bertlet"])
    else:
        assert program in WITHOUT_FLAGS and not flags_of(rest), f"{program}: what are its flags?"


def check_shell(script, *words):
    text = read(script)
    if '"$@"' in text and script.startswith("examples"):  # its flags are fairseq-train's
        assert flags_of(words) <= fairseq_flags([*ANY_TRAINING, "--arch", "hbert_v1"])
    else:
        assert flags_of(words) <= flags_in(text)


def check_hydra(words):
    folder, name = (words[words.index(flag) + 1] for flag in ("--config-dir", "--config-name"))
    assert (ROOT / folder.replace("$PWD/", "") / f"{name}.yaml").exists()
    task = {item.name for item in fields(TASK_DATACLASS_REGISTRY["entropy_masked_lm"])}
    groups = {item.name: item.type for item in fields(FairseqConfig)}
    for group, key in re.findall(r"^\+*(\w+)\.(\w+)=", "\n".join(words), re.MULTILINE):
        assert key in task if group == "task" else key in groups[group].__dataclass_fields__, f"{group}.{key}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), ALL_BLOCKS, ids=[f"{page}: {block[:40]}" for page, block in ALL_BLOCKS])
def test_the_flags_of_every_command_are_known(page, block):
    for words in commands(block):
        check(words)


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_flags_of_the_examples_are_known(page):
    for block in fenced(page, "bash"):
        for words in commands(block):
            check(words)


@pytest.mark.parametrize("page", PAGES)
def test_the_flags_of_commands_within_a_sentence_are_known(page):
    for line in re.findall(r"`((?:\w+=\S+ )?(?:python|bash|fairseq-train|fairseq-hydra-train) [^`\n]+)`", prose(page)):
        if "…" not in line and "--help" not in line:
            check(next(commands(line)))


@pytest.mark.parametrize("line", [
    "fairseq-train data --task entropy_masked_lm --arch bertlet --mask-stratgy high",
    "python scripts/flops.py --arch bertlet --lenght 3",
    "python scripts/reproduce.py drift -- --mask-stratgy high",
    "bash scripts/quickstart.sh --where there",
    "bash examples/hybridbert/pretrain.sh hbert_v1 bin run 24 --mask-stratgy high",
    'fairseq-hydra-train --config-dir "$PWD/examples/paper" --config-name bertlet task.mask_stratgy=high',
    "unheard-of --flag",
])
def test_a_flag_that_a_command_does_not_know_is_found(line, capsys):
    with pytest.raises((AssertionError, SystemExit)):
        check(next(commands(line)))


@pytest.mark.parametrize("program", sorted({
    tuple(words[:2]) for page, block in ALL_BLOCKS if HELP in BLOCKS[page][key_of(page, block)]
    for words in commands(block) if len(words) > 1 and re.search(r"scripts/\w+\.(py|sh)$", words[1])
    and words[1] != "scripts/test.sh"}))  # whose --help would be pytest's, after an installation
def test_scripts_have_a_help(program):
    interpreter, script = program
    assert script in help_of(sys.executable if interpreter == "python" else interpreter, script)


def as_smoke_run(words, data_bin, teacher, folder):
    """A fairseq-train of the docs on other data, with a smaller model, for two updates."""
    replace = {"--user-dir": PLUGIN, "--teacher": teacher, "--init-from": teacher, "--finetune-from-model": teacher,
               "--save-dir": f"{folder}/run", "--entropy-cache": f"{folder}/cache", "--record-masks": f"{folder}/masks",
               "--init-layers": "0,1"}
    words = [replace.get(flag, word) for flag, word in zip(["", *words], words, strict=False)]
    layers = ["--encoder-layers", "4"] if "--mixer-pattern" in words else []
    return [data_bin, *words[2:], *TINY[2:], *layers, "--tokens-per-sample", "16", "--num-workers", "0", "--cpu",
            "--max-update", "2", "--log-format", "simple"]


TRAININGS = [(page, words) for page, block in ALL_BLOCKS if TRAINS in BLOCKS[page][key_of(page, block)]
             for words in commands(block) if words[0] == "fairseq-train"]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), TRAININGS, ids=[f"{page}: {words[-1]}" for page, words in TRAININGS])
def test_the_trainings_of_the_docs_run(page, words, data_bin, teacher, tmp_path):
    checkpoint_utils.save_checkpoint.__dict__.pop("best", None)  # as in builders.training.train
    fairseq_train.main(parse(as_smoke_run(words, data_bin, teacher, tmp_path)))
    assert (tmp_path / "run" / "checkpoint_last.pt").exists()


def run_in_root(*command):
    """A command of the docs, with the programs beside this Python on the PATH."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, timeout=300,
                          env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_another_task_is_fine_tuned_by_the_script(data_bin, teacher, tmp_path):
    binarise_task(data_bin, tmp_path / "task")
    run_in_root("bash", "examples/paper/finetune.sh", "bertlet", tmp_path / "task", teacher, tmp_path / "tuned", "2",
                *TINY[2:], "--max-positions", "16", "--max-update", "2", "--num-workers", "0", "--cpu")
    assert (tmp_path / "tuned" / "checkpoint_last.pt").exists()


@functools.cache
def all_flags():
    """Of the plug-in, fairseq and the scripts."""
    trainings = [[*ANY_TRAINING, "--arch", arch, *more] for arch, more in (
        ("hbert_v1", ["--lr-scheduler", "budget_linear", "--stop-time-hours", "1"]),
        ("bertlet", ["--lr-scheduler", "polynomial_decay", "--total-num-update", "9"]))]
    scripts = [help_of(sys.executable, f"scripts/{script.name}") for script in (ROOT / "scripts").glob("*.py")]
    shell = [script.read_text(encoding="utf-8") for script in (ROOT / "scripts").glob("*.sh")]
    return set().union(*map(fairseq_flags, trainings), *map(flags_in, [*scripts, *shell]), {"--help", "--bf16"})


@pytest.mark.parametrize("page", [page for page in DOCS if page != "docs/flags.md"])
def test_flags_in_the_text_are_known_too(page):
    named = {flag for code in re.findall(r"`([^`\n]+)`", prose(page)) for flag in flags_in(code)}
    assert named <= all_flags()
