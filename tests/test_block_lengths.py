"""Blocks that grow over a run: when, how long, and that everything which depends on their length follows."""

import math

import numpy as np
import pytest
import torch
from builders.training import OURS, TINY, TRAINING, parse, same_weights, train
from builders.processes import Killed, kill_before_update

from entropy_mask_plugin.config import EntropyMaskedLMConfig
from entropy_mask_plugin.task import EntropyMaskedLMTask
from entropy_mask_plugin.training import plateau
from entropy_mask_plugin.training.block_lengths import (
    BlockLengths,
    first_epoch_like,
    is_time_to_grow,
    parse_lengths,
    parse_when,
)

GROWING = ["--tokens-per-sample", "4:16"]
BY_FRACTIONS = [*GROWING, "--grow-tokens-per-sample", "0.3,0.6", "--mask-strategy", "random"]


# ---- when, and how long


@pytest.mark.parametrize(("text", "lengths"), [
    (128, (128,)), ("128", (128,)), ("32:128", (32, 64, 128)), ("32:100", (32, 64, 100)), ("2:3", (2, 3)),
    ("16:16", (16,)),
])
def test_lengths_double_until_the_last_is_reached(text, lengths):
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize("text", ["1", "64:32", "32:", "a", "32:64:128", "1:8", "3.5"])
def test_what_are_no_lengths_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  # int() has its own message
        parse_lengths(text)


@pytest.mark.parametrize("text", ["", "sometimes", "0.6,0.3", "0.3,0.3", "0", "1", "0.5,1.5", "nan"])
def test_what_is_no_time_to_grow_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_when(text)


@pytest.mark.parametrize(("losses", "left", "stalled"), [
    ([], False, False),  # no epoch was validated
    ([9.5], False, False),  # nothing to compare with
    ([8.0, 7.8], False, False),  # still on the plateau, but falling
    ([8.0, 7.96], False, True),  # … by less than 0.05 bits
    ([8.0, 8.4], False, True),  # rising
    ([8.0, 7.8, 7.8], False, True),
    ([7.8, 8.0, 7.78], False, True),  # compared with the lowest, not with the last
    ([7.7], True, True),  # 0.3 bits below the unigram entropy
    ([7.71], False, False),
    ([math.nan], False, False), ([8.0, math.nan], False, True),  # no progress
])
def test_blocks_grow_when_the_loss_has_left_the_plateau_or_has_stalled_on_it(losses, left, stalled):
    assert [is_time_to_grow(losses, 8.0, when) for when in ("left", "stalled")] == [left, stalled]


def lengths_of_run(losses, when, **ends):
    """The length of each epoch, when the epochs end with these losses after ten updates each."""
    blocks, lengths = BlockLengths((4, 8, 16), when, unigram=8.0), []
    for epoch, loss in enumerate(losses, 1):
        lengths.append(blocks.begin_epoch(epoch, **ends))
        blocks.updates = 10 * epoch
        if loss is not None:
            blocks.record_loss(epoch, blocks.updates, loss)
    return lengths


@pytest.mark.parametrize(("when", "losses", "lengths"), [
    ("left", [8, 8, 8, 7, 7, 7, 7], [4, 4, 4, 4, 8, 16, 16]),
    ("stalled", [8, 8, 8, 8, 8, 8], [4, 4, 8, 8, 16, 16]),
    ("stalled", [8, 7.9, 7.8, 7.6, 9, 9, 9], [4, 4, 4, 4, 8, 8, 16]),  # losses at another length do not count
    ("left", [7, None, None, 7, 7], [4, 8, 8, 8, 16]),  # not every epoch is validated
])
def test_a_run_grows_by_one_length_at_a_time(when, losses, lengths):
    assert lengths_of_run(losses, when) == lengths


@pytest.mark.parametrize(("ends", "lengths"), [
    ({"max_epoch": 10}, [4, 4, 4, 8, 8, 8, 16, 16, 16, 16]),
    ({"max_update": 50}, [4, 4, 8, 16, 16, 16, 16, 16, 16, 16]),
    ({"max_epoch": 10, "max_update": 50}, [4, 4, 8, 16, 16, 16, 16, 16, 16, 16]),  # whichever comes first
])
def test_fractions_are_those_of_the_run_when_an_epoch_begins(ends, lengths):
    assert lengths_of_run([None] * 10, (0.3, 0.6), **ends) == lengths


def test_one_length_stays_and_has_no_state():
    blocks = BlockLengths((16,), "stalled")
    assert [blocks.begin_epoch(epoch) for epoch in (1, 2, 9)] == [16] * 3
    blocks.record_loss(1, 5, 9.0)
    assert blocks.state_dict() == {}


