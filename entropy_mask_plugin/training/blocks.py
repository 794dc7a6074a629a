"""Clean blocks of tokens, <s> …, from a data-bin. Masks are not drawn here: data workers keep the dataset that they
received in the first epoch, so masks drawn in them would repeat in every epoch.

Shapes: B sentences, T positions.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Dict, List

import numpy as np
import torch
from fairseq import utils
from fairseq.data import (
    Dictionary,
    FairseqDataset,
    PrependTokenDataset,
    SortDataset,
    TokenBlockDataset,
    data_utils,
)
from fairseq.data.shorten_dataset import maybe_shorten_dataset
from torch import Tensor

from ..masking.devices import to_device_async
from .data_files import check_symbols, load_lines


def load_samples(cfg: Any, dictionary: Dictionary, split: str, epoch: int, combine: bool) -> FairseqDataset:
    """A split as a dataset of {id, clean src_tokens}, shuffled with cfg.seed, then sorted by length.

    Args:
        cfg: an EntropyMaskedLMConfig.
        dictionary: with <mask>.
        split: "train", "valid", ….
        epoch: from 1; decides which shard is read.
        combine: also read split1, split2, …, as fairseq does for training data.
    Raises:
        UsageError: the data-bin has no such split, or it is cut or holds no sequences.
    """
    blocks = load_blocks(cfg, dictionary, split, epoch, combine)
    with data_utils.numpy_seed(cfg.seed):
        shuffle = np.random.permutation(len(blocks))
    samples = Samples(blocks, dictionary, prefix_of(cfg, split, epoch))
    return EveryBlockDataset(samples, sort_order=[shuffle, blocks.sizes])


def prefix_of(cfg: Any, split: str, epoch: int) -> str:
    """The path of a split's files without .bin and .idx, in the shard of an epoch; arguments as for `load_samples`."""
    paths = utils.split_paths(cfg.data)
    return os.path.join(paths[(epoch - 1) % len(paths)], split)


def load_blocks(cfg: Any, dictionary: Dictionary, split: str, epoch: int, combine: bool) -> PrependTokenDataset:
    """The blocks of a split in the order of the text: <s> and at most --tokens-per-sample - 1 tokens each.

    Arguments and errors as those of `load_samples`.
    """
    prefix = prefix_of(cfg, split, epoch)
    length = cfg.tokens_per_sample - 1  # without <s>
    lines = load_lines(prefix, dictionary, combine)
    lines = maybe_shorten_dataset(
        lines, split, cfg.shorten_data_split_list, cfg.shorten_method, length, cfg.seed
    )
    if cfg.sample_break_mode != "eos":  # TokenBlockDataset's own `eos` fails with numpy 2, and changes nothing
        lines = TokenBlockDataset(
            lines, lines.sizes, length, pad=dictionary.pad(), eos=dictionary.eos(), break_mode=cfg.sample_break_mode
        )
    return PrependTokenDataset(lines, dictionary.bos())


def special_symbols(dictionary: Dictionary) -> Tensor:
    """Ids of the tokens that are never masked: int64, sorted."""
    return torch.tensor(sorted({dictionary.index(s) for s in ("<pad>", "<s>", "</s>", "<unk>", "<mask>")}))


