"""Blocks that grow over a run: when, how long, and that everything which depends on their length follows."""

import math
import re
import subprocess
import sys

import pytest
import torch
from builders.processes import Killed, kill_before_update, torchrun
from builders.training import OURS, PLUGIN, ROOT, TINY, TRAINING, run, same_weights, train, updates_of_an_epoch

from entropy_mask_plugin.evaluation.shorter_blocks import in_shorter_blocks
from entropy_mask_plugin.masking.corruption import Corruption
from entropy_mask_plugin.models.flops import macs_of_step
from entropy_mask_plugin.models.positions import SelectedPositions
from entropy_mask_plugin.reporting import comparison
from entropy_mask_plugin.reporting.training_log import read_pretraining_run
from entropy_mask_plugin.scoring.scorer import Scorer
from entropy_mask_plugin.studies.record import account, flops_per_token, model_of_settings
from entropy_mask_plugin.system.errors import UsageError
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
BY_FRACTIONS = [*GROWING, "--grow-tokens-per-sample", "0.3,0.6", "--max-epoch", "4"]  # blocks of 4, 4, 8, 16
RANDOM = ["--mask-strategy", "random"]


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
    checkpoint = train(data_bin, str(tmp_path), *BY_FRACTIONS, *RANDOM)
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


def end_of_run(data_bin, batches, tmp_path):
    """So many updates that 0.3 and 0.6 of them are over in the second and the third epoch."""
    updates = updates_of_an_epoch(data_bin, tmp_path / "epoch", *GROWING, *RANDOM)
    del batches[:]
    return ["--max-update", str(round(3.4 * updates))]


@pytest.mark.parametrize("when", ["left", "stalled", "0.3,0.6"])  # the last by updates, see `end_of_run`
@pytest.mark.parametrize("kill_at", ["boundary", "middle"])
def test_a_run_with_growing_blocks_that_was_killed_ends_in_the_weights_of_a_straight_run(
        when, kill_at, data_bin, batches, tmp_path, monkeypatch):
    """Killed in epoch 3, the first one of longer blocks, before or after its first checkpoint."""
    planted(monkeypatch, [99.0, -1.0 if when == "left" else 99.0, -1.0, -1.0])
    flags = [*GROWING, "--grow-tokens-per-sample", when, "--mask-strategy", "random", "--save-interval-updates", "5",
             *(end_of_run(data_bin, batches, tmp_path) if "," in when else ["--max-epoch", "4"])]
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


def test_no_longer_blocks_are_loaded_after_the_last_epoch(data_bin, tmp_path, monkeypatch, caplog):
    planted(monkeypatch, [-1.0, -1.0])  # the plateau is left at once
    loaded = []
    for epochs in ("1", "2"):
        caplog.clear()
        train(data_bin, str(tmp_path), *GROWING, *RANDOM, "--grow-tokens-per-sample", "left", "--max-epoch", epochs)
        loaded.append([record.getMessage().split(" positions")[0] for record in caplog.records
                       if ": blocks of " in record.getMessage()])
    assert loaded == [["epoch 1: blocks of 4"], ["epoch 2: blocks of 8"]]


def test_a_run_with_one_length_is_as_it_was(data_bin, tmp_path, caplog):
    """Its settings hold a number, its checkpoint no state, its log no other loss."""
    with caplog.at_level("INFO"):
        checkpoint = train(data_bin, str(tmp_path), *RANDOM, "--max-epoch", "1")
    state = torch.load(checkpoint, weights_only=True)
    assert state["cfg"]["task"]["tokens_per_sample"] == 16 and "learned_state" not in state["extra_state"]
    assert "short_loss" not in caplog.text and "blocks of" not in caplog.text


def test_two_numbers_that_are_equal_train_as_one(data_bin, tmp_path):
    one = train(data_bin, str(tmp_path / "one"), *RANDOM, "--max-epoch", "2")
    assert same_weights(one, train(data_bin, str(tmp_path / "two"), *RANDOM, "--max-epoch", "2",
                                   "--tokens-per-sample", "16:16"))


