"""Every flag with a value, given values that it cannot have: one line names it, at once, and nothing is written."""

import argparse
import copy
import logging
import os
import re
import shutil
import time

import pytest
import torch
from builders.huggingface import make_folder
from builders.training import OURS, PLUGIN, ROOT, TINY, TRAINING, parse, run, train
from fairseq import optim, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import lr_scheduler
from omegaconf import DictConfig

from entropy_mask_plugin.cli import COMMANDS, make_parser, run_command
from entropy_mask_plugin.system.command_line import one_line, report_mistakes_in_one_line
from entropy_mask_plugin.system.errors import UsageError

HUGE = "1" + 30 * "0"
NAME = ["", "x", "nan", "-1"]
NUMBER = ["", "x", "nan", "inf", "-inf", "-1", "1e30"]  # where a large one is wrong, too
FRACTION = [*NUMBER, "1.1"]
COUNT = ["", "x", "nan", "1.5", "-1", "0"]
SIZE = [*COUNT, HUGE]

TRAINING_FLAGS = {
    "--tokens-per-sample": [*SIZE, "1", "1e30", "16:8", "8:", "2:4:8", "17"],
    "--grow-tokens-per-sample": ["", "x", "nan", "inf", "-1", "0", "1", "0.6,0.3", "0.3,0.3"],
    "--sample-break-mode": NAME,
    "--shorten-method": NAME,
    "--mask-strategy": NAME,
    "--mask-score": NAME,
    "--mask-source": NAME,
    "--mask-unit": NAME,
    "--mask-prob": [*FRACTION, "0", "0.1:2", "nan:0.1", "x:0.1:0.2", "0.1:0.2:0.3:0.4", "0.3:0.1"],  # last: no end
    "--mask-count": SIZE,
    "--guided-fraction": [*FRACTION, "0:2", "nan:1"],
    "--guided-by": NAME,
    "--leave-unmasked-prob": FRACTION,
    "--random-token-prob": FRACTION,
    "--teacher": ["", "/nowhere.pt", "{text}", "{nan}"],
    "--init-from": ["", "/nowhere.pt", "{text}", "{nan}"],
    "--init-layers": ["", "x", "-1", "0,", "0"],
    "--self-mask-from-epoch": COUNT,
    "--self-mask-model": NAME,
    "--entropy-cache": [""],
    "--self-entropy-every": [*COUNT, "2"],
    "--record-masks": [""],
    "--replay-masks": ["", "/nowhere"],
    "--precision": [*NAME, "fp16"],
    "--entropy-precision": [*NAME, "fp16"],
    "--entropy-folds": SIZE,
    "--valid-pairs": ["", "/nowhere"],
    "--valid-pairs-limit": [*COUNT, "1"],
    "--accuracy-window": COUNT,
    "--accuracy-mix": [*FRACTION, "0"],
    "--accuracy-floor": [*FRACTION, "0"],
    "--gumbel-temperature": [*NUMBER, "0"],
    "--kd-weight": [*FRACTION, "0.5"],
    "--kd-temperature": [*NUMBER, "0"],
    "--kd-start-epoch": COUNT,
    "--kd-positions": NAME,
    "--adam-betas": ["", "x", "0.9", "(0.9,)", "(0.9, 1)", "(nan, 0.9)", "(0.9, -1)", "(0.9, 1" + 400 * "0" + ")"],
    "--adam-eps": [*NUMBER, "0"],
    "--weight-decay": NUMBER,
    "--warmup-share": [*FRACTION, "1"],
    "--end-learning-rate": NUMBER,
    "--encoder-layers": SIZE,
    "--encoder-embed-dim": SIZE,
    "--encoder-ffn-embed-dim": SIZE,
    "--encoder-attention-heads": [*SIZE, "3"],
    "--dropout": [*FRACTION, "1"],
    "--attention-dropout": [*FRACTION, "1"],
    "--activation-dropout": [*FRACTION, "1"],
    "--pooler-dropout": [*FRACTION, "1"],
    "--max-positions": SIZE,
    "--layer-norm-eps": [*NUMBER, "0"],
    "--init-std": [*NUMBER, "0"],
    "--mask-decoder-layers": ["", "x", "nan", "1.5", "-1", HUGE],
    "--mask-decoder-kind": [*NAME, "cross"],
    "--mixer-pattern": [*NAME, "self", "self,self,self"],
}
ANY_VALUE = {"--shorten-data-split-list": "names of splits, some of which another command may read later"}
FAIRSEQS = {"--lr": ["nan", "inf", "-1"], "--stop-time-hours": ["nan", "inf", "-1", "0"]}  # that ours read
PARSED = {  # others of fairseq's, refused when they are parsed
    "--clip-norm": ["nan", "-1"], "--ema-decay": ["nan", "-1", "2"], "--log-interval": ["-1", "0"],
    "--max-tokens": ["-1", "0"], "--num-workers": ["-1"], "--required-batch-size-multiple": ["0"],
    "--save-interval": ["0"], "--seed": ["-1", str(2**32)], "--update-freq": ["0", "1,0", "x"],
    "--validate-interval": ["0"],
}

