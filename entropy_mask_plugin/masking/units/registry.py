"""Which tokens are masked together, one unit a file.

    @UNITS.add("name")
    def name(tokens, candidates, vocabulary, draw):

        tokens      B x T int64, clean
        candidates  B x T bool: what may be masked
        vocabulary  a `masking.vocabulary.Vocabulary`
        draw        a `masking.noise.Draw`
        returns     B x T int64 in -1 ... T - 1: tokens of a sentence with the same number are masked together, tokens
                    with -1 never; or None: each token alone

check: symbols -> None, raises ValueError where the unit cannot be made of these V subword strings, called before
training; None = it always can.

Shapes: B sentences, T positions, V vocabulary.
"""

from typing import Optional, Sequence

import torch
from torch import Tensor

from ..registry import Registry

UNITS = Registry("--mask-unit", check=None)


def check_symbols(name: str, symbols: Sequence[str]) -> None:
    """Check that a unit can be made of a vocabulary.

    Args:
        name: of the unit.
        symbols: the V subword strings.
    Raises:
        ValueError: there is no such unit; this vocabulary does not have it.
    """
    check = UNITS[name].traits["check"]
    if check is not None:
        check(symbols)


def check_units(units: Optional[Tensor], tokens: Tensor, what: str) -> None:
    """Check what a unit returns: B x T int64 in -1 ... T - 1, or None. The range is checked on a CPU only: on a GPU,
    the host would wait.

    Raises:
        ValueError: it is something else; `what` begins the message.
    """
    if units is None:
        return
    if not isinstance(units, Tensor) or units.dtype != torch.int64 or units.shape != tokens.shape:
        kind = f"{units.dtype} of shape {tuple(units.shape)}" if isinstance(units, Tensor) else type(units).__name__
        raise ValueError(f"{what}: {kind} found, expected int64 of shape {tuple(tokens.shape)}")
    if units.device.type == "cpu" and units.numel():
        lowest, highest = int(units.min()), int(units.max())
        if lowest < -1 or highest >= tokens.size(1):
            raise ValueError(f"{what}: numbers from {lowest} to {highest} found, expected -1 to {tokens.size(1) - 1}")


def number_by_start(starts: Tensor) -> Tensor:
    """Units that last until the next one starts, each with the position of its first token as its number.

    Args:
        starts: B x T bool, the first token of each unit; a row's first token is always one.
    Returns:
        B x T int64.
    """
    positions = torch.arange(starts.size(1), device=starts.device)
    return torch.where(starts, positions, 0).cummax(1).values
