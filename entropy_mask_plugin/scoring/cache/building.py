"""Computes the missing parts of a store. All processes that need it share the work: the ranks of a run, other runs.

Shapes: B samples (blocks), T positions.
"""

import time
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np
import torch
from fairseq import utils
from torch import Tensor
from tqdm import tqdm

from ...system.errors import require
from .store import EntropyStore

ScoreBatch = Callable[[Dict[str, Any]], Tensor]  # a clean batch -> B x T fp32

BATCH_TOKENS = {"cpu": 1 << 12, "cuda": 1 << 15}


def build(store: EntropyStore, samples: Any, longest: int, score_batch: ScoreBatch, device: torch.device) -> None:
    """Fill the store. Returns once all parts exist, whichever process computed them.

    Args:
        store: what to fill.
        samples: the data set, a `training.blocks.Samples`: samples[i], samples.sizes[i] and samples.collater.
        longest: tokens of the longest sample that is scored. Longer ones are never trained on (fairseq drops or rejects
            them); their entropies are nan.
        score_batch: a batch as `samples` collates it, on the device -> entropies, B x T fp32, nats.
        device: where to compute.
    Raises:
        UsageError: the teacher predicts nan, or a part cannot be written.
    """
    missing = store.missing()
    if not missing:
        return

    def compute(part: int) -> List[np.ndarray]:
        blocks = store.blocks(part)
        short = [i for i in blocks if samples.sizes[i] <= longest]
        entropies = finite(scores_of_blocks(samples, short, score_batch, device))
        return [next(entropies) if samples.sizes[i] <= longest else np.full(samples.sizes[i], np.nan) for i in blocks]

    total = int(store.ends[-1])
    with tqdm(total=total, desc="Entropies of the teacher", unit=" tokens", unit_scale=True, mininterval=0.5) as bar:
        bar.update(total - sum(map(store.number_of_values, missing)))
        while missing:
            done = [part for part in missing if compute_locked(store, part, compute, bar)]
            missing = [part for part in missing if part not in done and not store.is_complete(part)]
            bar.update(total - sum(map(store.number_of_values, missing)) - bar.n)
            if missing and not done:
                time.sleep(0.5)  # other processes are computing them


def finite(scores: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The scores of each block; raises a UsageError where one is nan, which must not be stored."""
    for of_block in scores:
        require("--teacher", "predictions that are nan", not np.isnan(of_block).any(), "finite weights")
        yield of_block


def compute_locked(store: EntropyStore, part: int, compute: Callable[[int], List[np.ndarray]], bar: tqdm) -> bool:
    """Compute a part unless another process is computing it. Returns whether it was computed here."""
    with store.try_lock(part) as is_locked:
        if not is_locked or store.is_complete(part):  # finished by another process in the meantime
            return False
        store.write(part, compute(part))
        bar.update(store.number_of_values(part))
    return True


def scores_of_blocks(samples: Any, blocks: Sequence[int], score_batch: ScoreBatch,
                     device: torch.device) -> Iterator[np.ndarray]:
    """Yield the scores of each block in order, fp32. blocks: their indices; other arguments as for `build`."""
    rows = max(1, BATCH_TOKENS[device.type] // max((samples.sizes[i] for i in blocks), default=1))
    for start in range(0, len(blocks), rows):
        indices = blocks[start : start + rows]
        batch: Any = utils.apply_to_sample(
            lambda tensor: tensor.to(device), samples.collater([samples[i] for i in indices]))
        scores = score_batch(batch).cpu()
        for row, i in zip(scores, indices):
            yield row[: samples.sizes[i]].numpy()