TOGETHER = {  # what the line begins with: flags
    "--random-token-prob: 0.6": ["--leave-unmasked-prob", "0.6", "--random-token-prob", "0.6"],
    "--teacher: none": ["--mask-strategy", "high"],
    "--init-from together with --finetune-from-model": ["--init-from", "a.pt", "--finetune-from-model", "b.pt"],
    "--entropy-cache together with --shorten-method": ["--entropy-cache", "c", "--shorten-method", "random_crop"],
    "--self-entropy-every together with --guided-by": [
        "--entropy-cache", "c", "--self-mask-from-epoch", "1", "--self-entropy-every", "2", "--guided-by", "sequences"],
    "--self-entropy-every together with --guided-fraction": [
        "--entropy-cache", "c", "--self-mask-from-epoch", "1", "--self-entropy-every", "2", "--guided-fraction", "0:1"],
    "--record-masks: c, which is replayed,": ["--record-masks", "c", "--replay-masks", "./c"],
    "--fp16 or --amp: with --record-masks": ["--record-masks", "c", "--amp"],
    "--self-mask-model: ema without --store-ema": [
        "--mask-strategy", "high", "--self-mask-from-epoch", "1", "--self-mask-model", "ema"],
    "--entropy-folds: 2 with --mask-score accuracy": [
        "--mask-strategy", "high", "--mask-score", "accuracy", "--entropy-folds", "2"],
    "--grow-tokens-per-sample: stalled with --disable-validation": ["--tokens-per-sample", "8:16",
                                                                    "--disable-validation"],
    "--encoder-layers 1000 of --encoder-embed-dim 65536": [
        "--encoder-layers", "1000", "--encoder-embed-dim", "65536", "--encoder-attention-heads", "64"],
}

