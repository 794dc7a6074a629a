"""A small data-bin of real text and ways to run fairseq on it.

The text is docstrings of the standard library, cut into words, so that every machine has it and nothing is trained to
make it. `train` runs fairseq-train's own main function in this process, which saves the ten seconds of imports that a
new process costs; tests that are about processes (kill, ranks, hydra) start one.
"""

import ast
import inspect
import os

# Read when triton is imported, which other packages do: without a GPU, its kernels run in the interpreter.
os.environ.setdefault("TRITON_INTERPRET", "0" if os.path.exists("/dev/nvidia0") else "1")

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.data import iterators
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from fairseq_cli import train as fairseq_train
from torch.utils._python_dispatch import TorchDispatchMode

from entropy_mask_plugin.masking.when import When

torch.set_num_threads(1)  # as in the processes that `run` starts: sums in another order are other sums

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = str(ROOT / "entropy_mask_plugin")
MODULES = ("argparse", "ast", "collections", "datetime", "decimal", "difflib", "fractions", "functools", "heapq",
           "inspect", "logging", "pathlib", "random", "statistics", "string", "subprocess", "textwrap", "typing")

DEVICE = [] if os.environ.get("TRAIN_ON_GPU") else ["--cpu"]  # scripts/test.sh --gpu sets it

TINY = ["--arch", "bertlet", "--encoder-layers", "2", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64",
        "--encoder-attention-heads", "2", "--max-positions", "16"]
TRAINING = ["--user-dir", PLUGIN, "--optimizer", "adam", "--lr", "0.01", "--lr-scheduler", "fixed", "--batch-size",
            "64", *DEVICE, "--log-format", "simple", "--log-interval", "1", "--num-workers", "0"]
OURS = ["--task", "entropy_masked_lm", "--criterion", "entropy_masked_lm", "--tokens-per-sample", "16"]


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


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


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory):
    """A data-bin of about 10,000 words of train and 2,000 of valid, a dictionary of 400 types."""
    folder = tmp_path_factory.mktemp("data")
    lines = [" ".join(words) for name in MODULES for words in docstrings(name) if len(words) > 8]
    (folder / "train.txt").write_text("\n".join(lines[:160]) + "\n", encoding="utf-8")
    (folder / "valid.txt").write_text("\n".join(lines[160:190]) + "\n", encoding="utf-8")
    done = run("fairseq_cli.preprocess", "--only-source", "--trainpref", folder / "train.txt", "--validpref",
               folder / "valid.txt", "--destdir", folder / "bin", "--nwordssrc", "400", "--padding-factor", "1")
    assert done.returncode == 0, done.stderr
    return str(folder / "bin")


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


@pytest.fixture(scope="session")
def teacher(data_bin, tmp_path_factory):
    """A teacher trained for an epoch with random masks, 80/10/10."""
    return train(data_bin, str(tmp_path_factory.mktemp("teacher")), "--mask-strategy", "random", "--max-epoch", "1",
                 "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1", "--seed", "7")


@pytest.fixture(scope="session")
def like_data(data_bin, tmp_path_factory):
    """A Hugging Face BERT whose vocabulary is the data-bin's, in another order."""
    from test_huggingface import make_folder

    with open(f"{data_bin}/dict.txt", encoding="utf-8") as file:
        symbols = [line.rsplit(" ", 1)[0] for line in file]
    folder = tmp_path_factory.mktemp("like") / "hf"
    tokens = ["[PAD]", *symbols[:7], "[UNK]", "[CLS]", "[SEP]", "[MASK]", *symbols[7:]]
    sizes = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=64, num_attention_heads=2,
                 max_position_embeddings=16)
    return folder, make_folder(folder, "BertForPreTraining", tokens, **sizes)


@pytest.fixture
def start_training(data_bin, tmp_path):
    """flags -> a trainer at the beginning of epoch 1, and a function that makes one update."""

    def make(*flags, training=TRAINING):
        metrics.reset()
        cfg = parse([data_bin, *training, *OURS, *TINY, "--optimizer", "fused_adamw", "--save-dir", tmp_path,
                     "--batch-size", "8", *flags])
        task = tasks.setup_task(cfg.task)
        torch.manual_seed(1)
        trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
        batches = iterators.GroupedIterator(trainer.get_train_iterator(epoch=1).next_epoch_itr(shuffle=False), 1)
        trainer.begin_epoch(1)

        def update():
            with metrics.aggregate("train_inner"):
                return trainer.train_step(next(batches))

        return trainer, update

    return make


@pytest.fixture(scope="session")
def make_task(data_bin):
    """Build the task as fairseq-train would, from flags, and one batch of it with a model."""

    def make(*flags, model=TINY, data=data_bin):
        cfg = parse([data, *TRAINING, *OURS, *model, *flags])
        task = tasks.setup_task(cfg.task)
        task.load_dataset("train")
        torch.manual_seed(cfg.common.seed)
        return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)

    return make


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


RANKED = ("high", "low", "mid", "marginal")  # strategies that draw nothing


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
    """The masked sample and the sums for the log, as `train_step` makes them."""
    when = When(task.epoch, update_num)
    return task.mask(sample, task.score(sample, model, when), when)


def scores_of(task, sample, model):
    return task.score(sample, model, When(task.epoch, 0))
