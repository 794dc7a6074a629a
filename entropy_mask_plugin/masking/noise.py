"""Counter-based noise: the value at a position depends on where it is, not on what was drawn before.

So a mask does not depend on batch size, order, number of GPUs, device, data workers, or whether the run was resumed.
Shapes: B sentences, T positions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .kernels import verified_once

# Streams, one for each purpose of the noise; they are independent.
# SELECTION: positions that are masked at random; STRATEGY: of a strategy that also looks at scores; GUIDED: how much of
# a sequence's masks follows the scores; UNIT: of a unit; FOLD: which tokens are hidden together; TIES: between equal
# scores.
SELECTION, CORRUPTION, REPLACEMENT, COIN, VALIDATION, STRATEGY, GUIDED, UNIT, FOLD, TIES = range(10)

_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniform(seed: int, epoch: int, sample_ids: Tensor, length: int, stream: int) -> Tensor:
    """Uniform noise in [0, 1).

    Args:
        seed: any integer.
        epoch: any integer.
        sample_ids: B int64.
        length: T.
        stream: one of the purposes above.
    Returns:
        B x T fp32 on the device of `sample_ids`, multiples of 2^-24.
    """
    state = _signed(_hash(stream, seed, epoch))
    if sample_ids.device.type == "cuda" and _kernel_is_right(sample_ids.device):
        from .triton_noise import fused_noise

        return fused_noise(state, sample_ids, length)
    return plain_noise(state, sample_ids, length)


def plain_noise(state: int, sample_ids: Tensor, length: int) -> Tensor:
    """The hash of (state, sample id, position) as B x T fp32 in [0, 1). state: 64 bits as a signed integer; sample_ids:
    B int64; length: T."""
    rows = _mix_tensor(sample_ids + _signed(state + _GOLDEN))  # B
    positions = torch.arange(length, device=sample_ids.device) + _signed(_GOLDEN)  # T
    bits = _mix_tensor(rows[:, None] + positions)  # B x T
    return _shift_right(bits, 40).float() * 2.0**-24


class Draw(NamedTuple):
    """The noise that a strategy may draw for one batch.

    seed: of the run; epoch: what the noise depends on, 0 where masks are static; ids: B int64, of the sentences;
    length: T; update: what coins depend on.
    """

    seed: int
    epoch: int
    ids: Tensor
    length: int
    update: int

    def noise(self, stream: int) -> Tensor:
        """Uniform noise in [0, 1), B x T fp32: a function of (seed, epoch, sample id, position, stream)."""
        return uniform(self.seed, self.epoch, self.ids, self.length, stream)

    def row_noise(self, stream: int) -> Tensor:
        """Uniform noise in [0, 1) for each sentence, B fp32."""
        return uniform(self.seed, self.epoch, self.ids, 1, stream)[:, 0]

    def rows(self, rows: Tensor) -> "Draw":
        """The noise of some sentences of the batch; rows: b int64, their indices."""
        return self._replace(ids=self.ids[rows])

    def coin(self) -> bool:
        """A fair coin: True or False, the same for the whole update."""
        return coin(self.seed, self.update)


def coin(seed: int, update_num: int) -> bool:
    """A fair coin: True or False, a function of (seed, update number)."""
    return _hash(COIN, seed, update_num) >= _WORD >> 1


def _hash(*counters):
    """64 well-mixed bits for a sequence of integers; their order matters."""
    state = 0
    for counter in counters:
        state = _mix((state + counter + _GOLDEN) % _WORD)
    return state


def _mix(x):
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each input bit flips each output bit half of the time."""
    x = (x ^ x >> 30) * _FACTORS[0] % _WORD
    x = (x ^ x >> 27) * _FACTORS[1] % _WORD
    return x ^ x >> 31


def _mix_tensor(x):
    """`_mix` of int64 tensors, whose arithmetic wraps around."""
    x = (x ^ _shift_right(x, 30)) * _signed(_FACTORS[0])
    x = (x ^ _shift_right(x, 27)) * _signed(_FACTORS[1])
    return x ^ _shift_right(x, 31)


def _shift_right(x, bits):
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts the sign in


def _signed(x):
    """The integer in int64 that has these 64 bits."""
    return (x + (_WORD >> 1)) % _WORD - (_WORD >> 1)


@verified_once("noise")
def _kernel_is_right(device):
    """Whether the GPU kernel compiles on this device and draws the same bits."""
    from .triton_noise import fused_noise  # triton comes with CUDA builds of torch only

    ids = torch.tensor([0, 7, 2**31, 2**40], device=device)
    states = (_signed(_GOLDEN), 1)
    return all(torch.equal(fused_noise(state, ids, 130), plain_noise(state, ids, 130)) for state in states)
