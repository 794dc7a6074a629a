"""Computes the missing parts of a store. All processes that need it share the work: the ranks of a run, other runs.

Shapes: B blocks, T positions.
"""

import time
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np
import torch
from fairseq.data import data_utils
from torch import Tensor
from tqdm import tqdm

from .store import EntropyStore

ScoreBatch = Callable[[Dict[str, Any]], Tensor]  # src_tokens B x T int64, has_padding -> B x T fp32

BATCH_TOKENS = {"cpu": 1 << 12, "cuda": 1 << 15}


def build(store: EntropyStore, blocks: Sequence[Tensor], longest: int, score_batch: ScoreBatch, device: torch.device,
          padding_idx: int) -> None:
    """Fill the store. Returns once all parts exist, whichever process computed them.

    Args:
        store: what to fill.
        blocks: the data set; blocks[i] are the tokens of block i, int64.
        longest: tokens of the longest block that is scored. Longer ones are never trained on (fairseq drops or rejects
            them); their entropies are nan.
        score_batch: {"src_tokens": B x T int64, "has_padding": bool} on the device -> entropies, B x T fp32, nats.
        device: where to compute.
        padding_idx: fills short blocks of a batch.
    Raises:
        OSError: a part cannot be written.
    """
    missing = store.missing()
    if not missing:
        return

    def compute(part: int) -> List[np.ndarray]:
        part_blocks = [blocks[i] for i in store.blocks(part)]
        short = [block for block in part_blocks if len(block) <= longest]
        entropies = block_entropies(short, score_batch, device, padding_idx)
        return [next(entropies) if len(block) <= longest else np.full(len(block), np.nan) for block in part_blocks]

    total = int(store.ends[-1])
    with tqdm(total=total, desc="Entropies of the teacher", unit=" tokens", unit_scale=True, mininterval=0.5) as bar:
        bar.update(total - sum(map(store.number_of_values, missing)))
        while missing:
            done = [part for part in missing if compute_locked(store, part, compute, bar)]
            missing = [part for part in missing if part not in done and not store.is_complete(part)]
            bar.update(total - sum(map(store.number_of_values, missing)) - bar.n)
            if missing and not done:
                time.sleep(0.5)  # other processes are computing them


def compute_locked(store: EntropyStore, part: int, compute: Callable[[int], List[np.ndarray]], bar: tqdm) -> bool:
    """Compute a part unless another process is computing it. Returns whether it was computed here."""
    with store.try_lock(part) as is_locked:
        if not is_locked or store.is_complete(part):  # finished by another process in the meantime
            return False
        store.write(part, compute(part))
        bar.update(store.number_of_values(part))
    return True


def block_entropies(blocks: Sequence[Tensor], score_batch: ScoreBatch, device: torch.device,
                    padding_idx: int) -> Iterator[np.ndarray]:
    """Yield the entropies of each block in order, fp32, nats; arguments as for `build`."""
    rows = max(1, BATCH_TOKENS[device.type] // max(map(len, blocks), default=1))
    for start in range(0, len(blocks), rows):
        batch = blocks[start : start + rows]
        tokens = data_utils.collate_tokens(batch, padding_idx)
        has_padding = any(len(block) < tokens.size(1) for block in batch)
        entropies = score_batch({"src_tokens": tokens.to(device), "has_padding": has_padding}).cpu()
        for row, block in zip(entropies, batch):
            yield row[: len(block)].numpy()
