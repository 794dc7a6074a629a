"""Who scores, and when: tables over epochs."""

import pytest

from entropy_mask_plugin.config import source_schedule, teacher_chooses_masks, uses_ema
from entropy_mask_plugin.masking.strategies import STRATEGIES
from entropy_mask_plugin.scoring.schedule import distils, epoch_of_self_entropies, total_updates

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


def task(strategy, switch, teacher="teacher.pt", **settings):
    return {"mask_strategy": strategy, "self_mask_from_epoch": switch, "teacher": teacher, **settings}


@pytest.mark.parametrize("strategy", WITH_ENTROPIES)
@pytest.mark.parametrize("switch, sources", SOURCES)
def test_entropies_come_from_the_teacher_until_self_masking_starts(strategy, switch, sources):
    settings = task(strategy, switch)
    assert [source_schedule(settings).at(epoch) for epoch in EPOCHS] == sources
    assert teacher_chooses_masks(settings) == ("teacher" in sources)
    # Asked in another order, as after a resume: the epoch alone decides.
    assert [source_schedule(settings).at(epoch) for epoch in EPOCHS[::-1]] == sources[::-1]
    by_ema = {**settings, "self_mask_model": "ema"}
    assert [source_schedule(by_ema).at(epoch) for epoch in EPOCHS] == [
        {"self": "ema"}.get(source, source) for source in sources]
    assert uses_ema(by_ema) == (switch is not None) and not uses_ema(settings)


@pytest.mark.parametrize("switch, sources", SOURCES[1:])
def test_without_a_teacher_epochs_before_self_masking_are_random(switch, sources):
    settings = task("high", switch, teacher=None)
    assert [source_schedule(settings).at(epoch) for epoch in EPOCHS] == [
        None if source == "teacher" else source for source in sources]
    assert not teacher_chooses_masks(settings)
    assert source_schedule({**settings, "mask_source": "self"}).at(1) == "self"


@pytest.mark.parametrize("last, warned", [
    ("9", []), ("8", []), ("7", ["--self-mask-from-epoch 8 has no effect: the run ends with epoch 7 (--max-epoch)"])])
def test_self_masking_that_would_begin_after_the_last_epoch_is_warned_of(last, warned, make_task, caplog):
    make_task("--mask-strategy", "high", "--self-mask-from-epoch", "8", "--max-epoch", last)
    assert [message for message in caplog.messages if "has no effect" in message] == warned


@pytest.mark.parametrize("switch", [None, 1, 2, 51])
def test_random_masks_need_no_entropies_and_no_teacher(switch):
    settings = task("random", switch, self_mask_model="ema")
    assert {source_schedule(settings).at(epoch) for epoch in EPOCHS} == {None}
    assert teacher_chooses_masks(settings) is False and not uses_ema(settings)


@pytest.mark.parametrize("max_update, max_epoch, expected", [(0, 0, None), (50, 0, 50), (0, 3, 60), (50, 3, 50),
                                                             (90, 3, 60)])
def test_a_run_ends_with_its_updates_or_its_epochs_whichever_come_first(max_update, max_epoch, expected):
    assert total_updates(max_update, max_epoch, 20) == expected


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
    for switch in (None, 3):
        sources = source_schedule(task("high", switch, mask_source="self"))
        begin = sources.first_epoch_of("self")
        assert [epoch_of_self_entropies(epoch, begin, every=2) for epoch in range(1, 6)] == [1, 1, 3, 3, 5]