BASES = {  # arguments that work, positional ones first
    "prepare-corpus": ["--text", "{text}", "--out", "{new}"],
    "build-entropy-cache": ["{bin}", "--teacher", "{teacher}", "--entropy-cache", "{new}", "--tokens-per-sample", "16"],
    "glue": ["--checkpoint", "{teacher}", "--glue", "{glue}", "--tasks", "rte", "--out", "{new}"],
    "glue-table": ["{folder}", "--out", "{new}"],
    "minimal-pairs": ["--checkpoint", "{teacher}", "--pairs", "{pairs}", "--out", "{new}"],
    "pseudo-perplexity": ["--checkpoint", "{hf}", "--text", "{text}", "--out", "{new}"],
    "cross": ["{teacher}", "--out", "{new}"],
    "studies": ["teacher-masking", "--scale", "smoke", "--data", "{bin}", "--glue", "{glue}", "--out", "{new}"],
    "compare-runs": ["{folder}", "--dict", "{bin}/dict.txt", "--out", "{new}"],
    "diff": ["{folder}", "{folder}"],
    "atlas": ["{teacher}", "--data", "{bin}", "--out", "{new}"],
    "flops": ["--arch", "bertlet"],
    "benchmark": ["--out", "{new}", "--quick"],
    "mixer-scaling": ["--out", "{new}"],
    "import-hf-bert": ["--hf", "{hf}", "--out", "{new}"],
    "export-hf-bert": ["--checkpoint", "{teacher}", "--out", "{new}"],
    "make-docstring-tasks": ["--out", "{new}"],
    "weight-drift": ["--pretrained", "{teacher}", "--finetuned", "{teacher}", "--out", "{new}"],
    "doctor": [],
    "policies": [],
}
FILE = ["", "{nowhere}", "{text}"]
MODEL = [*FILE, "{nan}"]
SEED = ["", "x", "nan", "1.5", "-1", HUGE]
COMMAND_FLAGS = {  # values; a list: with what else they stand on the command line
    "prepare-corpus": {
        "--out": [""], "--text": ["", "{nowhere}", "{folder}"], "--dataset": NAME, "--dataset-dir": ["", "{nowhere}"],
        "--tokenizer": FILE, "--bert-vocab": ["", "{nowhere}"], "--vocab-size": SIZE,
        "--valid-fraction": [*FRACTION, "0"], "--shards": SIZE, "--workers": SIZE, "--seed": SEED},
    "build-entropy-cache": {
        "data": ["", "{nowhere}"], "--teacher": MODEL, "--entropy-cache": ["", "{text}"],
        "--train-subset": ["", "nowhere"]},
    "glue": {
        "--checkpoint": MODEL, "--out": ["", "a,b"], "--glue": ["", "{nowhere}"], "--tasks": ["", "x", "rte,rte"],
        "--seeds": SEED, "--jobs": SIZE, "--data": [""], "--tokenizer": ["", "{nowhere}"], "--protocol": NAME,
        "--lr": ["", "x", "nan", "inf", "-1", "0"], "--batch-size": SIZE,
        "--max-epochs": COUNT, "--patience": ["", "x", "nan", "1.5", "-2", "0"], "--warmup": [*FRACTION, "1"],
        "--weight-decay": ["", "x", "nan", "inf", "-1"], "--best": NAME, "--limit": COUNT},
    "glue-table": {"runs": ["", "{nowhere}"], "--out": [""], "--baseline": [""], "--paper": [""]},
    "minimal-pairs": {
        "--checkpoint": MODEL, "--tokenizer": ["", "{nowhere}"], "--pairs": [*FILE, "/dev/zero"], "--metric": NAME,
        "--max-tokens": COUNT, "--limit": COUNT, "--out": ["", "{text}"]},
    "pseudo-perplexity": {
        "--checkpoint": MODEL, "--tokenizer": ["", "{nowhere}"], "--data": [""],
        "--text": ["", "{nowhere}", "/dev/zero"], "--metric": NAME, "--max-tokens": COUNT, "--limit": COUNT,
        "--tokens-per-sample": COUNT, "--out": ["", "{text}"]},
    "cross": {"runs": MODEL, "--data": ["", "{nowhere}"], "--teacher": [""], "--limit": COUNT, "--max-tokens": COUNT,
              "--out": ["", "{text}"]},
    "studies": {
        "studies": NAME, "--scale": NAME, "--data": ["", "{nowhere}"], "--glue": ["", "{nowhere}"],
        "--out": ["", "a:b"], "--seeds": SEED, "--arch": NAME, "--corruption": NAME, "--teacher": FILE,
        "--tasks": ["", "x"], "--rows": NAME, "--epochs": COUNT, "--jobs": SIZE},
    "compare-runs": {"runs": ["", "{nowhere}"], "--dict": [""], "--out": [""], "--fine-tuned": [""],
                     "--against": NAME},
    "diff": {"a": ["", "{nowhere}"], "b": ["", "{nowhere}"]},
    "atlas": {
        "policy": FILE, "--beside": FILE, "--data": ["", "{nowhere}"], "--out": [""], "--names": [""],
        "--teacher": [""], "--limit": COUNT, "--epochs": SIZE, "--passages": SIZE, "--checkpoints": SIZE},
    "flops": {
        "--arch": NAME, "--length": ["", "x", "nan", "-1", "0", "1", "16:8", HUGE], "--vocabulary": SIZE,
        "--mask-prob": [*FRACTION, "0"], "--leave-unmasked-prob": FRACTION, "--random-token-prob": FRACTION,
        "flags": [["--", "--nonsense"], ["--", "--encoder-layers", "x"], ["--", "--encoder-layers", "0"]]},
    "benchmark": {
        "--out": [""], "--archs": [*NAME, ["x", "--stages", "machine"]], "--lengths": SIZE, "--precisions": NAME,
        "--variants": NAME, "--batch-tokens": SIZE, "--rounds": SIZE, "--steps": SIZE, "--stages": NAME,
        "--budget": ["", "x", *([value, "--stages", "machine"] for value in ("nan", "-1", "0"))],
        "--checkpoint": [""], "--data": [""]},
    "mixer-scaling": {"--out": [""], "--lengths": SIZE, "--width": SIZE, "--tokens": SIZE, "--steps": SIZE},
    "import-hf-bert": {"--hf": ["", "{text}", "{folder}"], "--out": ["", "{folder}"]},
    "export-hf-bert": {"--checkpoint": MODEL, "--out": ["", "{folder}"], "--tokenizer": ["", "{nowhere}"],
                       "--architecture": NAME},
    "make-docstring-tasks": {"--out": ["", "{folder}"], "--train": COUNT, "--dev": COUNT},
    "weight-drift": {"--pretrained": FILE, "--finetuned": FILE, "--out": [""]},
    "doctor": {"--data": [""], "--teacher": [""]},  # it reports what is wrong with others: tests/test_doctor.py
    "policies": {},
}
LOGGED = re.compile(r"\d{4}-\d\d-\d\d .* \| (INFO|WARNING) \|")  # fairseq's own lines
IN_A_PROCESS = {"--user-dir"}  # acts once in a process: below


