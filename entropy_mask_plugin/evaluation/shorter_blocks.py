"""A masked validation batch in the blocks on which a model trains, while these are shorter than at the end of the run:
positions that it has not yet trained say nothing about what it has learned.

Shapes: B sentences, T positions, L positions of a shorter block, N shorter blocks of a sentence.
"""

from typing import Any, Dict, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.positions import SelectedPositions


def in_shorter_blocks(sample: Mapping[str, Any], length: int, padding_idx: int) -> Dict[str, Any]:
    """The same tokens, masks and targets, each sentence cut into blocks that begin with <s>, as in the text.

    Args:
        sample: masked, of B sentences that begin with <s>.
        length: L, at least 2.
        padding_idx: <pad>, also in targets.
    Returns:
        a batch of at most B x N blocks, without those that are all padding.
    """
    net_input, is_selected = sample["net_input"], sample["selected"].mask.long()
    tokens, target, selected = (
        cut(rows, length, padding) for rows, padding in
        ((net_input["src_tokens"], padding_idx), (sample["target"], padding_idx), (is_selected, 0)))
    tokens = torch.cat([net_input["src_tokens"][:1, :1].expand(len(tokens), 1), tokens], 1)  # B * N x L
    target = F.pad(target, (1, 0), value=padding_idx)
    selected = F.pad(selected, (1, 0)).bool()
    lengths = tokens.ne(padding_idx).sum(1)  # B * N
    text = lengths > 1
    return {**sample, "target": target[text], "selected": SelectedPositions(selected[text]), "net_input": {
        **net_input, "src_tokens": tokens[text], "src_lengths": lengths[text],
        "has_padding": bool((lengths[text] < length).any())}}


def cut(rows: Tensor, length: int, padding: int) -> Tensor:
    """B x T -> B * N x (L - 1): the positions after the first, in their order."""
    rows = rows[:, 1:]
    rows = F.pad(rows, (0, -rows.size(1) % (length - 1)), value=padding)
    return rows.reshape(-1, length - 1)
