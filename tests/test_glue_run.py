"""Fine-tuning end to end on a tiny model: killed and resumed, a failing trial, STS-B, MNLI, a frozen encoder, drift."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from builders.glue import WORDS, write_glue
from builders.huggingface import make_folder
from builders.training import OURS, ROOT, TINY, make_bert_vocabulary, train, weights
from fairseq.data import Dictionary, data_utils

from entropy_mask_plugin.glue import run
from entropy_mask_plugin.glue.metrics import read_predictions
from entropy_mask_plugin.glue.protocols import PROTOCOLS, Point, glue_train_command
from entropy_mask_plugin.glue.tasks import TASKS, Task
from entropy_mask_plugin.glue.trial import best_point
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.huggingface.tokenizer_files import find_tokenizer
from entropy_mask_plugin.reporting.drift import ELEMENTWISE, FROBENIUS, drift, drift_of_files, write_drift
from entropy_mask_plugin.system.errors import UsageError
from entropy_mask_plugin.system.locks import exclusive_lock

pytestmark = pytest.mark.slow  # all of them start processes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny imported BERT and three tasks."""
    folder = tmp_path_factory.mktemp("glue")
    make_folder(folder / "hf", tokens=make_bert_vocabulary(), num_hidden_layers=2, hidden_size=32,
                intermediate_size=64, num_attention_heads=2, max_position_embeddings=24)
    import_bert(str(folder / "hf"), str(folder / "bert"))
    write_glue(folder / "data")
    return folder


def settings(place, out, tasks, seeds=(1,), **more):
    protocol = PROTOCOLS["paper"]._replace(max_epochs=2, learning_rates=(1e-3,), batch_sizes=(16,))
    return run.FineTuningSettings(checkpoint=str(place / "bert" / "model.pt"), out=str(place / out),
                                  glue=str(place / "data"), tasks=list(tasks), seeds=list(seeds),
                                  protocol=more.pop("protocol", protocol), extra_args=("--cpu",), **more)


def test_every_kind_of_task_is_trained_and_predicted(place):
    finished, failures = run.fine_tune(settings(place, "all", ("rte", "sts-b", "mnli"), jobs=2))
    assert (finished, failures) == (3, [])
    for name, files in (("rte", 1), ("sts-b", 1), ("mnli", 2)):
        assert json.loads((place / "all" / name / "seed1" / "result.json").read_text())["seconds"] > 0
        assert len(list((place / "all" / name / "seed1").glob("predictions*.tsv"))) == files
    sts = read_predictions(str(place / "all" / "sts-b" / "seed1" / "predictions.tsv"), TASKS["sts-b"])
    assert sts.gold.tolist() == [5.0 * (i % 2) for i in range(15)]  # scores of GLUE's scale, in the file's order
    mismatched = place / "all" / "mnli" / "seed1" / "predictions-mismatched.tsv"
    lines = [line.split("\t") for line in mismatched.read_text().splitlines()]
    assert lines[0] == ["index", "gold", "predicted", "p(entailment)", "p(neutral)", "p(contradiction)"]
    assert [line[1] for line in lines[1:]] == [TASKS["mnli"].labels[i % 3] for i in range(16)]
    for line in lines[1:]:
        shares = list(map(float, line[3:]))
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert line[2] == TASKS["mnli"].labels[shares.index(max(shares))]


def test_the_encoded_examples_are_the_texts_and_labels_in_their_order(place):
    data = place / "all" / "data" / "mnli"
    dictionary = Dictionary.load(str(data / "input0" / "dict.txt"))
    lines = (place / "data" / "MNLI" / "train.tsv").read_text().splitlines()[1:]
    for part in (0, 1):
        stored = data_utils.load_indexed_dataset(str(data / f"input{part}" / "train"), dictionary)
        assert [dictionary.string(item[:-1]) for item in stored] == [line.split("\t")[part] for line in lines]
    assert find_tokenizer(None, "elsewhere/checkpoint.pt", {"cfg": {"task": {"data": str(data)}}}) == str(data)
    labels = Dictionary.load(str(data / "label" / "dict.txt"))
    assert labels.symbols[labels.nspecial:labels.nspecial + 3] == list(TASKS["mnli"].labels)


