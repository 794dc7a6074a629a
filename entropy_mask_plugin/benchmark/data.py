"""A data-bin of synthetic text and a teacher for it, so that a benchmark needs no other data.

Shapes: V vocabulary.
"""

import os
from typing import Any, Sequence

import numpy as np
import torch
from fairseq import models, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from ..corpus.index import write_index
from ..huggingface.importing import fresh_checkpoint
from ..system.atomic_files import write_bytes

VOCABULARY = 30_522  # BERT's
SPECIALS_BEFORE = 4  # <s> <pad> </s> <unk>
SHARPNESS = 8.0  # of predictions: an untrained model's entropies span 0.006 nats without it, a trained one's several


def write_data_bin(folder: str, tokens: int) -> None:
    """Write lines of 64 tokens whose frequencies follow Zipf's law, `tokens` in total, rounded up."""
    os.makedirs(folder)
    symbols = VOCABULARY - SPECIALS_BEFORE - 1
    write_bytes(os.path.join(folder, "dict.txt"), "".join(symbol_line(i) for i in range(symbols)).encode())
    frequencies = 1.0 / np.arange(1, symbols + 1)
    draw = np.random.default_rng(1)
    lines = -(-tokens // 64)
    ids = SPECIALS_BEFORE + draw.choice(symbols, 64 * lines, p=frequencies / frequencies.sum())
    ids[63::64] = 2  # </s>
    for split in ("train", "valid"):
        ids.astype(np.uint16).tofile(os.path.join(folder, f"{split}.bin"))
        write_index(os.path.join(folder, f"{split}.idx"), np.full(lines, 64, np.int32), 2)


def symbol_line(number: int) -> str:
    """A line of dict.txt; every fourth token continues a word."""
    return f"{'##' if number % 4 == 3 else ''}w{number} 1\n"


def sharpened(model):
    """The model, changed so that its predictions are as far from uniform as a trained model's."""
    with torch.no_grad():
        model.lm_head.layer_norm.weight.mul_(SHARPNESS)
    return model


def parse_fairseq_args(args: Sequence[str]) -> Any:
    """The configuration that fairseq-train makes of its command line."""
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), list(args)))


def write_teacher(path: str, args: Sequence[str]) -> None:
    """Write a checkpoint with random, sharpened weights. args: of fairseq-train; they determine the model."""
    cfg = parse_fairseq_args(args)
    task = tasks.setup_task(cfg.task)
    torch.manual_seed(2)
    model = sharpened(models.build_model(cfg.model, task))
    cfg = OmegaConf.to_container(cfg, resolve=True)
    torch.save(fresh_checkpoint(cfg, model, list(task.source_dictionary.symbols)), path)