@pytest.fixture(scope="module")
def files(data_bin, teacher, tmp_path_factory):
    """{name: path} for the tables above."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("".join(f"a quick brown fox, number {i}\n\n" for i in range(50)))
    (folder / "pairs.jsonl").write_text('{"sentence_good": "a b", "sentence_bad": "b a"}\n')
    state = torch.load(teacher, weights_only=True)
    state["model"]["encoder.layers.1.ffn.fc1.weight"][0, 0] = float("nan")
    torch.save(state, folder / "nan.pt")
    for task in ("RTE", "CoLA"):
        (folder / "glue" / task).mkdir(parents=True)
        for split in ("train", "dev"):
            (folder / "glue" / task / f"{split}.tsv").touch()
    (folder / "hf").mkdir()
    make_folder(folder / "hf", num_hidden_layers=1, hidden_size=16, intermediate_size=32, num_attention_heads=2,
                max_position_embeddings=16)
    return {"bin": data_bin, "teacher": teacher, "folder": folder / "empty", "text": folder / "text.txt",
            "pairs": folder / "pairs.jsonl", "nan": folder / "nan.pt", "glue": folder / "glue", "hf": folder / "hf",
            "nowhere": folder / "nowhere", "new": folder / "new"}


@pytest.fixture(scope="module")
def start(data_bin, tmp_path_factory):
    """flags -> everything that fairseq-train makes before its first update; the parsers' work is done once."""
    base = [data_bin, *TRAINING, *OURS, "--arch", "hbertlet", *TINY[2:], "--mask-strategy", "random", "--optimizer",
            "fused_adamw", "--lr-scheduler", "budget_linear", "--stop-time-hours", "1", "--save-dir",
            str(tmp_path_factory.mktemp("save"))]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, base))
    plain = vars(parser.parse_args(base))

    def start(*flags):
        given = vars(parser.parse_args([*base, *flags]))
        changed = {name: value for name, value in given.items() if name not in plain or value != plain[name]}
        changed_cfg = copy.deepcopy(cfg)
        for section in changed_cfg.values():
            for name in changed.keys() & (section.keys() if isinstance(section, DictConfig) else ()):
                section[name] = changed[name]
        build(changed_cfg)

    return start


def build(cfg):
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    task.build_criterion(cfg.criterion)
    optimizer = optim.build_optimizer(cfg.optimizer, list(model.parameters()))
    lr_scheduler.build_lr_scheduler(cfg.lr_scheduler, optimizer)
    for split in ("train", "valid"):
        task.load_dataset(split)


