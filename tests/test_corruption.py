"""What the model sees and must predict; and the whole way from clean tokens to masks, on 100,000 of them."""

import math

import pytest
import torch
from builders.training import RANKED

from entropy_mask_plugin.masking import noise
from entropy_mask_plugin.masking.corruption import apply_80_10_10, corrupt, random_tokens
from entropy_mask_plugin.masking.strategies import select
from entropy_mask_plugin.masking.take import number_to_mask

PAD, UNK, MASK = 1, 3, 999
SPECIALS = torch.tensor([0, PAD, 2, UNK, MASK])  # <s> <pad> </s> <unk>, and <mask> at the other end
ORDINARY = torch.arange(4, MASK)


def test_the_model_sees_masks_at_the_selected_positions_and_predicts_nothing_elsewhere():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(MASK, (7, 33), generator=generator)
    selected = torch.rand(7, 33, generator=generator) < torch.tensor([0, 0.1, 0.3, 0.5, 0.9, 1, 0.2])[:, None]
    clean, chosen = tokens.clone(), selected.clone()
    src_tokens, target = corrupt(tokens, selected, MASK, PAD)
    pairs = [list(zip(*row)) for row in zip(tokens.tolist(), selected.tolist())]
    assert src_tokens.tolist() == [[MASK if masked else token for token, masked in row] for row in pairs]
    assert target.tolist() == [[token if masked else PAD for token, masked in row] for row in pairs]
    assert torch.equal(tokens, clean) and torch.equal(selected, chosen)  # fairseq uses the sample again
    assert [x.shape for x in corrupt(tokens[:0], selected[:0], MASK, PAD)] == [(0, 33), (0, 33)]


@pytest.mark.parametrize("leave, swap", [(0.1, 0.1), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.25, 0.75), (0.3, 0.05)])
def test_softening_leaves_and_swaps_the_given_shares_of_the_selected_positions_only(leave, swap):
    ids, length = torch.arange(500), 500
    selected = noise.uniform(1, 1, ids, length, noise.SELECTION) < 0.5
    tokens = torch.randint(4, 500, (500, length), generator=torch.Generator().manual_seed(0))
    replacement = tokens + 500  # no token is another's replacement, so that the three cases can be told apart
    masked = corrupt(tokens, selected, MASK * 2, PAD)[0]
    before = [x.clone() for x in (masked, tokens, selected, replacement)]
    draw = noise.uniform(1, 1, ids, length, noise.CORRUPTION)
    draw[:20, 0], draw[:20, 1] = 0.0, 1.0 - 2.0**-24  # the ends, which are too rare to come up
    result = apply_80_10_10(masked, tokens, selected, leave, swap, draw, replacement)

    assert torch.equal(result[~selected], tokens[~selected])
    kinds = [(result == kind)[selected].float().mean().item() for kind in (tokens, replacement, masked)]
    assert selected.sum() > 100_000
    assert kinds == pytest.approx([leave, swap, 1 - leave - swap], abs=0.005)
    # None at all, where the share is zero, and one of the three always.
    assert [share > 0 for share in kinds] == [leave > 0, swap > 0, leave + swap < 1]
    assert sum(kinds) == pytest.approx(1.0, abs=1e-6)
    assert all(torch.equal(x, y) for x, y in zip((masked, tokens, selected, replacement), before))


def test_noise_that_softens_is_uniform_where_noise_selected():
    # The noise that selects is high where it selects: were the streams one, no selected token would ever be left.
    ids, length = torch.arange(3000), 100
    everything = torch.ones(3000, length, dtype=torch.bool)
    scores = noise.uniform(1, 1, ids, length, noise.SELECTION)
    selected = select("high", scores, everything, number_to_mask(everything.sum(1), 0.15))
    draw = noise.uniform(1, 1, ids, length, noise.CORRUPTION)
    assert (draw[selected] < 0.1).double().mean() == pytest.approx(0.1, abs=0.006)
    assert (draw[selected] >= 0.9).double().mean() == pytest.approx(0.1, abs=0.006)


def test_random_tokens_are_ordinary_and_all_equally_frequent():
    ordinary = torch.tensor([4, 5, 8, 13, *range(100, 160)])  # specials may sit in any gap
    draw = noise.uniform(1, 1, torch.arange(1000), 200, noise.REPLACEMENT)
    before = draw.clone()
    drawn = random_tokens(draw, ordinary)
    counts = torch.bincount(drawn.flatten(), minlength=200)
    assert drawn.shape == (1000, 200) and counts[ordinary].sum() == 200_000  # no other token, specials or gaps
    expected = 200_000 / len(ordinary)
    assert (counts[ordinary] - expected).abs().max() < 5 * math.sqrt(expected)
    assert torch.equal(draw, before)


