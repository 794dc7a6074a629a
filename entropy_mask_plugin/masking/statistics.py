"""What a batch of masks looked like, as sums that can be added over batches and ranks.

Shapes: B sentences, T positions.
"""

import torch

SUMS = ("n_maskable", "n_selected", "n_scored", "n_scored_selected", "entropy_sum", "entropy_masked_sum")


def mask_statistics(n_maskable, n_selected, maskable, selected, entropies):
    """Sums for the log. The keys are always the same: fairseq adds them up over workers by name.

    Args:
        n_maskable, n_selected: int, how many of the next two are True; the host knows it.
        maskable, selected: B x T bool.
        entropies: B x T fp32, nats; None where nothing was scored.
    Returns:
        {key of SUMS: number or 0-dim tensor}.
    """
    if entropies is None:
        nothing = torch.zeros((), device=maskable.device)  # of the same type as on a rank that has scored something
        return dict(zip(SUMS, (n_maskable, n_selected, 0, 0, nothing, nothing)))
    sums = ((entropies * positions).sum() for positions in (maskable, selected))
    return dict(zip(SUMS, (n_maskable, n_selected, n_maskable, n_selected, *sums)))
