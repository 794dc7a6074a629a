"""The cache of a teacher's entropies: the same training, no teacher forward, never another's or torn numbers."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.training import OURS, ROOT, TINY, TRAINING, batch_of, same_weights, scores_of, train
from fairseq import checkpoint_utils
from fairseq.data import Dictionary

from entropy_mask_plugin.config import names_with
from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.scores import SCORES
from entropy_mask_plugin.scoring.cache import fingerprint
from entropy_mask_plugin.scoring.cache.building import build
from entropy_mask_plugin.scoring.cache.store import DIGEST_BYTES, EntropyStore
from entropy_mask_plugin.scoring.scorer import Scorer
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.task import EntropyMaskedLMTask
from entropy_mask_plugin.training.blocks import Samples

HIGH = ["--mask-strategy", "high", "--max-epoch", "2"]
SIZES = [5, 1, 16, 16, 7, 16, 2, 9]


def never(*arguments, **named):
    raise AssertionError("the teacher was asked")


def stored(folder):
    (place,) = folder.iterdir()
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("more", [
    [], ["--sample-break-mode", "complete", "--skip-invalid-size-inputs-valid-test"],
    ["--sample-break-mode", "eos", "--shorten-method", "truncate"],
    ["--self-mask-from-epoch", "2"], ["--num-workers", "2"], ["--kd-weight", "0.5"], ["--entropy-folds", "3"],
], ids=" ".join)
def test_a_cached_training_ends_in_the_weights_of_one_on_the_fly(more, data_bin, teacher, tmp_path):
    flags = [*HIGH, "--teacher", teacher, *more]
    plain = train(data_bin, str(tmp_path / "plain"), *flags)
    cached = train(data_bin, str(tmp_path / "cached"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert same_weights(plain, cached)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_warm_cache_asks_no_teacher(data_bin, teacher, tmp_path, monkeypatch):
    flags = [*HIGH, "--teacher", teacher, "--entropy-cache", str(tmp_path / "cache")]
    cold = train(data_bin, str(tmp_path / "cold"), *flags)
    before = stored(tmp_path / "cache")
    monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.Scorer.projection", never)
    assert same_weights(cold, train(data_bin, str(tmp_path / "warm"), *flags))
    assert stored(tmp_path / "cache") == before


def test_cached_entropies_are_the_teachers_whatever_is_done_to_a_batch(make_task, teacher, tmp_path):
    flags = ["--mask-strategy", "high", "--teacher", teacher]
    task, _, _ = make_task(*flags, "--entropy-cache", str(tmp_path))
    plain, _, _ = make_task(*flags)
    sample = batch_of(task, range(30))
    found = scores_of(task, sample, None).values
    assert torch.allclose(found, scores_of(plain, batch_of(plain, range(30)), None).exact(), rtol=1e-5)
    as_halves = sample["entropy_bits"]  # what --fp16 leaves alone
    assert as_halves.dtype == torch.int32 and torch.equal(as_halves.view(torch.float32), found)


OTHER = {
    "block length": ["--tokens-per-sample", "12"], "break mode": ["--sample-break-mode", "complete_doc"],
    "precision": ["--precision", "bf16"], "entropy precision": ["--entropy-precision", "bf16"],
    "shorten method": ["--shorten-method", "truncate"],
}


@pytest.mark.parametrize("what", [*OTHER, "teacher", "data"])
def test_whatever_changes_the_entropies_is_another_cache(what, make_task, data_bin, teacher, tmp_path):
    flags = ["--mask-strategy", "high", "--teacher", teacher, "--entropy-cache", str(tmp_path / "cache")]
    make_task(*flags)
    if what == "teacher":
        state = torch.load(teacher, weights_only=True)
        state["model"]["encoder.layers.0.ffn.fc1.bias"][0] += 1e-3
        torch.save(state, tmp_path / "other.pt")
        make_task(*flags, "--teacher", str(tmp_path / "other.pt"))
    elif what == "data":
        from shutil import copytree

        copytree(data_bin, tmp_path / "data")
        with open(tmp_path / "data" / "train.bin", "r+b") as file:  # one other word
            file.write(b"\x20")
        make_task(*flags, data=str(tmp_path / "data"))
    else:
        make_task(*flags, *OTHER[what])
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_same_teacher_in_another_file_and_other_masks_are_the_same_cache(make_task, teacher, tmp_path):
    state = torch.load(teacher, weights_only=True)
    state["last_optimizer_state"] = None
    torch.save(state, tmp_path / "copy.pt")
    for path, more in ((teacher, []), (str(tmp_path / "copy.pt"), ["--mask-prob", "0.4", "--seed", "9"])):
        make_task("--mask-strategy", "low", "--teacher", path, "--entropy-cache", str(tmp_path / "cache"), *more)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_crops_that_differ_from_epoch_to_epoch_cannot_be_cached(make_task, teacher, tmp_path):
    with pytest.raises(UsageError, match="--entropy-cache together with --shorten-method random_crop"):
        make_task("--teacher", teacher, "--entropy-cache", str(tmp_path), "--shorten-method", "random_crop")


# ---- the store


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.scoring.cache.store.PART_TOKENS", 20)


class Blocks(list):
    sizes = np.array(SIZES)


def dictionary():
    symbols = Dictionary()
    for number in range(100 * len(SIZES)):  # as many as `blocks` has ids
        symbols.add_symbol(str(number))
    return symbols


def blocks():
    return Blocks(torch.arange(size) + 100 * i for i, size in enumerate(SIZES))


def half(clean):
    return clean["net_input"]["src_tokens"] / 2.0


def filled(folder, entropies_of=half):
    store = EntropyStore(str(folder), {"some": "facts"}, np.array(SIZES))
    build(store, Samples(blocks(), dictionary()), 99, entropies_of, torch.device("cpu"))
    return store


def test_every_value_comes_back(small_parts, tmp_path):
    store = filled(tmp_path / "store")
    assert store.number_of_parts == 4
    for i, block in enumerate(blocks()):
        assert store.read(i).tolist() == (block / 2.0).tolist()
    assert sorted(os.listdir(tmp_path / "store")) == [*(f"0000{i}.entropies" for i in range(4)), "claims", "facts.json"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))


def swap(path):
    path.write_bytes((path.parent / "00000.entropies").read_bytes())


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, swap, empty, os.unlink])
def test_a_damaged_part_is_computed_again_and_only_that(damage, small_parts, tmp_path):
    filled(tmp_path / "store")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    damage(tmp_path / "store" / "00002.entropies")
    asked = []

    def spy(clean):
        asked.extend(clean["id"].tolist())
        return half(clean)

    filled(tmp_path / "store", spy)
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == expected
    assert asked == [4, 5]  # part 2


def test_a_part_of_another_store_is_not_taken(small_parts, tmp_path):
    one, other = filled(tmp_path / "one"), filled(tmp_path / "other")
    os.replace(one.path(1), other.path(1))
    assert EntropyStore(str(tmp_path / "other"), {}, np.array(SIZES)).missing() == [1]


def slow(clean):
    time.sleep(0.1)
    return half(clean)


def test_two_builders_share_the_work_and_a_killed_one_holds_nothing_up(small_parts, tmp_path):
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=filled, args=(tmp_path / "store", lambda clean: time.sleep(60)))
    killed.start()
    while not (tmp_path / "store" / "claims").exists():
        time.sleep(0.01)
    builders = [context.Process(target=filled, args=(tmp_path / "store", slow)) for _ in range(2)]
    for builder in builders:
        builder.start()
    time.sleep(0.3)
    os.kill(killed.pid, signal.SIGKILL)
    for builder in builders:
        builder.join(20)
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert filled(tmp_path / "store", never).missing() == []


def test_a_part_holds_its_values_and_a_digest(small_parts, tmp_path):
    filled(tmp_path / "store")
    size = (tmp_path / "store" / "00000.entropies").stat().st_size
    assert size == 4 * (5 + 1) + DIGEST_BYTES


# ---- a process of its own


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_parts_that_are_there(data_bin, teacher, tmp_path):
    command = [sys.executable, "-m", "fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, *HIGH, "--teacher",
               teacher, "--entropy-cache", str(tmp_path / "cache"), "--save-dir", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=environment)
    while running.poll() is None and not list((tmp_path / "cache").glob("*/facts.json")):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    flags = [*HIGH, "--teacher", teacher]
    one = train(data_bin, str(tmp_path / "again"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert same_weights(one, train(data_bin, str(tmp_path / "plain"), *flags))


@pytest.mark.slow
def test_a_cache_that_was_built_ahead_is_the_one_that_the_training_reads(data_bin, teacher, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    command = [sys.executable, ROOT / "scripts" / "build_entropy_cache.py", f"{data_bin}:{data_bin}", "--teacher",
               teacher, "--entropy-cache", cache, "--tokens-per-sample", "16", "--cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and done.stdout.count(f": {cache}/") == 2, done.stderr
    monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.Scorer.projection", never)
    train(data_bin, str(tmp_path / "run"), *HIGH, "--teacher", teacher, "--entropy-cache", cache)
    assert "rank correlation" not in done.stdout
    done = subprocess.run([*command, "--entropy-folds", "3"], capture_output=True, text=True)
    reports = re.findall(r"rank correlation .*: (-?\d\.\d{3}), the mean over 6[34] of [\d,]+ blocks\n", done.stdout)
    assert done.returncode == 0 and len(reports) == 2 and reports[0] == reports[1], done.stdout + done.stderr
    train(data_bin, str(tmp_path / "folds"), *HIGH, "--teacher", teacher, "--entropy-cache", cache,
          "--entropy-folds", "3")
    done = subprocess.run([*command, "--shorten-method", "random_crop"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --entropy-cache together with"), done.stderr


# ---- a model's own entropies, kept for some epochs


def self_masked(data_bin, folder, *more, monkeypatch):
    """(checkpoint, epochs in which self entropies were computed, {epoch: {sample id: its entropies}})."""
    computed, used = [], {}
    project, ask, epochs = Scorer.projection, EntropyMaskedLMTask.score, []

    def projection(scorer, *arguments):
        computed.append(epochs[-1])
        return project(scorer, *arguments)

    def score(task, sample, *arguments):
        epochs.append(task.epoch)
        found = ask(task, sample, *arguments)
        lengths = sample["net_input"]["src_lengths"].tolist()
        rows = {i: row[:n].tolist() for i, row, n in zip(sample["id"].tolist(), found.values, lengths)}
        used.setdefault(task.epoch, {}).update(rows)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "projection", projection)
        patched.setattr(EntropyMaskedLMTask, "score", score)
        checkpoint = train(data_bin, str(folder), "--mask-strategy", "high", "--self-mask-from-epoch", "1", *more)
    return checkpoint, sorted(set(computed)), used


def test_self_entropies_are_reused_as_they_were_block_by_block(data_bin, tmp_path, monkeypatch):
    cache = ["--entropy-cache", str(tmp_path / "cache"), "--self-entropy-every", "2"]
    _, computed, used = self_masked(data_bin, tmp_path / "run", "--max-epoch", "4", *cache, monkeypatch=monkeypatch)
    assert computed == [1, 3]
    assert used[1] == used[2] and used[3] == used[4] and used[2] != used[3]
    _, computed, again = self_masked(data_bin, tmp_path / "other", "--max-epoch", "1", *cache, monkeypatch=monkeypatch)
    assert computed == [1] and again[1] == used[1]  # another run, its own entropies
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_run_that_reuses_self_entropies_can_be_interrupted(data_bin, tmp_path, monkeypatch):
    cache = ["--entropy-cache", str(tmp_path / "cache"), "--self-entropy-every", "3"]
    run = lambda name, *more: self_masked(data_bin, tmp_path / name, *more, *cache, monkeypatch=monkeypatch)  # noqa: E731
    straight, *_ = run("straight", "--max-epoch", "3")
    run("resumed", "--max-update", "6", "--save-interval-updates", "2")  # in the middle of an epoch
    resumed, *_ = run("resumed", "--max-epoch", "3")
    assert same_weights(straight, resumed)


def test_a_batch_that_is_repeated_for_nothing_leaves_no_trace_and_may_be_of_validation(make_task, tmp_path):
    flags = ["--self-mask-from-epoch", "1", "--entropy-cache", str(tmp_path), "--self-entropy-every", "2"]
    task, model, criterion = make_task(*flags)
    task.load_dataset("valid")
    valid = task.dataset("valid")
    dummy, store = valid.collater([valid[i] for i in range(4)]), task.dataset("train").dataset.self_entropies
    model.train()
    for epoch in (1, 2):
        task.begin_epoch(epoch, model)
        _, _, log = task.train_step(dummy, model, criterion, OnlyBackward(), 0, ignore_grad=True)
        assert store.read(0)[1] == 0
    _, _, real = task.train_step(batch_of(task, range(4)), model, criterion, OnlyBackward(), 0)
    assert store.read(0)[1] == 1 and {key: type(value) for key, value in log.items()} == {
        key: type(value) for key, value in real.items()}  # or ranks would add up different lists


class OnlyBackward:
    def backward(self, loss):
        loss.backward()


def test_a_checkpoint_of_a_cached_training_can_be_validated_on_its_training_data(data_bin, teacher, tmp_path):
    flags = [*HIGH, "--teacher", teacher, "--entropy-cache", str(tmp_path / "cache"), "--max-update", "1"]
    checkpoint = train(data_bin, str(tmp_path / "run"), *flags)
    _, _, task = checkpoint_utils.load_model_ensemble_and_task([checkpoint])
    task.load_dataset("train")
    assert task.dataset("train").dataset.entropies is None


def test_lost_self_entropies_are_computed_again(make_task, tmp_path):
    flags = ["--self-mask-from-epoch", "1", "--entropy-cache", str(tmp_path), "--self-entropy-every", "2"]
    task, model, _ = make_task(*flags)
    model.train()
    task.begin_epoch(1, model)
    first = scores_of(task, batch_of(task, range(9)), model).values
    task.begin_epoch(2, model)
    with torch.no_grad():
        model.lm_head.bias.add_(torch.linspace(0, 9, len(model.lm_head.bias)))
    assert torch.equal(scores_of(task, batch_of(task, range(9)), model).values, first)  # kept
    now = scores_of(task, batch_of(task, range(7, 12)), model).values  # of some nothing is kept
    assert not torch.allclose(now[:2], first[7:9])
    assert torch.equal(scores_of(task, batch_of(task, range(7, 12)), model).values, now)


@pytest.mark.parametrize("flags, message", [
    (["--self-mask-from-epoch", "1", "--self-entropy-every", "2"], "--self-entropy-every: 2 alone found"),
    (["--self-mask-from-epoch", "1", "--self-entropy-every", "0"], "--self-entropy-every: 0 found, expected 1 or more"),
    (["--teacher", "T", "--entropy-cache", "C", "--self-entropy-every", "2"], "--self-entropy-every: 2 alone found"),
])
def test_self_entropies_need_a_place(flags, message, make_task, teacher, tmp_path):
    flags = [{"T": teacher, "C": str(tmp_path)}.get(flag, flag) for flag in flags]
    with pytest.raises(UsageError, match=message):
        make_task(*flags)


@pytest.mark.parametrize("name", sorted(names_with("scores").keys() - {"train_subset"}))  # which decides the files
def test_every_flag_that_decides_scores_is_part_of_a_caches_key(name, make_task, monkeypatch):
    monkeypatch.setitem(SCORES._entries, "other", Entry(None, SCORES.defaults))
    task, _, _ = make_task("--mask-strategy", "random")
    others = {"tokens_per_sample": 15, "precision": "bf16", "entropy_precision": "bf16", "mask_score": "other",
              "sample_break_mode": "eos", "shorten_method": "truncate", "shorten_data_split_list": "train",
              "entropy_folds": 2}
    changed = replace(task.cfg, **{name: others[name]})
    one, other = (fingerprint.name_of(fingerprint.facts_of_data(cfg, task.dictionary, "train", 1, [3, 4]))
                  for cfg in (task.cfg, changed))
    assert one != other
