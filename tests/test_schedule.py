"""Who scores, and when: tables over epochs."""

from types import SimpleNamespace

import pytest

from entropy_mask_plugin.config import teacher_chooses_masks
from entropy_mask_plugin.masking.strategies import STRATEGIES
from entropy_mask_plugin.scoring.schedule import distils, epoch_of_self_entropies, source_of

WITH_ENTROPIES = ("high", "low", "mid", "marginal", "alternating", "gumbel")
EPOCHS = (1, 2, 3, 4, 50)
SOURCES = [  # --self-mask-from-epoch, the source in each of EPOCHS
    (None, ["teacher"] * 5),
    (1, ["self"] * 5),  # cold start: no teacher at all
    (2, ["teacher", "self", "self", "self", "self"]),  # the paper's init
    (4, ["teacher", "teacher", "teacher", "self", "self"]),
    (51, ["teacher"] * 5),
]


def test_these_are_the_strategies():
    assert set(STRATEGIES) == {"random", *WITH_ENTROPIES}


@pytest.mark.parametrize("strategy", WITH_ENTROPIES)
@pytest.mark.parametrize("self_mask_from_epoch, sources", SOURCES)
def test_entropies_come_from_the_teacher_until_self_masking_starts(strategy, self_mask_from_epoch, sources):
    assert [source_of(strategy, epoch, self_mask_from_epoch) for epoch in EPOCHS] == sources
    cfg = SimpleNamespace(mask_strategy=strategy, self_mask_from_epoch=self_mask_from_epoch, mask_source="teacher")
    assert teacher_chooses_masks(cfg) == ("teacher" in sources)
    # Asked in another order, as after a resume: the epoch alone decides.
    assert [source_of(strategy, epoch, self_mask_from_epoch) for epoch in EPOCHS[::-1]] == sources[::-1]


@pytest.mark.parametrize("self_mask_from_epoch", [None, 1, 2, 51])
def test_random_masks_need_no_entropies_and_no_teacher(self_mask_from_epoch):
    assert {source_of("random", epoch, self_mask_from_epoch) for epoch in EPOCHS} == {None}
    cfg = SimpleNamespace(mask_strategy="random", self_mask_from_epoch=self_mask_from_epoch, mask_source="teacher")
    assert teacher_chooses_masks(cfg) is False


@pytest.mark.parametrize("kd_weight, kd_start_epoch, expected", [
    (0.5, 1, [True, True, True, True, True]),  # complete transfer
    (0.5, 2, [False, True, True, True, True]),  # transfer after initialization
    (1.0, 4, [False, False, False, True, True]),
    (0.0, 1, [False] * 5),
    (0.0, 2, [False] * 5),
])
def test_distillation_starts_in_its_epoch_and_only_with_a_weight(kd_weight, kd_start_epoch, expected):
    assert [distils(epoch, kd_weight, kd_start_epoch) for epoch in EPOCHS] == expected


@pytest.mark.parametrize("first, every, shards, expected", [
    (1, 1, 1, [1, 2, 3, 4, 5, 6]), (1, 2, 1, [1, 1, 3, 3, 5, 5]), (2, 3, 1, [2, 2, 2, 5, 5, 5]),
    (1, 2, 3, [1, 2, 3, 1, 2, 3, 7, 8]), (3, 2, 2, [3, 4, 3, 4, 7, 8]),
])
def test_self_entropies_are_computed_in_one_of_so_many_passes_over_each_shard(first, every, shards, expected):
    epochs = range(first, first + len(expected))
    assert [epoch_of_self_entropies(epoch, first, every, shards) for epoch in epochs] == expected
    assert all((epoch - used) % shards == 0 for epoch, used in zip(epochs, expected))  # of the same shard


def test_before_self_masking_no_epoch_is_that_of_another():
    assert [epoch_of_self_entropies(epoch, 3, every=2) for epoch in (1, 2, 3, 4, 5)] == [1, 2, 3, 3, 5]


def test_where_self_is_the_first_source_passes_are_counted_from_the_first_epoch():
    for self_mask_from_epoch in (None, 3):
        epochs = [epoch_of_self_entropies(epoch, self_mask_from_epoch, every=2, first="self") for epoch in range(1, 6)]
        assert epochs == [1, 1, 3, 3, 5]