def script(place, out, *more):
    command = [sys.executable, ROOT / "scripts" / "finetune_glue.py", "--checkpoint", place / "bert" / "model.pt",
               "--glue", place / "data", "--tasks", "rte,sts-b", "--seeds", "1", "2", "--lr", "0.001",
               "--batch-size", "16", "--max-epochs", "3", "--out", place / out, *more, "--", "--cpu"]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_killed_run_goes_on_and_ends_like_a_straight_one(place):
    straight = script(place, "straight")
    output, errors = straight.communicate(timeout=300)
    assert straight.returncode == 0 and "| RTE" in output and "| STS-B" in output, errors[-3000:]

    killed = script(place, "killed")
    half_done = place / "killed" / "rte" / "seed2" / "lr0.001-batch16" / "checkpoint_last.pt"
    while killed.poll() is None and not half_done.exists():
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)  # the script alone: its fairseq-train has to end with it
    killed.communicate()
    finished = (place / "killed" / "rte" / "seed1" / "result.json").stat().st_mtime_ns
    again = script(place, "killed")
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors[-3000:]
    assert (place / "killed" / "rte" / "seed1" / "result.json").stat().st_mtime_ns == finished  # not repeated
    for trial in ("rte/seed1", "rte/seed2", "sts-b/seed2"):
        one, other = ((place / run / trial / "predictions.tsv").read_text() for run in ("straight", "killed"))
        assert one == other, trial


def test_a_trial_that_fails_is_reported_and_does_not_stop_the_others(place):
    broken = settings(place, "broken", ("rte", "sts-b"))
    broken.seeds = [1]
    (place / "broken" / "rte" / "seed1").mkdir(parents=True)
    (place / "broken" / "rte" / "seed1" / "lr0.001-batch16").write_text("a file where a folder has to be")
    finished, failures = run.fine_tune(broken)
    assert finished == 1 and [(task, seed) for task, seed, _ in failures] == [("rte", 1)]
    assert (place / "broken" / "sts-b" / "seed1" / "result.json").exists()


def test_a_grid_keeps_its_best_point_on_the_dev_set(place):
    protocol = PROTOCOLS["standard"]._replace(learning_rates=(1e-6, 1e-2), batch_sizes=(16,), max_epochs=3)
    run.fine_tune(settings(place, "grid", ("rte",), protocol=protocol))
    result = json.loads((place / "grid" / "rte" / "seed1" / "result.json").read_text())
    scores = {point: score["dev_score_pct"] for point, score in result["grid"].items()}
    assert set(scores) == {"lr1e-06-batch16", "lr0.01-batch16"} and scores[result["chosen"]] == max(scores.values())
    kept = list((place / "grid").glob("rte/seed1/*/checkpoint*.pt"))
    assert [path.parent.name for path in kept] == [result["chosen"]]  # the others would fill a disk
    assert "last_optimizer_state" not in torch.load(kept[0], weights_only=True)


def test_a_grid_under_the_papers_protocol_keeps_the_lowest_dev_loss():
    scores = {"a": {"dev_score_pct": 90.0, "loss_bits": 0.9}, "b": {"dev_score_pct": 80.0, "loss_bits": 0.5},
              "c": {"dev_score_pct": None, "loss_bits": 0.7}}
    assert best_point(scores, PROTOCOLS["paper"]) == "b" and best_point(scores, PROTOCOLS["standard"]) == "a"
    assert best_point({"c": scores["c"], "b": scores["b"]}, PROTOCOLS["standard"]) == "b"


