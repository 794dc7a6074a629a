"""Clean blocks of tokens, <s> …, from a data-bin. No masking here: data workers keep the first epoch's copy of a data
set, so masks drawn in them would be frozen.

Shapes: B sentences, T positions.
"""

import os

import numpy as np
import torch
from fairseq import utils
from fairseq.data import (
    FairseqDataset,
    PrependTokenDataset,
    SortDataset,
    TokenBlockDataset,
    data_utils,
    indexed_dataset,
)
from fairseq.data.shorten_dataset import maybe_shorten_dataset

from ..system.errors import UsageError


def load_samples(cfg, dictionary, split, epoch, combine):
    """The samples of a split, shuffled with cfg.seed, then sorted by length: each with its id and clean src_tokens.

    Raises:
        UsageError: the data-bin has no such split, or it holds no sequences.
    """
    blocks = load_blocks(cfg, dictionary, split, epoch, combine)
    with data_utils.numpy_seed(cfg.seed):
        shuffle = np.random.permutation(len(blocks))
    return EveryBlockDataset(Samples(blocks, dictionary), sort_order=[shuffle, blocks.sizes])


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


def special_symbols(dictionary):
    """int64, sorted: what is never masked."""
    return torch.tensor(sorted({dictionary.index(s) for s in ("<pad>", "<s>", "</s>", "<unk>", "<mask>")}))


class Samples(FairseqDataset):
    """Batches of blocks. What the host will need to know of a batch is counted here, before it moves to a device, so
    that no step has to wait for the device to tell it."""

    def __init__(self, blocks, dictionary):
        super().__init__()
        self.blocks, self.sizes = blocks, blocks.sizes
        self.padding_idx, self.specials = dictionary.pad(), special_symbols(dictionary)
        self.entropies = self.self_entropies = None  # stores whose values come with each batch

    def __getitem__(self, index):
        return {"id": index, "src_tokens": self.blocks[index]}

    def __len__(self):
        return len(self.blocks)

    def num_tokens(self, index):
        return self.sizes[index]

    def num_tokens_vec(self, indices):
        return self.sizes[indices]

    def size(self, index):
        return self.sizes[index]

    def set_epoch(self, epoch):
        self.blocks.set_epoch(epoch)

    def collater(self, samples):
        """The ids B, the clean tokens B x T, which of them may be masked, cached entropies B x T, and as plain numbers:
        tokens, maskable tokens of each block, padding."""
        if not samples:
            return {}
        blocks = [sample["src_tokens"] for sample in samples]
        lengths = [len(block) for block in blocks]
        src_tokens = data_utils.collate_tokens(blocks, self.padding_idx)
        has_padding = sum(lengths) < src_tokens.numel()
        maskable = self.maskable(src_tokens)
        return {
            **self.stored_entropies([sample["id"] for sample in samples]),
            "id": torch.tensor([sample["id"] for sample in samples]),
            "net_input": {"src_tokens": src_tokens, "src_lengths": torch.tensor(lengths), "has_padding": has_padding},
            "maskable": maskable,
            "n_maskable": tuple(maskable.sum(1).tolist()),
            "nsentences": len(samples),
            "ntokens": sum(lengths),
        }

    def maskable(self, tokens):
        """Everything but <pad>, <s>, </s>, <mask> and <unk>: bool, of the shape of the tokens."""
        return ~torch.isin(tokens, self.specials)

    def stored_entropies(self, ids):
        stored = {}
        if self.entropies is not None:
            stored["entropy_bits"] = bits([self.entropies.read(i) for i in ids])
        if self.self_entropies is not None:
            values, stored["self_entropy_epochs"] = zip(*(self.self_entropies.read(i) for i in ids))
            stored["self_entropy_bits"] = bits(values)
        return stored


def bits(rows):
    """fp32 arrays, padded to B x T, as integers: fairseq's --fp16 makes halves of whatever is fp32 in a batch."""
    rows = [torch.from_numpy(np.array(row)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).view(torch.int32)


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