def refusal(capsys, function, *arguments):
    """The line that ends it, in under ten seconds."""
    capsys.readouterr()
    begin, status = time.monotonic(), None
    try:
        status = function(*arguments)
        line = capsys.readouterr().err
    except UsageError as error:
        status, line = 1, f"error: {error}\n"
    except SystemExit as ended:
        status, line = ended.code, capsys.readouterr().err
    assert status, f"accepted: {arguments}"
    assert line.startswith("error: ") and line.count("\n") == 1 and len(line) < 1000, line
    assert time.monotonic() - begin < 10
    return line.removeprefix("error: ").rstrip()


def test_every_flag_of_a_training_is_in_the_table():
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")  # written from the dataclasses, see test_docs
    flags = {name for name, default in re.findall(r"^\| `(--\S+)` \|.*\| (.*) \|$", page, re.M) if default != "off"}
    assert flags == TRAINING_FLAGS.keys() | ANY_VALUE.keys()


@pytest.mark.parametrize("flag", [*TRAINING_FLAGS, *FAIRSEQS])
def test_a_training_names_the_flag(flag, start, files, capsys):
    for value in (TRAINING_FLAGS | FAIRSEQS)[flag]:
        line = refusal(capsys, start, f"{flag}={value.format(**files)}")
        assert line.startswith(flag), (value, line)
        assert value != "" or "expected" in line, line


@pytest.mark.parametrize("flag", PARSED)
def test_a_flag_of_fairseqs_out_of_its_range_is_named_before_anything_is_made(flag, data_bin, capsys):
    for value in PARSED[flag]:
        line = refusal(capsys, parse, [data_bin, *TRAINING, *OURS, *TINY, flag, value])
        assert re.match(f"{flag}: .+ found, expected ", line), line


def test_blocks_that_are_all_longer_than_max_tokens_are_named(data_bin, tmp_path, capsys):
    line = refusal(capsys, train, data_bin, str(tmp_path), "--mask-strategy", "random", "--max-tokens", "1")
    assert line.startswith("--max-tokens: 1 found, expected at least")


def test_flags_that_exclude_each_other_are_named(start, capsys):
    for begin, flags in TOGETHER.items():
        assert refusal(capsys, start, *flags).startswith(begin)


@pytest.fixture
def quiet():
    """Commands change the process's logging and environment."""
    disabled, environment = logging.root.manager.disable, dict(os.environ)
    yield
    logging.disable(disabled)
    os.environ.clear()
    os.environ.update(environment)


def flags_with_values(command):
    """Of its parser: {name in the table: in the usage}."""
    return {action.option_strings[-1] if action.option_strings else action.dest: action
            for action in make_parser(command)._actions if action.nargs != 0}


def command_flags(command):
    """Its part of the table; build-entropy-cache has flags of a training, too."""
    rows, existing = COMMAND_FLAGS[command], flags_with_values(command)
    shared = existing.keys() & TRAINING_FLAGS.keys() if command == "build-entropy-cache" else ()
    return {**{flag: [TRAINING_FLAGS[flag][0], TRAINING_FLAGS[flag][-1]] for flag in shared}, **rows}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_is_in_the_table(command):
    allowed = ANY_VALUE.keys() if command == "build-entropy-cache" else set()
    assert flags_with_values(command).keys() - allowed - IN_A_PROCESS == command_flags(command).keys()