def test_validation_has_the_longest_blocks_and_meanwhile_those_of_the_training_too(data_bin, tmp_path, caplog):
    with caplog.at_level("INFO"):
        checkpoint = train(data_bin, str(tmp_path), *BY_FRACTIONS, *RANDOM)
    lines = [record.message for record in caplog.records if record.name == "valid"]
    assert ["short_loss" in line for line in lines] == [True, True, True, False]
    losses = [float(re.search(r" (?:short_loss|loss (?!.*short_loss)) ?([\d.]+)", line)[1]) for line in lines]
    epochs = torch.load(checkpoint, weights_only=True)["extra_state"]["learned_state"]["block_lengths"]["epochs"]
    assert [loss for _, loss in epochs.values()] == pytest.approx(losses, abs=1e-3)
    assert len({line.split("wpb ")[1].split()[0] for line in lines}) == 1  # the same tokens in each
    assert "epoch 3: blocks of 8 positions (--tokens-per-sample 4:16)" in caplog.text


def test_shorter_blocks_have_the_tokens_masks_and_targets_of_the_sentence_in_their_order():
    """Against loops. <s> = 0, </s> = 2, <pad> = 1; the second sentence is shorter."""
    tokens = torch.tensor([[0, 10, 11, 12, 13, 14, 15, 16, 2], [0, 20, 21, 22, 2, 1, 1, 1, 1]])
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[0, [1, 4, 7]] = mask[1, 3] = True
    target = torch.where(mask, tokens + 100, 1)
    sample = {"id": torch.tensor([0, 1]), "target": target, "selected": SelectedPositions(mask),
              "net_input": {"src_tokens": tokens, "src_lengths": torch.tensor([9, 5]), "has_padding": True}}
    for length in (2, 3, 4, 5, 8, 9, 20):
        shorter = in_shorter_blocks(sample, length, 1)
        blocks, lengths = [], []
        for row, n in enumerate((9, 5)):
            for start in range(1, n, length - 1):
                positions = range(start, min(start + length - 1, n))
                blocks.append([(0, False, 1), *((tokens[row, i].item(), mask[row, i].item(), target[row, i].item())
                                                for i in positions)])
                lengths.append(len(blocks[-1]))
        net_input = shorter["net_input"]
        assert net_input["src_lengths"].tolist() == lengths
        assert net_input["has_padding"] == any(n < net_input["src_tokens"].size(1) for n in lengths)
        got = [list(zip(*(rows[i, :n].tolist() for rows in (
            net_input["src_tokens"], shorter["selected"].mask, shorter["target"])))) for i, n in enumerate(lengths)]
        assert got == blocks
        for i, n in enumerate(lengths):
            assert net_input["src_tokens"][i, n:].eq(1).all() and not shorter["selected"].mask[i, n:].any()


def test_a_loss_far_above_the_unigram_entropy_is_not_called_on_the_plateau():
    for loss, words in ((8.0, "on the plateau: "), (8.2, "on the plateau: "), (8.4, "above the plateau: ")):
        assert plateau.plateau_warning(loss, 8.0, (128,)).startswith(words)


def test_the_advice_on_the_plateau_is_a_command_that_shortens_blocks():
    assert "--tokens-per-sample 32:128" in plateau.plateau_warning(8.0, 8.0, (128,))
    assert "--tokens-per-sample 128:512" in plateau.plateau_warning(8.0, 8.0, (512,))
    assert parse_lengths(plateau.advice((48,)).split()[-1]) == (32, 48)
    for lengths in ((32,), (32, 64, 128)):
        assert "--tokens-per-sample" not in plateau.advice(lengths) and "more updates" in plateau.advice(lengths)


@pytest.mark.parametrize(("flags", "message"), [
    (["--tokens-per-sample", "32:16"], "--tokens-per-sample: 32:16 found, expected 2 or more, or FIRST:LAST"),
    ([*GROWING, "--grow-tokens-per-sample", "soon"], "--grow-tokens-per-sample: soon found, expected left, stalled"),
    ([*GROWING, "--grow-tokens-per-sample", "0.5"], "0.5 found, expected 2 fractions for the lengths 4, 8, 16"),
    ([*GROWING, "--grow-tokens-per-sample", "0.3,0.6"], "without an end of the run found, expected --max-update or"),
    ([*GROWING, "--disable-validation"], "stalled with --disable-validation found, expected validations, or fractions"),
    ([*GROWING, "--record-masks", "x"], "--record-masks: x with --tokens-per-sample 4:16 found, expected blocks of"),
    ([*GROWING, "--replay-masks", "x"], "--replay-masks: x with --tokens-per-sample 4:16 found, expected blocks of"),
    ([*GROWING, "--mask-prob", "0.3:0.15", "--max-epoch", "3"], "or blocks that grow. found"),
])
def test_what_blocks_that_grow_cannot_be_combined_with_is_refused(flags, message, make_task):
    with pytest.raises(UsageError, match=message):
        make_task(*RANDOM, *flags)


