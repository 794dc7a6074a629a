"""Masks that are recorded in one training, replayed in others, and compared."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.masks import read_batches, read_masks, record_masks
from builders.processes import Killed, kill_before_update, torchrun
from builders.training import OURS, ROOT, TINY, TRAINING, same_weights, train

from entropy_mask_plugin.cli import run_command
from entropy_mask_plugin.masking.when import When
from entropy_mask_plugin.recording import writer
from entropy_mask_plugin.recording.compare import overlap
from entropy_mask_plugin.recording.parts import Batch, parts_in, read_part, write_part
from entropy_mask_plugin.recording.reader import EpochMasks, Recording
from entropy_mask_plugin.recording.writer import MaskRecorder
from entropy_mask_plugin.reporting.comparison import describe_masks
from entropy_mask_plugin.system.errors import UsageError

RANDOM = ["--mask-strategy", "random", "--max-epoch", "2"]
EMA = ["--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9"]
POLICIES = {
    "guided by an average": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", *EMA, "--guided-fraction", "0:1",
                             "--guided-by", "sequences", "--max-epoch", "2"],
    "words by the model": ["--mask-strategy", "gumbel", "--mask-score", "margin", "--mask-unit", "word",
                           "--self-mask-from-epoch", "1", "--mask-prob", "0.3:0.15", "--max-epoch", "2"],
    "spans": ["--mask-strategy", "random", "--mask-unit", "span", "--mask-count", "4", "--max-epoch", "2"],
    "learned": ["--mask-strategy", "high", "--mask-score", "accuracy", "--accuracy-window", "3", "--update-freq", "2",
                "--max-epoch", "2"],
    "sentences": ["--mask-strategy", "random", "--sample-break-mode", "eos", "--shorten-method", "truncate",
                  "--max-epoch", "2"],
}


def positions_in(folder):
    """{(update, sample): positions} of a recording, each bit read by itself."""
    masks = {}
    for part in parts_in(str(folder)):
        for batch in read_part(part.path):
            for i, row in zip(batch.ids, batch.bits):
                positions = [8 * n + j for n, byte in enumerate(row) for j in range(8) if byte >> (7 - j) & 1]
                assert (batch.update, str(i)) not in masks
                masks[batch.update, str(i)] = positions
    return masks


def by_epoch(folder):
    """{(epoch, sample): positions} of a recording."""
    recording = Recording(str(folder), "--replay-masks")
    return {(epoch, int(i)): np.flatnonzero(np.unpackbits(bits)).tolist() for epoch in recording.epochs()
            for i, bits in zip(*recording.masks(epoch))}


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def recorded(data_bin, tmp_path_factory):
    """A recording of two epochs with random masks, and the checkpoint of its run."""
    folder = tmp_path_factory.mktemp("recorded")
    checkpoint = train(data_bin, str(folder / "run"), *RANDOM, "--record-masks", str(folder / "masks"))
    return str(folder / "masks"), checkpoint


# ---- files

def made_batches(rng, updates):
    return [Batch(update, rng.permutation(1000)[:b].astype(np.uint32), rng.integers(0, 256, (b, w), np.uint8))
            for update, b, w in updates]


@pytest.mark.parametrize("updates", [[(0, 1, 1)], [(7, 3, 2), (7, 5, 9), (8, 1, 64)], [(2**40, 64, 16)] * 5])
def test_a_part_holds_what_was_written(updates, tmp_path):
    batches = made_batches(np.random.default_rng(1), updates)
    (tmp_path / "rank3").mkdir()
    path = write_part(str(tmp_path / "rank3"), 2, batches)
    assert [part[1:] for part in parts_in(str(tmp_path))] == [(3, 2, batches[0].update, batches[-1].update)]
    for one, other in zip(batches, read_part(path), strict=True):
        assert one.update == other.update and np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.bits, other.bits)


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(path.read_bytes()[:40] + b"x" + path.read_bytes()[41:]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(zlib.compress(b"others")),
    lambda path: shutil.copy(path.parent / "00001-000000000-000000000.masks", path),
], ids=["cut off", "a byte", "empty", "of others", "copied"])
def test_a_damaged_part_is_refused_by_name(damage, tmp_path):
    (tmp_path / "rank0").mkdir()
    batches = made_batches(np.random.default_rng(1), [(0, 4, 2), (1, 4, 2)])
    for batch in batches:
        path = Path(write_part(str(tmp_path / "rank0"), 1, [batch]))
    damage(path)
    with pytest.raises(UsageError, match=rf"^{path}: damaged \(its digest is wrong\), expected the file as"):
        read_part(str(path))


def masks_of(rng, sizes):
    """(ids, B x T bool) of batches."""
    return [(tuple(rng.permutation(10**4)[:b].tolist()), torch.from_numpy(rng.random((b, t)) < 0.15))
            for b, t in sizes]


def test_parts_end_at_multiples_of_an_update_at_ends_of_epochs_and_where_they_are_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "UPDATES_PER_PART", 10)
    recorder = MaskRecorder(str(tmp_path))
    batches = masks_of(np.random.default_rng(0), [(3, 11)] * 32)
    for update, (ids, mask) in enumerate(batches):
        recorder.record(When(1 + update // 16, update), ids, mask)
        if update == 22:
            recorder.flush()
            recorder.flush()  # nothing to write
    recorder.flush()
    parts = parts_in(str(tmp_path))
    assert [part[2:] for part in parts] == [(1, 0, 9), (1, 10, 15), (2, 16, 19), (2, 20, 22), (2, 23, 29), (2, 30, 31)]
    expected = {(update, str(i)): row.nonzero().flatten().tolist() for update, (ids, mask) in enumerate(batches)
                for i, row in zip(ids, mask)}
    assert positions_in(tmp_path) == expected


@pytest.mark.parametrize("update", [0, 7, 20, 27, 31, 99])
def test_a_recorder_that_begins_again_removes_what_was_recorded_from_that_update_on(update, tmp_path, monkeypatch):
    """Also where no part begins with it, and of ranks that there are no longer."""
    monkeypatch.setattr(writer, "UPDATES_PER_PART", 10)
    batches = masks_of(np.random.default_rng(0), [(2, 9)] * 32)
    for rank in range(3):
        recorder = MaskRecorder(str(tmp_path), rank, 3)
        for number, (ids, mask) in enumerate(batches):
            recorder.record(When(1, number), [3 * i + rank for i in ids], mask)
        recorder.flush()
    before = positions_in(tmp_path)
    (tmp_path / "rank0" / "00001-000000000-000000009.masks.77.partial").write_bytes(b"of a killed run")
    for rank in range(2):
        recorder = MaskRecorder(str(tmp_path), rank, 2)
        recorder.record(When(2, update), [3 * 10**4 + rank], torch.ones(1, 4, dtype=torch.bool))
        recorder.flush()
    kept = {key: positions for key, positions in before.items() if key[0] < update}
    new = {(update, str(3 * 10**4 + rank)): [0, 1, 2, 3] for rank in range(2)}
    assert positions_in(tmp_path) == {**kept, **new}
    assert not list(tmp_path.rglob("*.partial"))


def test_the_masks_of_an_epoch_are_found_by_sample(tmp_path):
    for rank in range(3):
        (tmp_path / f"rank{rank}").mkdir()
    (tmp_path / "facts.json").write_text(json.dumps({"version": 1, "run": "", "number of shards": 1, "shards": {}}))
    rng = np.random.default_rng(2)
    early, late, wide = made_batches(rng, [(3, 5, 2), (4, 5, 2), (3, 4, 5)])
    late = late._replace(ids=np.append(early.ids[:2], late.ids[:3]))  # two samples are masked again
    wide = wide._replace(ids=wide.ids + 1000)
    write_part(str(tmp_path / "rank1"), 2, [late])
    write_part(str(tmp_path / "rank0"), 2, [early])
    write_part(str(tmp_path / "rank2"), 2, [wide])
    write_part(str(tmp_path / "rank0"), 1, made_batches(rng, [(1, 9, 3)]))
    masks = Recording(str(tmp_path), "--replay-masks").masks(2)
    expected = {int(i): np.unpackbits(bits).tolist() for batch in (early, wide, late)
                for i, bits in zip(batch.ids, batch.bits)}
    ids = list(expected)[::-1]
    assert masks.missing(ids) == [] and masks.missing([ids[0], 999_999]) == [999_999]
    for length in (16, 37, 40, 50):
        found = masks.at(ids, length)
        assert found.shape == (len(ids), length)
        for i, row in zip(ids, found):
            assert row.tolist() == (expected[i] + [0] * length)[:length]


# ---- recording

@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_the_masks_that_a_training_made_are_recorded(name, data_bin, subwords, tmp_path, monkeypatch):
    data = subwords if name == "words by the model" else data_bin
    record_masks(tmp_path / "hook", monkeypatch.setattr)
    checkpoint = train(data, str(tmp_path / "run"), *POLICIES[name], "--record-masks", str(tmp_path / "masks"))
    expected = read_masks(tmp_path / "hook")
    assert positions_in(tmp_path / "masks") == expected and len({update for update, _ in expected}) > 3
    monkeypatch.undo()
    without = train(data, str(tmp_path / "without"), *POLICIES[name])
    assert same_weights(checkpoint, without)
    replayed = train(data, str(tmp_path / "replayed"), *flags_beside_the_policy(POLICIES[name]), "--replay-masks",
                     str(tmp_path / "masks"))
    assert same_weights(checkpoint, replayed)


def flags_beside_the_policy(flags):
    """Those that a replay needs: of the blocks and of the run."""
    kept = ("--max-epoch", "--update-freq", "--sample-break-mode", "--shorten-method")
    return [word for flag, value in zip(flags, flags[1:]) if flag in kept for word in (flag, value)]


def test_a_killed_and_resumed_recording_is_that_of_a_straight_run_byte_for_byte(data_bin, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "UPDATES_PER_PART", 3)
    flags = [*POLICIES["guided by an average"], "--save-interval-updates", "5"]
    straight = train(data_bin, str(tmp_path / "straight" / "run"), *flags, "--record-masks",
                     str(tmp_path / "straight" / "masks"))
    updates = torch.load(straight, weights_only=True)["optimizer_history"][-1]["num_updates"]
    killed = [data_bin, str(tmp_path / "killed" / "run"), *flags, "--record-masks", str(tmp_path / "killed" / "masks")]
    for update in (1, 9, updates - 1):
        with monkeypatch.context() as patch:
            kill_before_update(patch, update)
            with pytest.raises(Killed):
                train(*killed)
    assert same_weights(straight, train(*killed))
    one, other = (files_in(tmp_path / name / "masks") for name in ("straight", "killed"))
    facts = [json.loads(files.pop("facts.json")) for files in (one, other)]
    assert [of_run.pop("run") for of_run in facts] == [str(tmp_path / name / "run") for name in ("straight", "killed")]
    assert one == other and len(one) > 4 and facts[0] == facts[1]


@pytest.mark.slow
def test_the_recording_of_a_process_killed_with_sigkill_goes_on_from_its_last_checkpoint(data_bin, recorded, tmp_path):
    command = [sys.executable, "-m", "fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, *RANDOM, "--save-dir",
               str(tmp_path / "run"), "--record-masks", str(tmp_path / "masks"), "--save-interval-updates", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "run" / "checkpoint_last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(data_bin, str(tmp_path / "run"), *RANDOM, "--record-masks", str(tmp_path / "masks"),
          "--save-interval-updates", "4")
    assert positions_in(tmp_path / "masks") == positions_in(recorded[0])


def test_the_last_updates_of_a_run_without_checkpoints_are_recorded(data_bin, recorded, tmp_path):
    train(data_bin, str(tmp_path / "run"), *RANDOM, "--no-save", "--record-masks", str(tmp_path / "masks"))
    assert positions_in(tmp_path / "masks") == positions_in(recorded[0])


def test_a_recording_is_not_overwritten_by_another_run_but_goes_on_where_its_run_was_moved(data_bin, tmp_path, caplog):
    masks = ["--record-masks", str(tmp_path / "masks")]
    train(data_bin, str(tmp_path / "run"), *RANDOM, *masks, "--max-update", "2")
    before = files_in(tmp_path / "masks")
    with pytest.raises(UsageError, match=f"^--record-masks: {tmp_path}/masks holds the recording of {tmp_path}/run, "
                                         "expected a new folder$"):
        train(data_bin, str(tmp_path / "other"), *RANDOM, *masks)
    with pytest.raises(UsageError, match="^--record-masks: .* was recorded with tokens per sample 16, expected 8 "):
        train(data_bin, str(tmp_path / "run"), *RANDOM, *masks, "--tokens-per-sample", "8")
    assert files_in(tmp_path / "masks") == before
    os.rename(tmp_path / "run", tmp_path / "moved")
    train(data_bin, str(tmp_path / "moved"), *RANDOM, *masks, "--max-update", "4")
    assert {update for update, _ in positions_in(tmp_path / "masks")} == {0, 1, 2, 3}
    assert "no masks of the updates" not in caplog.text
    train(data_bin, str(tmp_path / "moved"), *RANDOM, "--max-update", "5")
    train(data_bin, str(tmp_path / "moved"), *RANDOM, *masks, "--max-update", "7")
    assert (f"--record-masks: {tmp_path}/masks has no masks of the updates 5 to 5, which were made without it"
            in caplog.messages)


def test_an_unwritable_folder_is_refused_in_one_line_before_training(data_bin, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=rf"^--record-masks: {tmp_path}/file \(File exists\), expected a folder or a "):
        train(data_bin, str(tmp_path / "run"), *RANDOM, "--record-masks", str(tmp_path / "file"))
    assert not list(tmp_path.glob("run/*.pt"))


@pytest.mark.slow
def test_two_ranks_record_what_one_records(data_bin, tmp_path):
    flags = [*RANDOM, "--batch-size", "32"]
    train(data_bin, str(tmp_path / "one"), *flags, "--update-freq", "2", "--record-masks", str(tmp_path / "of one"))
    masks = ["--record-masks", str(tmp_path / "of two")]
    torchrun(2, data_bin, tmp_path / "two", *flags, *masks, "--max-update", "7", "--ddp-backend", "c10d", cwd=tmp_path)
    torchrun(2, data_bin, tmp_path / "two", *flags, *masks, "--ddp-backend", "c10d", cwd=tmp_path)
    assert positions_in(tmp_path / "of two") == positions_in(tmp_path / "of one")
    assert {part.rank for part in parts_in(str(tmp_path / "of two"))} == {0, 1}
    record = ["--replay-masks", str(tmp_path / "of one"), "--record-masks", str(tmp_path / "again")]
    torchrun(2, data_bin, tmp_path / "replayed", "--max-epoch", "2", "--batch-size", "24", *record, "--ddp-backend",
             "c10d", cwd=tmp_path)
    assert by_epoch(tmp_path / "again") == by_epoch(tmp_path / "of one")


# ---- replaying

def test_a_replay_with_the_same_arch_and_seed_ends_in_the_same_weights_bit_for_bit(data_bin, recorded, tmp_path):
    masks, checkpoint = recorded
    replayed = train(data_bin, str(tmp_path / "straight"), "--max-epoch", "2", "--replay-masks", masks)
    assert same_weights(checkpoint, replayed)
    train(data_bin, str(tmp_path / "resumed"), "--max-epoch", "2", "--replay-masks", masks, "--max-update", "7")
    resumed = train(data_bin, str(tmp_path / "resumed"), "--max-epoch", "2", "--replay-masks", masks)
    assert same_weights(checkpoint, resumed)


@pytest.mark.parametrize("flags", [
    ["--seed", "5"],
    ["--batch-size", "24"],
    ["--num-workers", "2"],
    ["--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"],
    ["--arch", "bertlet_3ml", "--mask-decoder-layers", "1"],
    ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--mask-unit", "span"],
    ["--mask-strategy", "high", "--mask-score", "predicted-loss", *EMA],
    ["--teacher", "TEACHER", "--kd-weight", "0.5", "--mask-unit", "span", "--entropy-cache", "nowhere"],
], ids=" ".join)
def test_another_run_replays_the_same_masks(flags, data_bin, teacher, recorded, tmp_path, monkeypatch):
    flags = [teacher if flag == "TEACHER" else flag for flag in flags]
    record_masks(tmp_path / "hook", monkeypatch.setattr)
    masks = tmp_path / "masks"
    train(data_bin, str(tmp_path / "run"), "--max-epoch", "2", *flags, "--replay-masks", recorded[0], "--record-masks",
          str(masks))
    assert by_epoch(masks) == by_epoch(recorded[0])
    assert positions_in(masks) == read_masks(tmp_path / "hook")
    assert not any(batch["is_scored"] for batch in read_batches(tmp_path / "hook"))


def test_80_10_10_follows_the_seed_of_the_replaying_run(data_bin, recorded, make_task):
    flags = ["--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"]
    seen = {}
    for name, more in {"random": ["--mask-strategy", "random"], "replay": ["--replay-masks", recorded[0]],
                       "another seed": ["--replay-masks", recorded[0], "--seed", "5"]}.items():
        task, model, _ = make_task(*flags, *more)
        task.begin_epoch(1, model)
        sample = task.dataset("train").collater([task.dataset("train")[i] for i in range(64)])
        sample = task.replay.with_masks(sample) if task.replay else sample
        masked, _ = task.mask(sample, None, When(1, 0))
        seen[name] = masked["net_input"]["src_tokens"]
        assert torch.equal(masked["target"] != task.dictionary.pad(), masked["selected"].mask)
    assert torch.equal(seen["random"], seen["replay"]) and not torch.equal(seen["replay"], seen["another seed"])


def test_flags_of_a_policy_have_no_effect_and_are_warned_of_each_in_a_line(teacher, recorded, make_task, caplog):
    make_task("--replay-masks", recorded[0], "--mask-strategy", "gumbel", "--gumbel-temperature", "2", "--mask-prob",
              "0.3:0.1", "--teacher", teacher, "--mask-score", "accuracy", "--guided-fraction", "0:1")
    warned = [record.message for record in caplog.records if "--replay-masks" in record.message]
    assert sorted(warned) == [
        *(f"{flag} has no effect with --replay-masks" for flag in ("--guided-fraction", "--gumbel-temperature",
                                                                   "--mask-prob", "--mask-score", "--mask-strategy")),
        "--teacher chooses no masks with --replay-masks: it is used for distillation only (--kd-weight)"]


@pytest.mark.parametrize("flags, difference", [
    (["--tokens-per-sample", "8"], "tokens per sample 16, expected 8 (--tokens-per-sample), as in this run"),
    (["--sample-break-mode", "eos", "--shorten-method", "truncate"],
     "sample break mode none, expected eos (--sample-break-mode), as in this run"),
    (["DICTIONARY"], "another dictionary (dict.txt), expected the same as in this run"),
    (["DATA"], "other data, expected the same as in this run"),
    (["SHARDS"], "number of shards 1, expected 2 (data), as in this run"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_masks_of_other_data_or_blocks_are_refused_with_the_first_difference(
    flags, difference, data_bin, subwords, recorded, tmp_path
):
    data = data_bin
    if flags == ["DICTIONARY"]:
        data, flags = subwords, []
    if flags == ["SHARDS"]:
        data, flags = f"{data_bin}:{data_bin}", []
    if flags == ["DATA"]:
        data, flags = str(shutil.copytree(data_bin, tmp_path / "bin")), []
        for ending in ("bin", "idx"):
            shutil.copy(f"{data_bin}/valid.{ending}", f"{data}/train.{ending}")
    with pytest.raises(UsageError) as refused:
        train(data, str(tmp_path / "run"), *RANDOM, *flags, "--replay-masks", recorded[0])
    assert str(refused.value) == f"--replay-masks: {recorded[0]} was recorded with {difference}"


def test_shards_take_turns_in_a_recording(data_bin, tmp_path):
    other = shutil.copytree(data_bin, tmp_path / "bin")
    for ending in ("bin", "idx"):
        shutil.copy(f"{data_bin}/valid.{ending}", other / f"train.{ending}")
    record = ["--mask-strategy", "random", "--max-epoch", "3", "--record-masks", str(tmp_path / "masks")]
    checkpoint = train(f"{data_bin}:{other}", str(tmp_path / "run"), *record)
    replay = ["--max-epoch", "3", "--replay-masks", str(tmp_path / "masks")]
    assert same_weights(checkpoint, train(f"{data_bin}:{other}", str(tmp_path / "replayed"), *replay))
    with pytest.raises(UsageError, match="was recorded with other data, expected the same as in this run$"):
        train(f"{data_bin}:{data_bin}", str(tmp_path / "refused"), *replay)


def test_crops_are_those_of_the_seed_that_was_recorded(data_bin, tmp_path):
    blocks = ["--sample-break-mode", "eos", "--shorten-method", "random_crop", "--max-epoch", "2"]
    checkpoint = train(data_bin, str(tmp_path / "run"), "--mask-strategy", "random", *blocks, "--record-masks",
                       str(tmp_path / "masks"))
    replay = [*blocks, "--replay-masks", str(tmp_path / "masks")]
    assert same_weights(checkpoint, train(data_bin, str(tmp_path / "same"), *replay))
    with pytest.raises(UsageError, match=r"was recorded with seed of the crops 1, expected 5 \(--seed, for --shorten"):
        train(data_bin, str(tmp_path / "other"), *replay, "--seed", "5")


def test_a_comparison_of_runs_says_whose_masks_they_are():
    task = {"mask_strategy": "high", "mask_prob": "0.3:0.15", "self_mask_from_epoch": 1, "teacher": None, "arch": None,
            "leave_unmasked_prob": None, "random_token_prob": None, "replay_masks": "masks/high"}
    flags = {"task": task, "criterion": {"kd_weight": 0.5, "kd_start_epoch": 2}}
    assert describe_masks(flags) == "replays masks/high, KD 0.5 from epoch 2"


def test_a_sample_or_an_epoch_without_masks_is_refused_by_name(data_bin, recorded, tmp_path, caplog):
    short = tmp_path / "short"
    run = train(data_bin, str(tmp_path / "run"), *RANDOM, "--max-update", "4", "--record-masks", str(short))
    again = train(data_bin, str(tmp_path / "again"), "--max-update", "4", "--replay-masks", str(short))
    assert same_weights(run, again)
    with pytest.raises(UsageError) as refused:
        train(data_bin, str(tmp_path / "replay"), *RANDOM, "--replay-masks", str(short), "--seed", "5")
    words = str(refused.value).split(" has no masks of sample ")
    assert words[0] == f"--replay-masks: {short}"
    sample, rest = words[1].split(" ", 1)
    assert (1, int(sample)) in by_epoch(recorded[0]).keys() - by_epoch(short).keys()
    assert rest == "in epoch 1, expected those of every sample that this run trains on"
    assert not list((tmp_path / "replay").glob("*"))  # no crash.pt
    with pytest.raises(UsageError, match=f"^--replay-masks: {recorded[0]} has no masks of epoch 3, expected as many"):
        train(data_bin, str(tmp_path / "longer"), "--max-epoch", "3", "--replay-masks", recorded[0])
    warnings = [record.getMessage() for record in caplog.records if "has masks of" in record.getMessage()]
    assert warnings[-1:] == [f"--replay-masks: {recorded[0]} has masks of 2 epochs, expected --max-epoch (3): this run "
                             "cannot go on after epoch 2"]  # before the first epoch


def test_what_is_no_recording_or_a_damaged_one_is_refused_in_one_line(data_bin, recorded, tmp_path):
    def refused(folder, *flags):
        with pytest.raises(UsageError) as error:
            train(data_bin, str(tmp_path / "run"), *RANDOM, "--replay-masks", str(folder), *flags)
        return str(error.value)

    nothing = f"--replay-masks: no facts.json in {tmp_path}, expected a folder written with --record-masks"
    assert refused(tmp_path) == nothing
    folder = Path(shutil.copytree(recorded[0], tmp_path / "masks"))
    assert refused(folder, "--record-masks", f"{folder}/.") == (
        f"--record-masks: {folder}/., which is replayed, found, expected another folder")
    part = parts_in(str(folder))[-1].path
    Path(part).write_bytes(Path(part).read_bytes()[:-20])
    assert refused(folder) == f"{part}: damaged (its digest is wrong), expected the file as --record-masks wrote it"
    (folder / "facts.json").write_text('{"version": 2}')
    assert refused(folder) == f"--replay-masks: {folder}, a recording of version 2, found, expected version 1"
    with pytest.raises(UsageError, match="^--fp16 or --amp: with --record-masks found, expected --precision bf16"):
        train(data_bin, str(tmp_path / "run"), *RANDOM, "--fp16", "--record-masks", str(tmp_path / "new"))


def test_the_masks_are_read_in_python_as_the_docs_say(recorded):
    page = (ROOT / "docs" / "record-masks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(block.replace("masks/high", recorded[0]), names)
    expected = sorted((i, positions) for (epoch, i), positions in by_epoch(recorded[0]).items() if epoch == 1)[:4]
    assert [row.nonzero()[0].tolist() for row in names["positions"]] == [positions for _, positions in expected]
    assert names["positions"].shape == (4, 128)


# ---- comparing

def diff(a, b, capsys):
    """Exit status, the lines above the table, and the rows of the table."""
    capsys.readouterr()
    status = run_command("diff", [str(a), str(b)])
    above, table, note = capsys.readouterr().out.rstrip("\n").split("\n\n")
    return status, above.split("\n"), [[cell.strip() for cell in line.strip("|").split("|")]
                                       for line in table.split("\n")[2:]]


def test_equal_recordings_have_no_difference_whatever_their_batches(data_bin, recorded, tmp_path, capsys):
    train(data_bin, str(tmp_path / "run"), *RANDOM, "--batch-size", "24", "--record-masks", str(tmp_path / "masks"))
    masks = by_epoch(recorded[0])
    status, above, rows = diff(recorded[0], tmp_path / "masks", capsys)
    assert (status, above) == (0, ["equal"])
    for epoch, row in zip((1, 2), rows, strict=True):
        of_epoch = [positions for (e, _), positions in masks.items() if e == epoch]
        n, total = str(len(of_epoch)), str(sum(map(len, of_epoch)))
        assert row == [str(epoch), n, "0", "0", n, total, total, total, "1.0000"]


def test_different_recordings_are_compared_sample_by_sample(data_bin, recorded, tmp_path, capsys):
    train(data_bin, str(tmp_path / "run"), *RANDOM, "--seed", "5", "--record-masks", str(tmp_path / "masks"))
    a, b = by_epoch(recorded[0]), by_epoch(tmp_path / "masks")
    status, above, rows = diff(recorded[0], tmp_path / "masks", capsys)
    epoch, sample = min(key for key in a if a[key] != b[key])
    only = [sorted(set(x[epoch, sample]) - set(y[epoch, sample])) for x, y in ((a, b), (b, a))]
    texts = [f"masked in {name} alone: {' '.join(map(str, x))}" for name, x in zip("AB", only) if x]
    assert status == 1
    assert above == [f"first difference: epoch {epoch}, sample {sample}: {', '.join(texts)}"]
    for epoch, row in zip((1, 2), rows, strict=True):
        pairs = [(set(a[key]), set(b[key])) for key in a if key[0] == epoch]
        both, either = sum(len(x & y) for x, y in pairs), sum(len(x | y) for x, y in pairs)
        assert row == [str(epoch), str(len(pairs)), "0", "0", str(sum(x == y for x, y in pairs)),
                       str(sum(len(x) for x, _ in pairs)), str(sum(len(y) for _, y in pairs)), str(both),
                       f"{both / either:.4f}"]


def test_a_recording_that_ends_earlier_lacks_samples(recorded, tmp_path, capsys):
    folder = shutil.copytree(recorded[0], tmp_path / "masks")
    os.remove(parts_in(str(folder))[-1].path)
    status, above, rows = diff(recorded[0], folder, capsys)
    second = sorted(i for epoch, i in by_epoch(recorded[0]) if epoch == 2)
    assert (status, above) == (1, [f"first difference: epoch 2, sample {second[0]}: not in B"])
    assert rows[1] == ["2", "0", str(len(second)), "0", "0", "0", "0", "0", "–"]
    status, above, _ = diff(folder, recorded[0], capsys)
    assert (status, above) == (1, [f"first difference: epoch 2, sample {second[0]}: not in A"])


def test_recordings_of_other_blocks_are_said_to_be_of_other_samples(data_bin, subwords, recorded, tmp_path, capsys):
    train(data_bin, str(tmp_path / "short"), *RANDOM, "--tokens-per-sample", "8", "--record-masks", str(tmp_path / "8"))
    train(subwords, str(tmp_path / "words"), *RANDOM, "--record-masks", str(tmp_path / "words masks"))
    capsys.readouterr()
    for name, line in (("8", "tokens per sample 16 in A, 8 in B (--tokens-per-sample)"),
                       ("words masks", "B was recorded with another dictionary (dict.txt)")):
        assert run_command("diff", [recorded[0], str(tmp_path / name)]) == 1
        assert capsys.readouterr().out == f"not the same samples: {line}\n"  # an overlap of other texts means nothing


def test_what_cannot_be_read_has_an_exit_status_of_its_own(recorded, tmp_path, capsys):
    assert run_command("diff", [recorded[0], str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: B: no facts.json in {tmp_path}, expected a folder written with --record-masks\n")


def test_the_overlap_of_masks_is_that_of_sets_also_where_blocks_differ_in_width():
    rng = np.random.default_rng(3)

    def masks(ids, width):
        bits = rng.integers(0, 256, (len(ids), width), np.uint8) & rng.integers(0, 256, (len(ids), width), np.uint8)
        return EpochMasks(np.array(ids, np.int64), bits)

    def sets(masks):
        return {int(i): set(np.flatnonzero(np.unpackbits(row)).tolist()) for i, row in zip(*masks)}

    for ids, widths in ((([1, 2, 5], [2, 3, 5, 9]), (2, 3)), (([], [4]), (1, 1)), (([7], [7]), (3, 1))):
        a, b = (masks(of_one, width) for of_one, width in zip(ids, widths))
        x, y = sets(a), sets(b)
        shared = x.keys() & y.keys()
        both, either = (sum(len(operation(x[i], y[i])) for i in shared) for operation in (set.__and__, set.__or__))
        result = overlap(a, b)
        assert result.samples == len(shared) and result.masked_both == both
        assert (result.only_a, result.only_b) == (len(x.keys() - y.keys()), len(y.keys() - x.keys()))
        assert result.jaccard == (both / either if either else None)
        assert result.equal == sum(x[i] == y[i] for i in shared)
        assert result.first[0] == min(i for i in x.keys() | y.keys() if x.get(i) != y.get(i))