def test_a_frozen_encoder_stays_as_it_was(place):
    run.fine_tune(settings(place, "frozen", ("rte",), freeze_encoder=True))
    before = weights(place / "bert" / "model.pt")
    after = weights(place / "frozen" / "rte" / "seed1" / "lr0.001-batch16" / "checkpoint_best.pt")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any("classification_heads" in name for name in after)


def test_the_papers_protocol_is_the_papers():
    command = glue_train_command("cola", PROTOCOLS["paper"], Point(5e-5, 256), 7, 8551, {"_name": "bertlet"}, "c", "d",
                               "f", "u")
    flags = dict(zip(command, command[1:]))
    assert flags["--lr"] == "5e-05" and flags["--batch-size"] == "256" and flags["--max-epoch"] == "50"
    assert flags["--patience"] == "5" and flags["--best-checkpoint-metric"] == "loss" and flags["--seed"] == "7"
    assert flags["--total-num-update"] == str(34 * 50) and flags["--warmup-updates"] == "0"
    flags = glue_train_command("cola", PROTOCOLS["standard"], Point(1e-5, 32), 7, 8551, {"_name": "bertlet"}, "c", "d",
                             "f", "u")
    assert "--maximize-best-checkpoint-metric" in flags and "mcc" in flags


def test_fine_tuning_on_a_gpu_takes_the_fused_optimizer_and_data_workers(monkeypatch):
    arguments = "cola", PROTOCOLS["paper"], Point(5e-5, 256), 7, 8551, {"_name": "bertlet"}, "c", "d", "f", "u"
    after = lambda flag, words: words[words.index(flag) + 1]  # noqa: E731
    for has_gpu, more, expected in ((False, (), ("adam", "0")), (True, (), ("fused_adamw", "4")),
                                    (True, ("--cpu",), ("adam", "0"))):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        command = glue_train_command(*arguments, more)
        assert (after("--optimizer", command), after("--num-workers", command)) == expected


def test_runs_can_share_their_data_at_the_same_time_but_not_their_folder(place, monkeypatch):
    trained = []
    monkeypatch.setattr(run, "run_trial", trained.append)
    asked = [settings(place, out, ("rte",), data=str(place / "shared")) for out in ("one", "two")]
    processes = [multiprocessing.get_context("fork").Process(target=run.fine_tune, args=(each,)) for each in asked]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.name for path in (place / "shared").iterdir()) == ["rte"]
    with exclusive_lock(str(place / "one")), pytest.raises(UsageError, match="^--out: .*: another run is writing"):
        run.fine_tune(asked[0])


def test_data_from_other_files_or_for_another_tokenizer_is_refused(place, monkeypatch):
    monkeypatch.setattr(run, "run_trial", lambda trial: None)
    shared = dict(data=str(place / "of-files"))
    run.fine_tune(settings(place, "first", ("rte",), **shared))
    shutil.copytree(place / "data", place / "changed")
    with open(place / "changed" / "RTE" / "dev.tsv", "a") as file:
        file.write("15\tone\ttwo\tentailment\n")
    other = settings(place, "second", ("rte",), **shared)
    other.glue = str(place / "changed")
    with pytest.raises(UsageError, match="--data: .*rte was made for another source"):
        run.fine_tune(other)
    assert not (place / "second").exists()
    (place / "of-files" / "rte" / "made_for.json").unlink()
    with pytest.raises(UsageError, match="--data: .*rte without made_for.json found, expected a folder that this"):
        run.fine_tune(settings(place, "first", ("rte",), **shared))


def test_a_refused_run_does_not_block_its_folder(place, monkeypatch):
    monkeypatch.setattr(run, "run_trial", lambda trial: None)
    shutil.copytree(place / "data", place / "broken-data")
    with open(place / "broken-data" / "RTE" / "train.tsv", "a") as file:
        file.write("48\tone\n")
    wrong = settings(place, "corrected", ("rte",), seeds=(3,))
    wrong.glue = str(place / "broken-data")
    with pytest.raises(UsageError, match="train.tsv, line 50: 2 columns found, expected 4"):
        run.fine_tune(wrong)
    right = settings(place, "corrected", ("rte",), protocol=PROTOCOLS["standard"])
    assert run.fine_tune(right) == (1, [])


