"""What decides the entropies of a model on a training set."""

import glob
import hashlib
import json
import os

import numpy as np
import torch
from fairseq import utils

from ...masking.scores import SCORES
from ...system.digests import digest, digest_of_file

DEFINITION = 1  # of an entropy, see masking/entropy.py; another number where another value is computed


def facts_of_teacher(teacher):
    """{what: value} of a model with weights."""
    return {
        "weights of the teacher": digest_of_tensors(teacher.state_dict()),
        "sizes of the teacher": digest(repr(sizes(teacher)).encode()),
    }


def facts_of_data(cfg, dictionary, split, epoch, block_sizes):
    """{what: value}, all that the entropies of one shard depend on besides the model.

    Args:
        cfg: an EntropyMaskedLMConfig.
        split, epoch: which data set is read in this epoch.
        block_sizes: tokens of each block.
    """
    paths = utils.split_paths(cfg.data)
    prefix = os.path.join(paths[(epoch - 1) % len(paths)], split)
    return {
        "definition of entropy": DEFINITION,
        "data": [digest_of_file(path) for path in sorted(glob.glob(glob.escape(prefix) + "*.[bi][id][nx]"))],
        "dictionary": digest("\n".join(dictionary.symbols).encode()),
        "tokens per sample": cfg.tokens_per_sample,
        "sample break mode": str(cfg.sample_break_mode),
        "shorten method": f"{cfg.shorten_method} {cfg.shorten_data_split_list}",
        "sizes of the blocks": digest(np.asarray(block_sizes, np.int64).tobytes()),
        "precision": [cfg.entropy_precision or cfg.precision, cfg.entropy_precision == "bf16"],  # layers, projection
        **facts_of_score(cfg),
    }


def facts_of_score(cfg):
    """{what: value} of a score other than entropy, whose caches are older than other scores."""
    if cfg.mask_score == "entropy":
        return {}
    entry = SCORES[cfg.mask_score]
    return {"score": cfg.mask_score, "version of the score": entry.traits["version"], **entry.chosen(vars(cfg))}


def name_of(facts):
    """A folder name."""
    return digest(json.dumps(facts, sort_keys=True).encode())


def sizes(teacher):
    """What the shapes of the weights do not say: the number of heads, the layout, epsilon."""
    return sorted((name, value) for name, value in teacher.settings().items()
                  if isinstance(value, (int, float, str, bool)))


def digest_of_tensors(tensors):
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
