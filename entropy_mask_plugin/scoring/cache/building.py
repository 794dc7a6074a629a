"""The missing parts of a store, computed by every process that is there: ranks of a run, other runs.

Shapes: B blocks, T positions.
"""

import time

import numpy as np
from fairseq.data import data_utils
from tqdm import tqdm

BATCH_TOKENS = {"cpu": 1 << 12, "cuda": 1 << 15}


def build(store, blocks, longest, entropies_of, device, padding_idx):
    """Return when all parts are there.

    Args:
        store: `EntropyStore`.
        blocks: the data set; blocks[i] are the tokens of block i.
        longest: tokens of a block; longer ones are never trained on (fairseq leaves them out or refuses them) and are
            nan.
        entropies_of: {"src_tokens": B x T int64, "has_padding": bool} on the device -> B x T fp32.
        device: where to compute.
        padding_idx: fills short blocks of a batch.
    """
    missing = store.missing()
    if not missing:
        return

    def compute(part):
        chosen = [blocks[i] for i in store.blocks(part)]
        short = computed([block for block in chosen if len(block) <= longest], entropies_of, device, padding_idx)
        return [next(short) if len(block) <= longest else np.full(len(block), np.nan) for block in chosen]

    whole = int(store.ends[-1])
    with tqdm(total=whole, desc="Entropies of the teacher", unit=" tokens", unit_scale=True, mininterval=0.5) as shown:
        shown.update(whole - sum(map(store.number_of_values, missing)))
        while missing:
            done = [part for part in missing if compute_locked(store, part, compute, shown)]
            missing = [part for part in missing if part not in done and not store.is_whole(part)]
            shown.update(whole - sum(map(store.number_of_values, missing)) - shown.n)
            if missing and not done:
                time.sleep(0.5)  # others are at work on them


def compute_locked(store, part, compute, shown):
    """Compute a part unless somebody else does. Returns whether it was computed."""
    with store.try_lock(part) as is_mine:
        if not is_mine or store.is_whole(part):  # finished by another since it was looked for
            return False
        store.write(part, compute(part))
        shown.update(store.number_of_values(part))
    return True


def computed(blocks, entropies_of, device, padding_idx):
    """Yield the entropies of each block, in their order."""
    rows = max(1, BATCH_TOKENS[device.type] // max(map(len, blocks), default=1))
    for start in range(0, len(blocks), rows):
        batch = blocks[start : start + rows]
        tokens = data_utils.collate_tokens(batch, padding_idx)
        has_padding = any(len(block) < tokens.size(1) for block in batch)
        found = entropies_of({"src_tokens": tokens.to(device), "has_padding": has_padding}).cpu()
        for row, block in zip(found, batch):
            yield row[: len(block)].numpy()
