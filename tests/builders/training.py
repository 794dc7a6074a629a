"""fairseq on the test data: command lines, trainings, batches.

`train` runs fairseq-train's own main function in this process, which saves the seconds of imports that a new process
costs; tests that are about processes (kill, ranks, hydra) start one with `run`.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import train as fairseq_train
from torch.utils._python_dispatch import TorchDispatchMode

from entropy_mask_plugin.masking.when import When

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGIN = str(ROOT / "entropy_mask_plugin")
MODULES = ("argparse", "ast", "collections", "datetime", "decimal", "difflib", "fractions", "functools", "heapq",
           "inspect", "logging", "pathlib", "random", "statistics", "string", "subprocess", "textwrap", "typing")
DEVICE = [] if os.environ.get("TRAIN_ON_GPU") else ["--cpu"]  # scripts/test.sh --gpu sets it
TINY = ["--arch", "bertlet", "--encoder-layers", "2", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64",
        "--encoder-attention-heads", "2", "--max-positions", "16"]
TRAINING = ["--user-dir", PLUGIN, "--optimizer", "adam", "--lr", "0.01", "--lr-scheduler", "fixed", "--batch-size",
            "64", *DEVICE, "--log-format", "simple", "--log-interval", "1", "--num-workers", "0"]
OURS = ["--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--tokens-per-sample", "16"]
RANKED = ("high", "low", "mid", "marginal")  # strategies that draw nothing


def docstrings(name):
    """Words of every docstring of a standard module, without importing it."""
    folder = Path(os.__file__).parent
    file = folder / f"{name}.py" if (folder / f"{name}.py").exists() else folder / name / "__init__.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            yield re.findall(r"\w+|[^\w\s]", inspect.cleandoc(ast.get_docstring(node)).lower())


def run(*command, **kwargs):
    """Run a fairseq command line (`python -m COMMAND`) in a new process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, timeout=300,
                          env=environment, **kwargs)


def make_bert_vocabulary(size=None):
    """BERT's special tokens in their places, letters and words of the docstrings: all as WordPiece has them."""
    words = {word for name in MODULES[:6] for words in docstrings(name) for word in words}
    letters = sorted({letter for word in words for letter in word})
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(9)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters,
              *(f"##{letter}" for letter in letters), *sorted(word for word in words if len(word) > 1)]
    return tokens + [f"[unused{i}]" for i in range(9, 9 + (size or len(tokens)) - len(tokens))]


def parse(arguments):
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [str(a) for a in arguments]))


def train(data, save_dir, *flags, model=TINY, task=OURS):
    """fairseq-train in this process. Returns the path of its last checkpoint."""
    # fairseq keeps the best score of a run on the function that saves: in a new process it would not be there
    checkpoint_utils.save_checkpoint.__dict__.pop("best", None)
    fairseq_train.main(parse([data, *TRAINING, *task, *model, "--save-dir", save_dir, *flags]))
    return os.path.join(save_dir, "checkpoint_last.pt")


def updates_of_an_epoch(data, folder, *flags):
    """How many updates an epoch of a training with these flags has; it is trained in a folder."""
    checkpoint = train(data, str(folder), *flags, "--max-epoch", "1")
    return torch.load(checkpoint, weights_only=True)["optimizer_history"][-1]["num_updates"]


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)["model"]


def same_weights(one, other):
    """Bit for bit; nearly on a GPU, whose atomic additions come in another order each time."""
    one, other = weights(one), weights(other)
    if one.keys() != other.keys():
        return False
    if not DEVICE:
        return distance(one, other) < 0.1 * distance(one, {key: torch.zeros_like(one[key]) for key in one})
    return all(torch.equal(one[key], other[key]) for key in one)


def distance(one, other):
    """The norm of the difference of two state dicts."""
    return sum((one[key] - other[key]).double().square().sum() for key in one).sqrt()


def binarise_task(data_bin, folder):
    """Two classes: sentences with an odd and an even number of words."""
    sentences = ["return the value of the", "a list of strings and numbers", "the name of a file"] * 10
    folder.mkdir()
    (folder / "input0").write_text("\n".join(sentences) + "\n")
    (folder / "label").write_text("\n".join(str(len(s.split()) % 2) for s in sentences) + "\n")
    for part, dictionary in (("input0", ["--srcdict", f"{data_bin}/dict.txt"]), ("label", [])):
        done = run("fairseq_cli.preprocess", "--only-source", "--trainpref", folder / part, "--validpref",
                   folder / part, "--destdir", folder / f"{part}-bin", *dictionary)
        assert done.returncode == 0, done.stderr
        (folder / part).unlink()
        (folder / f"{part}-bin").rename(folder / part)


class LargestOutput(TorchDispatchMode):
    """Watches every torch operation; `numel` is the size of the largest tensor that one of them returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        self.numel = max([self.numel, *(x.numel() for x in outputs if isinstance(x, torch.Tensor))])
        return result


def batch_of(task, ids):
    dataset = task.dataset("train")
    return dataset.collater([dataset[i] for i in ids])


def masked_by_policy(task, sample, model, update_num):
    """The masked sample and the sums for the log, as `train_step` makes them of a model that is its own average."""
    when = When(task.epoch, update_num)
    return task.mask(sample, task.score(sample, model, when, model), when)


def scores_of(task, sample, model):
    return task.score(sample, model, When(task.epoch, 0))
