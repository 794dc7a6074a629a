"""Everything that a model's entropies on a training set depend on.

The facts are {description: JSON value}; their digest names a cache, so neither the keys nor the values may change
without need.
"""

import glob
import hashlib
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from fairseq import utils

from ...masking.scores import SCORES
from ...system.digests import digest, digest_of_file


def facts_of_teacher(teacher: Any) -> Dict[str, Any]:
    """The facts of a model: its weights and its settings. teacher: one of this plug-in's models."""
    return {
        "weights of the teacher": digest_of_tensors(teacher.state_dict()),
        "sizes of the teacher": digest(repr(sizes(teacher)).encode()),
    }


def facts_of_data(cfg: Any, dictionary: Any, split: str, epoch: int, block_sizes: Sequence[int],
                  length: Optional[int] = None) -> Dict[str, Any]:
    """The facts of one shard: everything that its entropies depend on besides the model.

    Args:
        cfg: an EntropyMaskedLMConfig.
        dictionary: fairseq's, of the data.
        split: name of the split.
        epoch: counted from 1; it determines the shard.
        block_sizes: tokens of each block.
        length: positions of a block in this epoch; None = there is a single length.
    """
    paths = utils.split_paths(cfg.data)
    prefix = os.path.join(paths[(epoch - 1) % len(paths)], split)
    return {
        "definition of entropy": SCORES["entropy"].traits["version"],
        "data": [digest_of_file(path) for path in sorted(glob.glob(glob.escape(prefix) + "*.[bi][id][nx]"))],
        "dictionary": digest("\n".join(dictionary.symbols).encode()),
        "tokens per sample": length or cfg.tokens_per_sample,
        "sample break mode": str(cfg.sample_break_mode),
        "shorten method": f"{cfg.shorten_method} {cfg.shorten_data_split_list}",
        "sizes of the blocks": digest(np.asarray(block_sizes, np.int64).tobytes()),
        "precision": [cfg.entropy_precision or cfg.precision, cfg.entropy_precision == "bf16"],  # layers, projection
        **facts_of_score(cfg),
    }


def facts_of_score(cfg: Any) -> Dict[str, Any]:
    """The facts of the score; none for the entropy of visible tokens, whose caches existed before all others."""
    folds = {} if cfg.entropy_folds == 1 else {"folds": cfg.entropy_folds}
    if cfg.mask_score == "entropy":
        return folds
    entry = SCORES[cfg.mask_score]
    return {**folds, "score": cfg.mask_score, "version of the score": entry.traits["version"],
            "options of the score": entry.chosen(vars(cfg))}


def name_of(facts: Mapping[str, Any]) -> str:
    """The name of the folder for these facts: their digest."""
    return digest(json.dumps(facts, sort_keys=True).encode())


def sizes(teacher: Any) -> List[Tuple[str, Any]]:
    """(name, value) of the settings that weight shapes do not show: number of heads, layout, epsilon."""
    return sorted((name, value) for name, value in teacher.settings().items()
                  if isinstance(value, (int, float, str, bool)))


def digest_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Digest of names, types, shapes and values, as hexadecimal digits."""
    result = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        result.update(values)  # pyright: ignore[reportArgumentType]  # typeshed knows buffers from Python 3.12 on
    return result.hexdigest()
