"""What the model sees at the selected positions, and what it must predict there.

Shapes: B sentences, T positions, R tokens that may replace another.
"""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from .rates import Rate


class Corruption(NamedTuple):
    """How much is masked, and what replaces it.

    mask_prob: fraction of the maskable tokens, in (0, 1], may change over the run; leave_unmasked_prob,
    random_token_prob: fractions of the masked tokens, in [0, 1].
    """

    mask_prob: Rate
    leave_unmasked_prob: float
    random_token_prob: float


def corrupt(tokens: Tensor, selected: Tensor, mask_idx: int, padding_idx: int) -> Tuple[Tensor, Tensor]:
    """Replace every selected token by the mask token, as the paper does.

    Args:
        tokens: B x T int64, clean.
        selected: B x T bool.
        mask_idx: id of the mask token.
        padding_idx: id that the loss ignores.
    Returns:
        src_tokens, target: B x T int64. `target` is the clean token where selected, `padding_idx` elsewhere.
    """
    return tokens.masked_fill(selected, mask_idx), tokens.masked_fill(~selected, padding_idx)


def apply_80_10_10(src_tokens: Tensor, tokens: Tensor, selected: Tensor, leave_unmasked_prob: float,
                   random_token_prob: float, noise: Tensor, replacement: Tensor) -> Tensor:
    """BERT's 80/10/10: restore the clean token at some of the selected positions, put a random one at others.

    Args:
        src_tokens: B x T int64, from `corrupt`.
        tokens: B x T int64, clean.
        selected: B x T bool.
        leave_unmasked_prob: fraction of the selected positions that keep the clean token, in [0, 1].
        random_token_prob: fraction of the selected positions that get a random token, in [0, 1 - leave_unmasked_prob].
        noise: B x T fp32 in [0, 1), decides which of the three a position gets.
        replacement: B x T int64, a random token for each position.
    Returns:
        src_tokens: B x T int64.
    """
    leave = selected & (noise < leave_unmasked_prob)
    swap = selected & ~leave & (noise < leave_unmasked_prob + random_token_prob)
    return torch.where(leave, tokens, torch.where(swap, replacement, src_tokens))


def random_tokens(noise: Tensor, ordinary: Tensor) -> Tensor:
    """A uniformly random ordinary token for each position.

    Args:
        noise: B x T fp32 in [0, 1).
        ordinary: R int64, the tokens to draw from (no specials).
    Returns:
        B x T int64.
    """
    return ordinary[(noise.double() * ordinary.numel()).long()]