class Samples(FairseqDataset):
    """Batches of blocks, with the counts that the host needs: taken here, on the CPU, so that no step has to wait for a
    device to send them."""

    def __init__(self, blocks: Any, dictionary: Dictionary, prefix: str = ""):
        super().__init__()
        self.prefix = prefix  # of the file, for messages
        self.blocks, self.sizes = blocks, blocks.sizes
        self.padding_idx, self.specials = dictionary.pad(), special_symbols(dictionary)
        self.n_symbols = len(dictionary)
        self.entropies: Any = None  # an `EntropyStore`; its values are added to each batch
        self.self_entropies: Any = None  # a `SelfEntropyStore`; likewise

    def __getitem__(self, index: int) -> Dict[str, Any]:
        """{id, src_tokens: T int64}; raises a UsageError where its ids are not the dictionary's."""
        block = self.blocks[index]
        check_symbols(block, self.n_symbols, self.prefix)
        return {"id": index, "src_tokens": block}

    def __len__(self) -> int:
        return len(self.blocks)

    def num_tokens(self, index: int) -> int:
        """Length of a block, <s> included."""
        return self.sizes[index]

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Lengths of several blocks."""
        return self.sizes[indices]

    def size(self, index: int) -> int:
        """Length of a block, for fairseq's filters."""
        return self.sizes[index]

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the blocks: random_crop draws new ones in each epoch."""
        self.blocks.set_epoch(epoch)

    def collater(self, samples: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
        """A batch of B blocks.

        Returns:
            id (B), net_input with src_tokens (B x T, clean), maskable (B x T bool), cached entropies where a store is
            set, and on the host: ids and n_maskable (of each block), nsentences, ntokens and net_input's has_padding.
        """
        if not samples:
            return {}
        blocks = [sample["src_tokens"] for sample in samples]
        lengths = [len(block) for block in blocks]
        src_tokens = data_utils.collate_tokens(blocks, self.padding_idx)
        has_padding = sum(lengths) < src_tokens.numel()
        maskable = self.maskable(src_tokens)
        ids = [sample["id"] for sample in samples]
        return {
            **self.stored_entropies(ids),
            "id": torch.tensor(ids),
            "ids": tuple(ids),
            "net_input": {"src_tokens": src_tokens, "src_lengths": torch.tensor(lengths), "has_padding": has_padding},
            "maskable": maskable,
            "n_maskable": tuple(maskable.sum(1).tolist()),
            "nsentences": len(samples),
            "ntokens": sum(lengths),
        }

    def maskable(self, tokens: Tensor) -> Tensor:
        """Everything but <pad>, <s>, </s>, <mask> and <unk>: bool, of the shape of the tokens."""
        return ~torch.isin(tokens, self.specials)

    def stored_entropies(self, ids: Sequence[int]) -> Dict[str, Any]:
        """Cached entropies of these blocks, B x T as int32 (see `bits`), and the epoch in which each was computed."""
        stored = {}
        if self.entropies is not None:
            stored["entropy_bits"] = bits([self.entropies.read(i) for i in ids])
        if self.self_entropies is not None:
            rows = [self.self_entropies.read(i) for i in ids]
            values, stored["self_entropy_epochs"] = zip(*rows, strict=True)
            stored["self_entropy_bits"] = bits(values)
        return stored


def some_rows(sample: Mapping[str, Any], rows: Tensor) -> Dict[str, Any]:
    """A smaller batch. sample: of B blocks, see `Samples.collater`; rows: b int64 on the host, their indices."""
    on_host, moved = rows.tolist(), {}

    def chosen(value):
        if isinstance(value, Mapping):
            return some_rows(value, rows)
        if isinstance(value, tuple):
            return tuple(value[row] for row in on_host)
        if not isinstance(value, Tensor):
            return value
        if value.device not in moved:
            moved[value.device] = to_device_async(rows, value.device)
        return value.index_select(0, moved[value.device])

    return {key: chosen(value) for key, value in sample.items()}


def with_masks(sample: Mapping[str, Any], src_tokens: Tensor, target: Tensor, selected: Any) -> Dict[str, Any]:
    """A new sample with corrupted tokens and targets, B x T int64 each, and the positions to be predicted,
    a `SelectedPositions`."""
    return {**sample, "net_input": {**sample["net_input"], "src_tokens": src_tokens}, "target": target,
            "selected": selected}


def bits(values: Iterable[np.ndarray]) -> Tensor:
    """fp32 arrays -> B x T int32 with the same bits, padded: fairseq's --fp16 would convert fp32 tensors of a batch."""
    rows = [torch.from_numpy(np.array(row)) for row in values]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).view(torch.int32)


class EveryBlockDataset(SortDataset):
    """fairseq drops a last batch whose size is not a multiple of --required-batch-size-multiple (8 by default). The
    dropped blocks depend on the seed, so validation losses of two runs would cover different texts."""

    def batch_by_size(self, indices: np.ndarray, **kwargs: Any) -> List[Any]:
        """fairseq's batches, and the blocks that it dropped as a last one."""
        batches = list(super().batch_by_size(indices, **kwargs))
        rest = indices[sum(map(len, batches)) :]
        return [*batches, rest] if len(rest) else batches