def arguments_with(command, flag, value, positionals):
    """The arguments that work, but for one flag."""
    base, value = list(BASES[command]), value if isinstance(value, list) else [value]
    if value[0] == "--":
        return base + value
    if flag in positionals:
        base[positionals.index(flag)] = value[0]
        return base
    return [*base, f"{flag}={value[0]}", *value[1:]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_the_flag(command, files, capsys, quiet):
    positionals = [name for name in flags_with_values(command) if not name.startswith("-")]
    for flag, values in command_flags(command).items():
        for value in values:
            arguments = [argument.format(**files) for argument in arguments_with(command, flag, value, positionals)]
            line = refusal(capsys, run_command, command, arguments)
            assert flag in line or flag in positionals or str(value).format(**files) in line, (flag, value, line)
            assert not [file for file in files["new"].rglob("*") if file.is_file()], (flag, value)
            shutil.rmtree(files["new"], ignore_errors=True)


# ---- as a user types it

PROCESSES = {  # what the last line begins with: module, arguments
    "error: --mask-count: x found, expected a whole number": ["fairseq_cli.train", "{bin}", *TRAINING, *OURS, *TINY,
                                                              "--mask-count", "x"],
    "error: --encoder-layers: 0 found": ["fairseq_cli.train", "{bin}", *TRAINING, *OURS, *TINY, "--mask-strategy",
                                         "random", "--encoder-layers", "0", "--save-dir", "{new}"],
    "error: --limit: 0 found, expected 1 or more": [
        "entropy_mask_plugin.cli", "minimal-pairs", *BASES["minimal-pairs"], "--limit", "0"],
    "error: --user-dir: no __init__.py in {nowhere}": ["entropy_mask_plugin.cli", "flops", "--arch", "bertlet",
                                                       "--user-dir", "{nowhere}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("begin", PROCESSES)
def test_a_process_ends_in_one_line_and_a_status(begin, files):
    done = run(*(argument.format(**files) for argument in PROCESSES[begin]))
    lines = [line for line in done.stderr.splitlines() if not LOGGED.match(line)]
    assert done.returncode in (1, 2) and len(lines) == 1, done.stderr
    assert lines[0].startswith(begin.format(**files))
    assert not files["new"].exists() or not list(files["new"].iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("setting, message", [
    ("+task.mask_count=x", "mask_count: Value 'x' of type 'str' could not be converted to Integer"),
    ("+task.mask_cont=3", "mask_cont: Key 'mask_cont' not in 'EntropyMaskedLMConfig'"),
])
def test_hydra_names_a_setting_that_does_not_fit_in_one_line(setting, message, data_bin, tmp_path):
    done = run("fairseq_cli.hydra_train", "--config-dir", ROOT / "examples" / "paper", "--config-name", "bertlet",
               f"common.user_dir={PLUGIN}", "common.cpu=true", f"task.data={data_bin}", "task.teacher=null", setting,
               cwd=tmp_path)
    assert done.returncode != 0 and message in done.stderr.splitlines() and "Traceback" not in done.stderr, done.stderr


# ---- argparse's words

@pytest.mark.parametrize("message, line", [
    ("argument --n: invalid int value: '1.5'", "--n: 1.5 found, expected a whole number"),
    ("argument --x: invalid float value: \"it's\"", "--x: it's found, expected a number"),
    ("argument --l: invalid <lambda> value: 'x'", "--l: x found, expected a number, or several separated by commas"),
    ("argument --c: invalid choice: 'x' (choose from 'a', 'b')", "--c: x found, expected one of a, b"),
    ("argument --c: invalid choice: 'x' (choose from a, b)", "--c: x found, expected one of a, b"),
    ("the following arguments are required: --out", "the following arguments are required: --out"),
    ("unrecognized arguments: --a\nb", "unrecognized arguments: --a b"),
    (f"argument --arch: invalid choice: 'bertle' (choose from 'bertlet', {', '.join(map(str, range(30)))})",
     "--arch: bertle found, expected one of 31 names, such as bertlet"),
])
def test_a_message_of_argparse_becomes_a_line_like_others(message, line):
    assert one_line(message) == line


@pytest.mark.parametrize(("typed", "line"), [
    (["--mask-prop", "0.2"], "error: unrecognized arguments: --mask-prop 0.2 (did you mean --mask-prob?)\n"),
    (["--mask_prob=0.2"], "error: unrecognized arguments: --mask_prob=0.2 (did you mean --mask-prob?)\n"),
    (["--colour", "red"], "error: unrecognized arguments: --colour red\n"),
])
def test_a_flag_that_does_not_exist_is_answered_with_the_nearest_one(typed, line, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--mask-prob", "--mp")
    report_mistakes_in_one_line(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(typed)
    assert capsys.readouterr().err == line