def test_without_counts_the_plateau_is_unknown_and_fractions_are_asked_for(make_task, data_bin, tmp_path):
    from shutil import copytree

    folder = copytree(data_bin, tmp_path / "bin")
    words = [line.split()[0] for line in (folder / "dict.txt").read_text(encoding="utf-8").splitlines()]
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    with pytest.raises(UsageError, match="with a dict.txt without counts found, expected fractions of the run"):
        make_task(*RANDOM, *GROWING, data=str(folder))
    make_task(*RANDOM, *BY_FRACTIONS, data=str(folder))


def test_fairseqs_own_archs_have_positions_for_the_longest_blocks(data_bin, tmp_path):
    sizes = ["--arch", "roberta_base", "--encoder-layers", "1", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim",
             "16", "--encoder-attention-heads", "2"]
    state = torch.load(train(data_bin, str(tmp_path), *BY_FRACTIONS, *RANDOM, model=sizes), weights_only=True)
    positions = {name: len(weight) for name, weight in state["model"].items() if "embed_positions" in name}
    assert list(positions.values()) == [16 + 2]  # fairseq counts from padding_idx + 1


# ---- entropies on disk


def cache_of(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_length_has_a_cache_with_the_entropies_of_its_blocks(data_bin, teacher, tmp_path):
    flags = [*BY_FRACTIONS, "--mask-strategy", "high", "--teacher", teacher]
    plain = train(data_bin, str(tmp_path / "plain"), *flags)
    cached = train(data_bin, str(tmp_path / "cached"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert same_weights(plain, cached)
    lengths = set()
    for length in ("4", "8", "16"):  # those of trainings with this length alone
        train(data_bin, str(tmp_path / length), *flags, "--tokens-per-sample", length, "--max-update", "1",
              "--entropy-cache", str(tmp_path / "alone"))
        lengths.add(length)
    assert len(lengths) == 3 and cache_of(tmp_path / "cache") == cache_of(tmp_path / "alone")


@pytest.mark.slow
def test_the_caches_of_all_lengths_are_built_ahead(data_bin, teacher, tmp_path):
    flags = [*BY_FRACTIONS, "--mask-strategy", "high", "--teacher", teacher]
    train(data_bin, str(tmp_path / "run"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, ROOT / "scripts" / "build_entropy_cache.py", data_bin, "--teacher", teacher,
                           "--entropy-cache", tmp_path / "ahead", *GROWING, "--cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert cache_of(tmp_path / "ahead") == cache_of(tmp_path / "cache")


def test_a_models_own_entropies_are_computed_again_where_the_blocks_change(data_bin, tmp_path, monkeypatch, caplog):
    """--self-entropy-every 3 alone would compute in the epochs 1 and 4."""
    computed, exact, score = set(), Scorer.exact, EntropyMaskedLMTask.score

    def counted(scorer, model, sample):
        computed.add((epochs[-1], sample["net_input"]["src_tokens"].size(1)))
        return exact(scorer, model, sample)

    epochs = []
    monkeypatch.setattr(Scorer, "exact", counted)
    monkeypatch.setattr(EntropyMaskedLMTask, "score", lambda self, *arguments: (
        epochs.append(self.epoch), score(self, *arguments))[1])
    flags = ["--tokens-per-sample", "8:16", "--grow-tokens-per-sample", "0.25", "--max-epoch", "5", "--mask-strategy",
             "high", "--self-mask-from-epoch", "1", "--self-entropy-every", "3"]
    train(data_bin, str(tmp_path / "run"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert computed == {(1, 8), (3, 16)} and set(epochs) == {1, 2, 3, 4, 5}
    assert "missing and are computed again" not in caplog.text and len(cache_of(tmp_path / "cache")) == 2


# ---- what a run cost, and its picture


@pytest.fixture(scope="module")
def grown(data_bin, teacher, tmp_path_factory):
    """The folder of a run with blocks of 4, 4, 8, 16 positions and the teacher's cached entropies."""
    folder = tmp_path_factory.mktemp("grown") / "run"
    folder.mkdir()
    done = run("fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, *BY_FRACTIONS, "--mask-strategy", "high",
               "--teacher", teacher, "--entropy-cache", folder / "cache", "--save-dir", folder)
    (folder / "train.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_flops_of_a_run_are_the_sum_over_its_epochs_with_their_lengths(grown):
    """The teacher reads the text once for each length: in the epochs 1, 3 and 4."""
    pretraining = read_pretraining_run(str(grown))
    model = model_of_settings(pretraining.flags["model"], pretraining.vocabulary, 16)
    expected = [2 * macs_of_step(model, length, Corruption(0.15, 0, 0), model, entropies=teacher)
                for length, teacher in ((4, "teacher"), (4, None), (8, "teacher"), (16, "teacher"))]
    assert list(flops_per_token(pretraining)) == pytest.approx(expected)
    ends = [0, *(log["num_updates"] for log in pretraining.train)]
    tokens = [log["wpb"] * (end - begin) for log, begin, end in zip(pretraining.train, ends, ends[1:])]
    written = account(str(grown))
    assert written["flops"] == pytest.approx(sum(n * cost for n, cost in zip(tokens, expected)))
    assert written["tokens"] == pytest.approx(sum(tokens)) and written["events_not_reached"] == []
    assert [event["event"] for event in written["events"]] == ["blocks of 8 begin", "blocks of 16 begin"]
    assert [event["updates"] for event in written["events"]] == ends[2:4]


@pytest.mark.slow
def test_the_picture_over_tokens_marks_where_the_blocks_grew(grown, tmp_path, monkeypatch):
    pretraining, panels = read_pretraining_run(str(grown)), []
    monkeypatch.setattr(comparison, "save", lambda figure, file: panels.extend(figure.axes))
    comparison.draw_comparison([pretraining], 7.0, str(tmp_path / "x.png"), "tokens")
    at = [float(pretraining.tokens_at(log["num_updates"])) for log in pretraining.valid]
    assert panels[0].get_xlabel() == "tokens" and panels[0].lines[0].get_xdata().tolist() == at
    marks = [line.get_xdata()[0] for line in panels[0].lines if line.get_linestyle() == ":"]
    assert marks == at[1:3]  # after the epochs 2 and 3
    assert comparison.describe_masks(pretraining.flags).endswith(", blocks of 4:16")


# ---- other ways to start a training


@pytest.mark.slow
def test_two_ranks_grow_together(data_bin, tmp_path):
    checkpoint = torchrun(2, data_bin, tmp_path / "run", *GROWING, *RANDOM, "--max-epoch", "5", "--ddp-backend", "c10d",
                          "--lr", "0", cwd=tmp_path)  # the loss stays, so that it stalls
    state = torch.load(checkpoint, weights_only=True)["extra_state"]["learned_state"]["block_lengths"]
    assert [length for length, _ in state["epochs"].values()] == [4, 4, 8, 8, 16]


@pytest.mark.slow
def test_hydra_takes_lengths_as_text_and_as_a_number(data_bin, tmp_path):
    for length in ("4:16", "16"):
        done = run("fairseq_cli.hydra_train", "--config-dir", ROOT / "examples" / "paper", "--config-name", "bertlet",
                   f"common.user_dir={PLUGIN}", "common.cpu=true", f"task.data={data_bin}", "task.teacher=null",
                   "task.mask_strategy=random", f"task.tokens_per_sample={length}", "task.precision=fp32",
                   *(f"+model.{name}" for name in ("encoder_layers=1", "encoder_embed_dim=16", "max_positions=16",
                                                   "encoder_ffn_embed_dim=16", "encoder_attention_heads=2")),
                   "dataset.batch_size=64", "dataset.num_workers=0", "optimization.max_update=3",
                   f"checkpoint.save_dir={tmp_path}/{length.replace(':', '-')}", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        state = torch.load(tmp_path / length.replace(":", "-") / "checkpoint_last.pt", weights_only=True)
        assert str(state["cfg"]["task"]["tokens_per_sample"]) == length
