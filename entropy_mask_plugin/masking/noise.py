"""Counter-based noise: the value at a position is a function of where it is, not of what was drawn before.

So a mask does not depend on batch size, order, number of GPUs, device, data workers or resuming.
Shapes: B sentences, T positions.
"""

import torch

# What the noise is for. Different streams are independent.
SELECTION, CORRUPTION, REPLACEMENT, COIN, VALIDATION = range(5)

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # int64 arithmetic wraps around, so constants are written as signed
_FACTORS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def uniform(seed, epoch, sample_ids, length, stream):
    """Uniform noise in [0, 1).

    Args:
        seed, epoch, stream: integers.
        sample_ids: B, int64.
        length: T.
    Returns:
        B x T fp32 on the device of `sample_ids`, multiples of 2^-24.
    """
    positions = torch.arange(length, device=sample_ids.device)
    bits = _hash(stream, seed, epoch, sample_ids[:, None], positions[None, :])
    return _shift_right(bits, 40).float() * 2.0**-24


def coin(seed, update_num):
    """A fair coin for each update: True or False."""
    return bool(_hash(COIN, seed, update_num) < 0)


def _hash(*counters):
    """64 well-mixed bits for each combination of counters (integers or int64 tensors that broadcast)."""
    state = torch.zeros((), dtype=torch.int64)
    for counter in counters:
        state = _mix(state + counter + _GOLDEN)
    return state


def _mix(x):
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each input bit flips each output bit half of the time."""
    x = (x ^ _shift_right(x, 30)) * _FACTORS[0]
    x = (x ^ _shift_right(x, 27)) * _FACTORS[1]
    return x ^ _shift_right(x, 31)


def _shift_right(x, bits):
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts the sign in
