"""Records which masks and which weights the code produces, bit for bit; tests/test_golden.py compares with the record.

    python tests/golden/record.py

writes masks.json and weights.json. It records the code that Python imports: the installed one, or another checkout's
with PYTHONPATH=CHECKOUT. Nothing but fairseq's interfaces and the plug-in's flags is used here, no name from inside the
plug-in: the record is for those who move these names.

The text and the teacher are inputs: made where they are missing, and else left as they are. Docstrings differ between
versions of Python, and a teacher that is trained anew is another one on another machine.
"""

import ast
import hashlib
import inspect
import itertools
import json
import logging
import os
import platform
import re
import tempfile
from pathlib import Path

import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import preprocess
from fairseq_cli import train as fairseq_train

import entropy_mask_plugin

HERE = Path(__file__).resolve().parent
DATA, TEACHER = HERE / "data-bin", HERE / "teacher.pt"
PLUGIN = os.path.dirname(entropy_mask_plugin.__file__)  # fairseq refuses another path than the imported one
PADDING = 1  # in every fairseq dictionary; in a target, where nothing is to be predicted
MODULES = ("argparse", "ast", "collections", "datetime", "decimal", "difflib", "fractions")  # 105 docstrings and more

COMMON = [DATA, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm",
          "--tokens-per-sample", "16", "--arch", "bertlet", "--encoder-layers", "2", "--encoder-embed-dim", "32",
          "--encoder-ffn-embed-dim", "64", "--encoder-attention-heads", "2", "--max-positions", "16", "--optimizer",
          "adam", "--lr", "0.003", "--lr-scheduler", "fixed", "--batch-size", "32", "--cpu", "--num-workers", "0",
          "--save-interval", "1000", "--validate-interval", "1000"]  # epochs: only at the end
SOFT = ["--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"]
BY_TEACHER, BY_MODEL = ["--teacher", TEACHER], ["--self-mask-from-epoch", "1"]
FROM_TEACHER = ["--init-from", TEACHER]  # the entropies of a new model are so alike that rounding decides on masks
INIT = [*FROM_TEACHER, *BY_TEACHER, "--self-mask-from-epoch", "2"]

SOURCES = {"none": [], "teacher": BY_TEACHER, "self": BY_MODEL, "ties": BY_MODEL}  # ties: all entropies are equal
CORRUPTIONS = {"all-mask": [], "80-10-10": SOFT}
MASKS = [f"random/none/{corruption}" for corruption in CORRUPTIONS] + [
    f"{strategy}/{how}" for strategy in ("high", "low", "mid", "marginal", "alternating")
    for how in ("teacher/all-mask", "teacher/80-10-10", "self/all-mask", "self/80-10-10", "ties/all-mask")
]
RUNS = {  # an epoch is thirteen updates, a run thirty
    "random": ["--mask-strategy", "random"],
    "high": ["--mask-strategy", "high", *BY_TEACHER],
    "init": ["--mask-strategy", "high", *INIT],
    "cold": ["--mask-strategy", "high", *FROM_TEACHER, *BY_MODEL],
    "init-kd": ["--mask-strategy", "high", *INIT, "--kd-weight", "0.5", "--kd-start-epoch", "2"],
    "alternating": ["--mask-strategy", "alternating", *BY_TEACHER],
    "3ml": ["--mask-strategy", "random", "--mask-decoder-layers", "2", "--mask-prob", "0.5", *SOFT],
    "hybrid": ["--mask-strategy", "random", "--arch", "hbertlet", "--mixer-pattern", "self,additive"],
    "fused-bf16": ["--mask-strategy", "random", "--optimizer", "fused_adamw", "--precision", "bf16"],
}


def parse(*arguments):
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [str(a) for a in arguments]))


def digest(tensors):
    """Of what they hold, as it lies in memory."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


# ---- masks

def masks(case):
    """What the criterion is given: {"train": 20 batches of two epochs, "valid": 3 batches}."""
    strategy, source, corruption = case.split("/")
    cfg = parse(*COMMON, "--mask-strategy", strategy, *SOURCES[source], *CORRUPTIONS[corruption])
    task = tasks.setup_task(cfg.task)
    # were the model the teacher itself, one could be taken for the other unseen
    model, train, valid = teacher_times(0 if source == "ties" else 1.25, task, cfg), Recorder(), Recorder()
    for epoch in (1, 2):
        task.begin_epoch(epoch, model)
        for update, sample in enumerate(batches(task, "train", epoch, 10), 10 * (epoch - 1)):
            model.train()
            task.train_step(sample, model, train, NoOptimizer(), update)
    for sample in batches(task, "valid", 2, 3):
        task.valid_step(sample, model, valid)
    return {"train": train.batches, "valid": valid.batches}


def teacher_times(factor, task, cfg):
    """A model with the teacher's weights times a number; times 0, all its predictions are alike."""
    model = task.build_model(cfg.model)
    weights = torch.load(TEACHER, weights_only=True)["model"]
    model.load_state_dict({name: factor * tensor for name, tensor in weights.items()})
    return model


def batches(task, split, epoch, number):
    task.load_dataset(split)
    epochs = task.get_batch_iterator(task.dataset(split), max_sentences=16, seed=1, epoch=epoch)
    return itertools.islice(epochs.next_epoch_itr(shuffle=split == "train"), number)