@pytest.mark.parametrize("change, message", [
    (dict(learning_rates=(-1.0,)), "--lr: "), (dict(batch_sizes=(0,)), "--batch-size: "),
    (dict(max_epochs=0), "--max-epochs: 0 found, expected 1 or more"), (dict(patience=0), "--patience: 0 found"),
    (dict(warmup=1.0), "--warmup: 1.0 found"), (dict(weight_decay=-0.1), "--weight-decay: -0.1 found"),
])
def test_values_that_cannot_train_are_refused_before_any_work(change, message, place):
    with pytest.raises(UsageError, match=message):
        settings(place, "new", ("rte",), protocol=PROTOCOLS["paper"]._replace(**change))


def test_several_gpus_are_dealt_to_the_jobs_one_each(place, monkeypatch):
    trials = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(run, "run_trials", lambda chosen, jobs: trials.extend(chosen) or [])
    run.fine_tune(settings(place, "gpus", ("rte",), seeds=(1, 2, 3)))
    assert [trial.device for trial in trials] == ["2", "5", "2"]
    point = Point(1e-3, 16)
    command = glue_train_command("rte", trials[0].protocol, point, 1, 48, trials[0].model, "c", "d", "f", "u")
    assert command[command.index("--distributed-world-size") + 1] == "1"  # a batch is a batch of one GPU


def test_a_run_of_other_settings_or_without_its_files_is_refused(place, monkeypatch):
    with pytest.raises(UsageError, match="--out: .* is a run with limit None, now 5"):
        run.fine_tune(settings(place, "all", ("rte",), limit=5))
    with monkeypatch.context() as patch:
        patch.setattr(run, "optimizer_for", lambda extra_args: "fused_adamw")  # begun without a GPU
        with pytest.raises(UsageError, match="is a run with optimizer adam, now fused"):
            run.fine_tune(settings(place, "all", ("rte",)))
    with pytest.raises(UsageError, match="--glue: 4 files are missing, expected .*CoLA/train.tsv, .*WNLI/dev.tsv"):
        settings(place, "new", ("cola", "wnli"))
    with pytest.raises(UsageError, match="--tasks: rte found, expected all or some of"):
        settings(place, "new", ("rte", "rte"))
    with pytest.raises(UsageError, match="--tasks: sst found, expected all or some of cola,sst-2"):
        settings(place, "new", ("sst",))
    assert not (place / "new").exists()


def test_data_and_settings_of_an_older_version_are_taken_over(place, monkeypatch):
    """As phrases instead of keys, and without the optimizer."""
    monkeypatch.setattr(run, "run_trial", lambda trial: None)
    asked = settings(place, "older", ("rte",))
    run.fine_tune(asked)
    path = place / "older" / "data" / "rte" / "made_for.json"
    now = json.loads(path.read_text())
    path.write_text(json.dumps({"examples": now["n_examples"], "shortened": now["n_truncated"],
                                "malformed rows left out": now["n_malformed"], "made for": now["made_for"]}))
    path = place / "older" / "settings.json"
    now = json.loads(path.read_text())
    old = {"checkpoint": now["checkpoint"], "content of the checkpoint": now["checkpoint_digest"],
           "protocol": now["protocol"], "freeze encoder": False, "limit": None, "more flags": ["--cpu"]}
    path.write_text(json.dumps(old))
    assert run.fine_tune(asked) == (1, [])
    assert json.loads(path.read_text()) == now
    path.write_text(json.dumps({**old, "freeze encoder": True}))
    with pytest.raises(UsageError, match="--out: .* is a run with freeze_encoder True, now False"):
        run.fine_tune(asked)


