"""What the model sees at the selected positions, and what it must predict there.

Shapes: B sentences, T positions, R tokens that may replace another.
"""

from typing import NamedTuple

import torch


class Corruption(NamedTuple):
    """How much is masked, and what becomes of it: shares."""

    mask_prob: float
    leave_unmasked_prob: float
    random_token_prob: float


def corrupt(tokens, selected, mask_idx, padding_idx):
    """Replace every selected token by the mask token, as the paper does.

    Args:
        tokens: B x T int64, clean.
        selected: B x T bool.
    Returns:
        src_tokens, target: B x T int64. `target` is the clean token where selected, `padding_idx` elsewhere.
    """
    return tokens.masked_fill(selected, mask_idx), tokens.masked_fill(~selected, padding_idx)


def apply_80_10_10(src_tokens, tokens, selected, leave_unmasked_prob, random_token_prob, noise, replacement):
    """BERT's 80/10/10: put the clean token back at some of the selected positions, a random one at some.

    Args:
        src_tokens: B x T int64, from `corrupt`.
        tokens, selected: as given to `corrupt`.
        leave_unmasked_prob, random_token_prob: shares of the selected positions.
        noise: B x T fp32 in [0, 1), decides which of the three a position becomes.
        replacement: B x T int64, a random token for each position.
    Returns:
        src_tokens: B x T int64.
    """
    leave = selected & (noise < leave_unmasked_prob)
    swap = selected & ~leave & (noise < leave_unmasked_prob + random_token_prob)
    return torch.where(leave, tokens, torch.where(swap, replacement, src_tokens))


def random_tokens(noise, ordinary):
    """A uniformly random ordinary token for each position.

    Args:
        noise: B x T fp32 in [0, 1).
        ordinary: R int64, the tokens to draw from (no specials).
    Returns:
        B x T int64.
    """
    return ordinary[(noise.double() * ordinary.numel()).long()]