class Recorder:
    """In the place of the criterion."""

    def __init__(self):
        self.batches = []

    def __call__(self, model, sample):
        self.batches.append(summary_of_batch(sample))
        return torch.zeros((), requires_grad=True), 1, {}


class NoOptimizer:
    def backward(self, loss):
        pass


def summary_of_batch(sample):
    """Where each sample is masked, and a digest of the ids, the target and the text that the model sees."""
    ids, target, text = sample["id"], sample["target"], sample["net_input"]["src_tokens"]
    positions = (",".join(map(str, row.nonzero().flatten().tolist())) for row in target.ne(PADDING))
    return {"masks": " ".join(f"{i}:{at}" for i, at in zip(ids.tolist(), positions)),
            "sha256": digest((ids, target, text))}


# ---- weights

def weights(run):
    """What thirty updates end with: a digest of all weights, what was logged, [sum, sum of |w|] of each tensor."""
    with tempfile.TemporaryDirectory() as folder:
        state = train(folder, "--max-update", "30", "--clip-norm", "1", *RUNS[run])
    summary = summary_of_weights(state)
    return {"sha256": summary["sha256"], "logged": averages(state["extra_state"]), "sums": summary["sums"]}


def train(folder, *flags, common=COMMON):
    """fairseq-train in this process: the checkpoint that it ends with."""
    # fairseq keeps the best score of a run on the function that saves: in a new process it would not be there
    checkpoint_utils.save_checkpoint.__dict__.pop("best", None)
    fairseq_train.main(parse(*common, "--save-dir", folder, *flags))
    return torch.load(f"{folder}/checkpoint_last.pt", weights_only=True)


def summary_of_weights(state):
    """Of a checkpoint: a digest of all weights, and [sum, sum of |w|] of each tensor."""
    tensors = dict(sorted(state["model"].items()))
    return {"sha256": digest(tensors.values()),
            "sums": {name: [w.double().sum().item(), w.double().abs().sum().item()] for name, w in tensors.items()}}


def averages(extra_state):
    """The validation loss, and whatever fairseq logs of the last epoch of training as an average: no times."""
    meters = dict(extra_state["metrics"])["train"]
    found = {name: float(m["sum"]) / m["count"] for _, name, kind, m in meters if kind == "AverageMeter" and m["count"]}
    return {"valid_loss": extra_state["val_loss"], **found}


# ---- inputs

def make_data():
    """A data-bin of some 5,000 words of docstrings, and a dictionary of 400 types."""
    lines = [line for name in MODULES for line in docstrings(name)]
    with tempfile.TemporaryDirectory() as folder:
        for split, part in (("train", lines[:90]), ("valid", lines[90:105])):
            Path(folder, split).write_text("\n".join(part) + "\n", encoding="utf-8")
        flags = ["--only-source", "--trainpref", f"{folder}/train", "--validpref", f"{folder}/valid", "--destdir", DATA,
                 "--nwordssrc", "400", "--padding-factor", "1"]
        preprocess.main(options.get_preprocessing_parser().parse_args([str(flag) for flag in flags]))
    (DATA / "preprocess.log").unlink()  # names folders of this machine


def docstrings(module):
    """A line of words for each docstring of a module of the standard library, which is not imported."""
    folder = Path(os.__file__).parent
    file = folder / f"{module}.py" if (folder / f"{module}.py").exists() else folder / module / "__init__.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            words = re.findall(r"\w+|[^\w\s]", inspect.cleandoc(ast.get_docstring(node)).lower())
            if len(words) > 8:
                yield " ".join(words)


def make_teacher():
    """Trained until its entropies are far apart: their standard deviation is 0.9 nats."""
    with tempfile.TemporaryDirectory() as folder:
        state = train(folder, "--mask-strategy", "random", *SOFT, "--max-update", "600", "--seed", "7")
    extra_state = {key: state["extra_state"][key] for key in ("train_iterator", "vocabulary")}
    kept = {key: state[key] for key in ("args", "model", "optimizer_history")}
    # without the optimizer's state, which is large, and settings of other things, which name folders
    torch.save({**kept, "cfg": {"model": state["cfg"]["model"]}, "extra_state": extra_state}, TEACHER)


# ---- the record

def machine():
    """Where sums of floats come in the same order, so that bits can be compared."""
    return {"cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}", "torch": torch.__version__,
            "python": platform.python_version()}


def processor():
    """Linux tells more than the model's name, which a virtual machine often shortens."""
    file = Path("/proc/cpuinfo")
    facts = dict(re.findall(r"^([\w ]+?)\s*: (.*)", file.read_text(), re.MULTILINE)) if file.exists() else {}
    names = [facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts]
    return " ".join(names) or platform.machine()


def write(name, record, cases):
    text = json.dumps({"machine": machine(), "cases": {case: record(case) for case in cases}}, indent=1)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def main():
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print("recording", PLUGIN)
    if not DATA.exists():
        make_data()
    if not TEACHER.exists():
        make_teacher()
    write("masks.json", masks, MASKS)
    write("weights.json", weights, RUNS)


if __name__ == "__main__":
    main()
