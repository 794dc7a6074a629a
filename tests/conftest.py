"""A small data-bin of real text, a teacher, and ways to run fairseq on them.

The text is docstrings of the standard library, cut into words, so that every machine has it and nothing is trained to
make it. What test modules share besides fixtures is in builders/.
"""

import os
import shutil

# Read when triton is imported, which other packages do: without a GPU, its kernels run in the interpreter.
os.environ.setdefault("TRITON_INTERPRET", "0" if os.path.exists("/dev/nvidia0") else "1")

import pytest
import torch
from builders.training import MODULES, OURS, TINY, TRAINING, docstrings, parse, run, train
from fairseq import tasks
from fairseq.data import iterators
from fairseq.logging import metrics
from fairseq.trainer import Trainer

torch.set_num_threads(1)  # as in the processes that `run` starts: sums in another order are other sums


LONGEST = ("test_studies", "test_glue_run", "test_archs_together", "test_front_ends")  # first, to end with the others


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.module.__name__ not in LONGEST)  # stable
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


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


@pytest.fixture(scope="session")
def teacher(data_bin, tmp_path_factory):
    """A teacher trained for an epoch with random masks, 80/10/10."""
    return train(data_bin, str(tmp_path_factory.mktemp("teacher")), "--mask-strategy", "random", "--max-epoch", "1",
                 "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1", "--seed", "7")


@pytest.fixture(scope="session")
def inputs(data_bin, teacher, tmp_path_factory):
    """A folder with a file of every kind that commands read, see `builders.attempts`."""
    from builders.attempts import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"), data_bin, teacher)


@pytest.fixture(scope="session")
def subwords(data_bin, tmp_path_factory):
    """The data-bin with a dictionary in which every other symbol continues a word."""
    folder = shutil.copytree(data_bin, tmp_path_factory.mktemp("subwords") / "bin")
    lines = (folder / "dict.txt").read_text(encoding="utf-8").splitlines()
    lines = [f"##{line}" if number % 2 else line for number, line in enumerate(lines)]
    (folder / "dict.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="session")
def like_data(data_bin, tmp_path_factory):
    """A Hugging Face BERT whose vocabulary is the data-bin's, in another order."""
    from builders.huggingface import make_folder

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


