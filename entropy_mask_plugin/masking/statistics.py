"""What a batch of masks looked like, as sums that can be added over batches and ranks.

Shapes: B sentences, T positions.
"""

import torch

SUMS = ("n_maskable", "n_selected", "n_scored", "n_scored_selected", "entropy_sum", "entropy_masked_sum")


def mask_statistics(maskable, selected, entropies):
    """Sums for the log. The keys are always the same: fairseq adds them up over workers by name.

    Args:
        maskable, selected: B x T bool.
        entropies: B x T fp32, nats; None where nothing was scored.
    Returns:
        {key of SUMS: 0-dim tensor}.
    """
    n_maskable, n_selected = maskable.sum(), selected.sum()
    if entropies is None:
        nothing = torch.zeros_like(n_maskable)
        return dict(zip(SUMS, (n_maskable, n_selected, nothing, nothing, nothing.float(), nothing.float())))
    sums = ((entropies * positions).sum() for positions in (maskable, selected))
    return dict(zip(SUMS, (n_maskable, n_selected, n_maskable, n_selected, *sums)))
