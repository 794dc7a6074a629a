"""Statistics of the masks of a batch, as sums that can be added over batches and ranks.

Shapes: B sentences, T positions.
"""

from typing import Dict, Optional, Union

import torch
from torch import Tensor

SUMS = ("n_maskable", "n_selected", "n_scored", "n_scored_selected", "entropy_sum", "entropy_masked_sum")


def mask_statistics(n_maskable: int, n_selected: int, maskable: Tensor, selected: Tensor,
                    entropies: Optional[Tensor]) -> Dict[str, Union[int, Tensor]]:
    """Sums for the log. The keys are always the same: fairseq adds them up over workers by name.

    Args:
        n_maskable: number of True in `maskable`, known on the host.
        n_selected: number of True in `selected`, known on the host.
        maskable: B x T bool.
        selected: B x T bool.
        entropies: B x T fp32, nats (or another score in its unit); None where nothing was scored.
    Returns:
        {key of SUMS: number or 0-dim tensor}.
    """
    if entropies is None:
        nothing = torch.zeros((), device=maskable.device)  # the same type as on a rank that has scored tokens
        return dict(zip(SUMS, (n_maskable, n_selected, 0, 0, nothing, nothing)))
    sums = ((entropies * positions).sum() for positions in (maskable, selected))
    return dict(zip(SUMS, (n_maskable, n_selected, n_maskable, n_selected, *sums)))
