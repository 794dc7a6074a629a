"""Statistics of the masks of a batch, as sums that can be added over batches and ranks.

Shapes: B sentences, T positions.
"""

from typing import Dict, Union

import torch
from torch import Tensor

from .masker import Masked

SUMS = ("n_maskable", "n_selected", "n_guided", "n_scored", "n_scored_selected", "entropy_sum", "entropy_masked_sum")


def mask_statistics(n_maskable: int, n_selected: int, maskable: Tensor, masked: Masked,
                    is_partly_guided: bool) -> Dict[str, Union[int, Tensor]]:
    """Sums for the log. fairseq adds them up over ranks by name, numbers and tensors apart, so that which of them are
    tensors must depend on the policy alone.

    Args:
        n_maskable: number of True in `maskable`, known on the host.
        n_selected: number of selected positions, known on the host.
        maskable: B x T bool.
        masked: the batch.
        is_partly_guided: whether the policy leaves some masks to chance, so that only the device knows how many.
    Returns:
        {key of SUMS: number or 0-dim tensor}.
    """
    if masked.scores is None:
        nothing = torch.zeros((), device=maskable.device)
        counts = (nothing, nothing, nothing) if is_partly_guided else (0, 0, 0)
        return dict(zip(SUMS, (n_maskable, n_selected, *counts, nothing, nothing), strict=True))
    counts = n_selected, n_maskable, n_selected
    if is_partly_guided:
        assert masked.guided is not None
        scored = maskable if masked.is_scored is None else maskable & masked.is_scored[:, None]
        counts = masked.guided.sum(), scored.sum(), (scored & masked.selected).sum()
    sums = ((masked.scores * positions).sum() for positions in (maskable, masked.selected))
    return dict(zip(SUMS, (n_maskable, n_selected, *counts, *sums), strict=True))