@pytest.mark.parametrize("size", [1, 2, 1000, 30517, 250_000])
def test_every_token_owns_an_equal_part_of_the_unit_interval(size):
    # The noise has 2^24 values. At the ends of each part, a product in fp32 would round into the next one.
    first = (torch.arange(size) * 2**24 + size - 1) // size  # of token i: the lowest j with j / 2^24 >= i / size
    last = torch.cat([first[1:], torch.tensor([2**24])]) - 1
    drawn = random_tokens(torch.stack([first, last]) * 2.0**-24, torch.arange(size) + 7)
    assert torch.equal(drawn, (torch.arange(size) + 7).expand(2, size))


# ---- the whole way, as the task goes it


def random_batch(samples=1500, seed=0):
    """<s> ... </s> of 1 to 200 tokens, 2 % of them unknown, and a few <mask> that were there before."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 200, (samples, 1), generator=generator)
    places = torch.arange(202)
    tokens = torch.randint(4, MASK, (samples, 202), generator=generator)
    dice = torch.rand(samples, 202, generator=generator)
    tokens[dice < 0.02], tokens[dice > 0.995] = UNK, MASK
    tokens[:, 0] = 0
    tokens[places == lengths + 1] = 2
    return tokens.masked_fill(places > lengths + 1, PAD)


def choose_by_noise(strategy, tokens, ids):
    maskable = ~torch.isin(tokens, SPECIALS)
    scores = noise.uniform(1, 1, ids, tokens.size(1), noise.SELECTION)
    return select(strategy, scores, maskable, number_to_mask(maskable.sum(1), 0.15))


@pytest.mark.parametrize("strategy", RANKED)
def test_of_100_000_tokens_no_special_is_masked_and_the_rate_is_mask_prob(strategy):
    tokens = random_batch()
    selected = choose_by_noise(strategy, tokens, torch.arange(len(tokens)))
    special = (tokens[..., None] == SPECIALS).any(dim=-1)
    assert (~special).sum() > 100_000
    assert not (selected & special).any()
    n, k = (~special).sum(dim=1), selected.sum(dim=1)
    assert k.sum() / n.sum() == pytest.approx(0.15, abs=0.0015)  # within 1 % of it
    assert ((k - 0.15 * n).abs() <= 0.5 + 1e-5)[n > 3].all()  # in every sequence as near as whole tokens allow
    assert (k >= 1)[n > 0].all() and (k == 0)[n == 0].all()


def test_80_10_10_on_100_000_masked_tokens():
    tokens, ids = torch.cat([random_batch(seed=seed) for seed in range(6)]), torch.arange(9000)
    selected = choose_by_noise("high", tokens, ids)
    assert selected.sum() > 100_000
    src_tokens, target = corrupt(tokens, selected, MASK, PAD)
    draws = [noise.uniform(1, 1, ids, tokens.size(1), stream) for stream in (noise.CORRUPTION, noise.REPLACEMENT)]
    src_tokens = apply_80_10_10(src_tokens, tokens, selected, 0.1, 0.1, draws[0], random_tokens(draws[1], ORDINARY))
    seen, clean = src_tokens[selected], tokens[selected]
    masked, kept = (seen == MASK), (seen == clean)  # a random token is by chance the clean one: 1 of 1,000
    shares = [x.double().mean().item() for x in (masked, kept, ~masked & ~kept)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.005)
    assert not torch.isin(seen[~masked], SPECIALS).any()
    assert torch.equal(src_tokens[~selected], tokens[~selected])
    assert torch.equal(target, torch.where(selected, tokens, PAD))


def test_a_sample_gets_the_same_random_mask_in_any_batch():
    tokens, ids = random_batch(samples=64), torch.arange(64) * 31
    whole = choose_by_noise("high", tokens, ids)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choose_by_noise("high", tokens[order], ids[order]), whole[order])
    for sample in range(64):  # alone, without the padding that its neighbours cost it
        length = (tokens[sample] != PAD).sum()
        alone = choose_by_noise("high", tokens[sample : sample + 1, :length], ids[sample : sample + 1])
        assert torch.equal(alone[0], whole[sample, :length])
    assert not torch.equal(choose_by_noise("high", tokens, ids + 1), whole)
