"""Clean blocks of tokens, <s> …, from a data-bin. No masking here: data workers keep the first epoch's copy of a data
set, so masks drawn in them would be frozen."""

import os

import numpy as np
from fairseq import utils
from fairseq.data import (
    IdDataset,
    NestedDictionaryDataset,
    NumelDataset,
    NumSamplesDataset,
    PrependTokenDataset,
    RightPadDataset,
    SortDataset,
    TokenBlockDataset,
    data_utils,
    indexed_dataset,
)
from fairseq.data.shorten_dataset import maybe_shorten_dataset

from .errors import UsageError


def load_samples(cfg, dictionary, split, epoch, combine):
    """The samples of a split, shuffled with cfg.seed, then sorted by length: each with its id and clean src_tokens.

    Raises:
        UsageError: the data-bin has no such split, or it holds no sequences.
    """
    blocks = load_blocks(cfg, dictionary, split, epoch, combine)
    samples = NestedDictionaryDataset(
        {
            "id": IdDataset(),
            "net_input": {
                "src_tokens": RightPadDataset(blocks, pad_idx=dictionary.pad()),
                "src_lengths": NumelDataset(blocks, reduce=False),
            },
            "nsentences": NumSamplesDataset(),
            "ntokens": NumelDataset(blocks, reduce=True),
        },
        sizes=[blocks.sizes],
    )
    with data_utils.numpy_seed(cfg.seed):
        shuffle = np.random.permutation(len(samples))
    return EveryBlockDataset(samples, sort_order=[shuffle, blocks.sizes])


def load_blocks(cfg, dictionary, split, epoch, combine):
    paths = utils.split_paths(cfg.data)
    prefix = os.path.join(paths[(epoch - 1) % len(paths)], split)
    check_split(prefix)
    length = cfg.tokens_per_sample - 1  # without <s>
    try:
        lines = data_utils.load_indexed_dataset(prefix, dictionary, combine=combine)
    except (ValueError, AssertionError, OSError) as error:
        raise UsageError(f"data: {prefix}.bin or .idx cannot be read ({error}), expected whole files") from error
    lines = maybe_shorten_dataset(
        lines, split, cfg.shorten_data_split_list, cfg.shorten_method, length, cfg.seed
    )
    if cfg.sample_break_mode != "eos":  # TokenBlockDataset's own `eos` fails with numpy 2, and changes nothing
        lines = TokenBlockDataset(
            lines, lines.sizes, length, pad=dictionary.pad(), eos=dictionary.eos(), break_mode=cfg.sample_break_mode
        )
    return PrependTokenDataset(lines, dictionary.bos())


def check_split(prefix):
    if not indexed_dataset.dataset_exists(prefix, impl=None):
        raise UsageError(f"data: {prefix}.bin and .idx not found, expected a folder written by fairseq-preprocess")
    if os.path.getsize(prefix + ".bin") == 0:
        raise UsageError(f"data: {prefix}.bin holds no sequences, expected at least one")


class EveryBlockDataset(SortDataset):
    """fairseq drops a last batch whose size is no multiple of --required-batch-size-multiple (8 by default). Which
    blocks that are depends on the seed, so validation losses of two runs would not be about the same text."""

    def batch_by_size(self, indices, **kwargs):
        batches = list(super().batch_by_size(indices, **kwargs))
        rest = indices[sum(map(len, batches)) :]
        return [*batches, rest] if len(rest) else batches