def test_a_resumed_epoch_keeps_the_length_that_it_began_with():
    blocks = BlockLengths((4, 8, 16), "stalled", unigram=8.0)
    blocks.begin_epoch(1)
    blocks.record_loss(1, 5, 8.5)
    assert blocks.begin_epoch(2) == 4
    blocks.record_loss(2, 7, 5.0)  # within the epoch
    resumed = BlockLengths((4, 8, 16), "stalled", unigram=8.0)
    resumed.load_state_dict(blocks.state_dict())
    assert resumed.begin_epoch(2) == 4 and resumed.begin_epoch(3) == blocks.begin_epoch(3) == 8
    longer = BlockLengths((6, 12), "stalled", unigram=8.0)  # another --tokens-per-sample
    longer.load_state_dict(blocks.state_dict())
    assert [longer.begin_epoch(epoch) for epoch in (3, 4)] == [12, 12]


def test_of_several_validation_subsets_the_first_counts():
    blocks = BlockLengths((4, 8), "left", unigram=8.0)
    blocks.begin_epoch(1)
    blocks.record_loss(1, 5, 8.5)
    blocks.record_loss(1, 5, 2.0)
    assert blocks.begin_epoch(2) == 4


def test_the_first_epoch_with_the_same_blocks_is_found_over_gaps():
    assert [first_epoch_like({1: 4, 2: 4, 3: 8, 5: 8}, epoch) for epoch in (1, 2, 3)] == [1, 1, 3]
    assert first_epoch_like({}, 7) == 1


# ---- trainings


class Trained(list):
    """(epoch, positions, sentences) of each batch of a training."""


@pytest.fixture
def batches(monkeypatch):
    seen, step = Trained(), EntropyMaskedLMTask.train_step

    def train_step(self, sample, *arguments, **named):
        seen.append((self.epoch, *reversed(sample["net_input"]["src_tokens"].shape)))
        return step(self, sample, *arguments, **named)

    monkeypatch.setattr(EntropyMaskedLMTask, "train_step", train_step)
    return seen


def test_the_blocks_of_a_training_grow_and_batches_keep_their_tokens(data_bin, batches, tmp_path):
    checkpoint = train(data_bin, str(tmp_path), *BY_FRACTIONS, "--max-epoch", "4")
    assert {epoch: {batch[1] for batch in batches if batch[0] == epoch} for epoch in (1, 2, 3, 4)} == {
        1: {4}, 2: {4}, 3: {8}, 4: {16}}
    for length, sentences in ((4, 256), (8, 128), (16, 64)):  # --batch-size 64 means blocks of 16
        assert max(batch[2] for batch in batches if batch[1] == length) == sentences
    state = torch.load(checkpoint, weights_only=True)
    assert state["cfg"]["task"]["tokens_per_sample"] == "4:16"
    epochs = state["extra_state"]["learned_state"]["block_lengths"]["epochs"]
    assert {epoch: length for epoch, (length, _) in epochs.items()} == {1: 4, 2: 4, 3: 8, 4: 16}


def planted(monkeypatch, losses):
    """Give the validations of a training these losses, in order of the epochs."""
    record = BlockLengths.record_loss
    monkeypatch.setattr(BlockLengths, "record_loss", lambda self, epoch, updates, loss: record(
        self, epoch, updates, losses[epoch - 1]))


@pytest.mark.parametrize("when", ["left", "stalled", "0.3,0.6"])
@pytest.mark.parametrize("kill_at", ["boundary", "middle"])
def test_a_run_with_growing_blocks_that_was_killed_ends_in_the_weights_of_a_straight_run(
        when, kill_at, data_bin, batches, tmp_path, monkeypatch):
    """Killed in epoch 3, the first one of longer blocks, before or after its first checkpoint."""
    planted(monkeypatch, [99.0, -1.0 if when == "left" else 99.0, -1.0, -1.0])
    flags = [*GROWING, "--grow-tokens-per-sample", when, "--mask-strategy", "random", "--max-epoch", "4",
             "--save-interval-updates", "5"]
    straight = train(data_bin, str(tmp_path / "straight"), *flags)
    whole = list(batches)
    assert sorted({batch[:2] for batch in whole}) == [(1, 4), (2, 4), (3, 8), (4, 16)]
    until = sum(batch[0] < 3 for batch in whole)
    until = until + 2 if kill_at == "boundary" else (until // 5 + 1) * 5 + 1
    del batches[:]
    with monkeypatch.context() as patch:
        kill_before_update(patch, until)
        with pytest.raises(Killed):
            train(data_bin, str(tmp_path / "killed"), *flags)
    done = torch.load(tmp_path / "killed" / "checkpoint_last.pt", weights_only=True)["extra_state"]["train_iterator"]
    assert done["epoch"] == 3 and (done["iterations_in_epoch"] == 0) == (kill_at == "boundary")
    del batches[:]
    resumed = train(data_bin, str(tmp_path / "killed"), *flags)
    assert batches == whole[-len(batches):] and len(batches) < len(whole)
    assert same_weights(straight, resumed)
