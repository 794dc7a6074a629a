"""Counter-based noise: uniform, independent of everything but its counters, and the same on every machine."""

import math

import pytest
import torch

from entropy_mask_plugin.masking.noise import COIN, CORRUPTION, REPLACEMENT, SELECTION, coin, plain_noise, uniform

GOLDEN = 0x9E3779B97F4A7C15


def splitmix(x):
    """The finaliser of SplitMix64 on Python's integers, which have no sign bit and no device."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def reference_hash(*counters):
    state = 0
    for counter in counters:
        state = splitmix((state + counter + GOLDEN) % 2**64)
    return state


def field(seed=1, epoch=1, first_id=0, sentences=256, length=256, stream=SELECTION):
    return uniform(seed, epoch, torch.arange(first_id, first_id + sentences), length, stream)


def test_noise_is_splitmix64_in_exact_integers_also_for_large_and_negative_counters():
    # Pinned bit for bit: a run that resumes with another torch or on another device must see its old masks.
    assert reference_hash(0) == 0xE220A8397B1DCDAF  # the published first output of SplitMix64 with seed 0
    ids = [0, 1, 77, 2**24 + 1, 2**31 - 1, 2**31, 2**40]
    for seed in (0, 1, 2**31 - 1, 2**31, -1, -(2**31)):
        for epoch, stream in ((0, SELECTION), (1, CORRUPTION), (10**6, REPLACEMENT)):
            expected = [[(reference_hash(stream, seed, epoch, i, j) >> 40) / 2**24 for j in range(4)] for i in ids]
            result = uniform(seed, epoch, torch.tensor(ids), 4, stream)
            assert result.dtype == torch.float32
            assert result.tolist() == expected


def test_noise_is_uniform_between_zero_and_one():
    values = field(sentences=500, length=400).flatten().double().sort().values
    n = len(values)
    assert values[0] >= 0.0 and values[-1] < 1.0
    assert abs(values.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)  # within 4 standard errors
    assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    steps = torch.arange(n + 1) / n
    distance = torch.maximum(steps[1:] - values, values - steps[:-1]).max()  # Kolmogorov-Smirnov
    assert distance < 1.95 / math.sqrt(n)  # exceeded once in 1,000 times
    assert len(values.unique()) > 0.99 * n  # fine enough that ties, which favour low positions, are rare


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    ids = torch.tensor([5, 2**31, 0, 9, 123456, 7])
    whole = uniform(3, 2, ids, 512, SELECTION)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.equal(uniform(3, 2, ids[order], 512, SELECTION), whole[order])
    parts = [uniform(3, 2, part, 512, SELECTION) for part in ids.split(4)]
    assert torch.equal(torch.cat(parts), whole)
    for length in (300, 17, 1, 0):  # a longer neighbour, hence more padding, only appends
        assert torch.equal(uniform(3, 2, ids[2:3], length, SELECTION), whole[2:3, :length])
    assert uniform(3, 2, ids[:0], 8, SELECTION).shape == (0, 8)


def test_noise_ignores_torchs_random_state_and_leaves_it_alone():
    torch.manual_seed(1)
    first, state = field(), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(field(), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_of_other_seeds_epochs_samples_positions_and_streams_is_unrelated():
    base = field(seed=2, epoch=3)
    shifted = field(seed=2, epoch=3, sentences=257, length=257)
    fields = {
        "base": base,
        "the next seed": field(seed=3, epoch=3),
        "seed and epoch exchanged": field(seed=3, epoch=2),
        "a negative seed": field(seed=-2, epoch=3),
        "a seed 2^32 further": field(seed=2 + 2**32, epoch=3),
        "the next epoch": field(seed=2, epoch=4),
        "no epoch": field(seed=2, epoch=0),
        "other samples": field(seed=2, epoch=3, first_id=2**31),
        "the stream of the corruption": field(seed=2, epoch=3, stream=CORRUPTION),
        "the stream of the replacements": field(seed=2, epoch=3, stream=REPLACEMENT),
        "the next sample": shifted[1:, :-1],
        "the next position": shifted[:-1, 1:],
        "the next sample, the next position": shifted[1:, 1:],
        "sample and position exchanged": base.T.clone().fill_diagonal_(0.5),
    }
    correlation = torch.corrcoef(torch.stack([x.flatten() for x in fields.values()]).double()).fill_diagonal_(0.0)
    worst = divmod(correlation.abs().argmax().item(), len(fields))
    # 5 standard errors: 91 pairs are looked at. (A field equal to another has correlation 1.)
    assert correlation.abs().max() < 5 / 256, [list(fields)[i] for i in worst]


def test_no_position_and_no_pair_of_positions_is_preferred_by_the_highest_noise():
    # What masking makes of the noise: the 3 highest of 12 positions, in 40,000 neighbouring samples.
    rows, length, k = 40_000, 12, 3
    top = torch.zeros(rows, length).scatter_(1, field(sentences=rows, length=length).topk(k, dim=1).indices, 1.0)
    together = top.T @ top / rows  # diagonal: how often is a position chosen; elsewhere: how often are both of a pair
    one, both = k / length, k * (k - 1) / length / (length - 1)
    expected = torch.full((length, length), both).fill_diagonal_(one)
    assert ((together - expected).abs() < 4.5 * (expected * (1 - expected) / rows).sqrt()).all()


def test_the_coin_is_a_function_of_seed_and_update():
    updates = [*range(300), 2**31, 10**12]
    for seed in (0, 1, 2**31, -7):
        expected = [reference_hash(COIN, seed, update) >= 2**63 for update in updates]
        assert [coin(seed, update) for update in updates] == expected
        assert [coin(seed, update) for update in reversed(updates)] == expected[::-1]  # no memory


def test_the_coin_is_fair_and_its_throws_are_unrelated():
    # 100,000 updates of the reference, which the test above compares with the coin. Throws are +1 or -1.
    n = 100_000
    first, second = (torch.tensor([reference_hash(COIN, seed, u) >> 63 for u in range(n)]) * 2.0 - 1 for seed in (1, 2))
    assert [coin(1, u) for u in range(n - 1000, n)] == (first[-1000:] > 0).tolist()
    limit = 4 / math.sqrt(n)
    for throw in (first, second):
        assert abs(throw.mean()) < limit
        for lag in (1, 2, 3, 4, 8, 64):
            assert abs((throw[lag:] * throw[:-lag]).mean()) < limit
    assert abs((first * second).mean()) < limit


@pytest.mark.parametrize("length", [1, 7, 128, 1500])
@pytest.mark.parametrize("state", [0, 1, -1, 2**63 - 1, -(2**63), 0x1E3779B97F4A7C15])
def test_the_kernel_draws_the_bits_of_the_plain_form(state, length):
    """In Triton's interpreter where there is no GPU."""
    fused_noise = pytest.importorskip("entropy_mask_plugin.masking.triton_noise").fused_noise
    ids = torch.tensor([0, 1, 77, 2**31, 2**40], device="cuda" if torch.cuda.is_available() else "cpu")
    result = fused_noise(state, ids, length)
    assert result.dtype == torch.float32 and torch.equal(result, plain_noise(state, ids, length))


def test_the_kernel_has_nothing_to_draw():
    fused_noise = pytest.importorskip("entropy_mask_plugin.masking.triton_noise").fused_noise
    ids = torch.arange(3, device="cuda" if torch.cuda.is_available() else "cpu")
    assert fused_noise(5, ids[:0], 8).shape == (0, 8) and fused_noise(5, ids, 0).shape == (3, 0)