def test_a_checkpoint_without_tokenizer_is_refused(data_bin, teacher, place):
    asked = settings(place, "no-tokenizer", ("rte",))
    asked.checkpoint = teacher
    with pytest.raises(UsageError, match="--tokenizer: none found in"):
        run.fine_tune(asked)
    assert not (place / "no-tokenizer").exists()


# ---- weight drift


def test_drift_of_planted_changes_is_what_was_planted(data_bin, tmp_path):
    checkpoint = train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "1", model=TINY, task=OURS)
    before = weights(checkpoint)
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["encoder.layers.1.ffn.fc2.weight"] *= 1.5
    after["encoder.layers.1.ffn.fc2.bias"] *= 1.5
    after["encoder.layers.0.self_attn.qkv_proj.weight"][32:64] *= -1  # the keys
    after["encoder.layers.0.self_attn.qkv_proj.bias"][32:64] *= -1
    changes = drift(before, after)
    assert changes["layer 1", "FFN out"][FROBENIUS] == pytest.approx(0.5, rel=1e-5)
    assert changes["layer 1", "FFN out"][ELEMENTWISE] == pytest.approx(50, rel=1e-4)
    assert changes["layer 0", "attention k"][FROBENIUS] == pytest.approx(2, rel=1e-5)
    moved = {("layer 1", "FFN out"), ("layer 0", "attention k")}
    assert all(values[FROBENIUS] == 0 for key, values in changes.items() if key not in moved)


def test_drift_is_written_as_csv_and_two_pictures(place):
    tuned = place / "all" / "rte" / "seed1" / "lr0.001-batch16" / "checkpoint_best.pt"
    write_drift(drift_of_files(str(place / "bert" / "model.pt"), [str(tuned)]), str(place / "drift"))
    lines = (place / "drift.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 + 2 * 7
    assert lines[0] == "checkpoint,part,component,relative_frobenius_change,elementwise_change_pct"
    assert (place / "drift.png").exists() and (place / "drift-elementwise.png").exists()
    with pytest.raises(UsageError, match="--pretrained: .* does not exist"):
        drift_of_files("nowhere.pt", [str(tuned)])


TASK_OF_ONES_OWN = '''
"""Does the second text repeat the first? Scored by F1."""

from entropy_mask_plugin.glue.tasks import TASKS, Task, Task

TASKS["repeats"] = Task("Repeats", ("first", "second", "label"), ("no", "yes"), {"dev": "dev.tsv"}, None, ("f1",))
'''


def test_a_task_of_ones_own_is_fine_tuned_and_scored_by_f1(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text(TASK_OF_ONES_OWN)
    (tmp_path / "glue" / "Repeats").mkdir(parents=True)
    for name, count in (("train", 24), ("dev", 12)):
        lines = [f"{WORDS[i % 7]}\t{WORDS[(i + i % 2) % 7]}\t{('yes', 'no')[i % 2]}\n" for i in range(count)]
        (tmp_path / "glue" / "Repeats" / f"{name}.tsv").write_text("first\tsecond\tlabel\n" + "".join(lines))
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "finetune_glue.py", "--user-dir", tmp_path / "mine", "--tasks", "repeats",
         "--checkpoint", place / "bert" / "model.pt", "--glue", tmp_path / "glue", "--out", tmp_path / "run",
         "--seeds", "1", "--protocol", "standard", "--lr", "1e-3", "--batch-size", "8", "--max-epochs", "1", "--",
         "--cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = [line for line in done.stdout.splitlines() if "Repeats" in line]
    predictions = read_predictions(str(tmp_path / "run" / "repeats" / "seed1" / "predictions.tsv"),
                                   Task("", (), ("no", "yes"), {}, None, ("f1",)))
    assert len(predictions.gold) == 12
    right = int((predictions.gold & predictions.predicted).sum())
    f1 = 100 * 2 * right / (predictions.gold.sum() + predictions.predicted.sum())
    assert f"| f1 | {f1:.2f} " in re.sub(" +", " ", row)
