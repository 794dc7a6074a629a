"""Scores that learn, in whole trainings: killed and resumed, on two ranks, exported."""

import re

import pytest
import torch
from builders.learners import LEARNED, learned_flags
from builders.processes import Killed, kill_before_update, torchrun
from builders.training import PLUGIN, TINY, binarise_task, run, same_weights, train, weights

from entropy_mask_plugin.checkpoints.reading import read_checkpoint
from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.masking import SCORES
from entropy_mask_plugin.masking.registry import Entry
from entropy_mask_plugin.masking.scores.accuracy import Accuracy

V, C = 30, 8


def learned_state(checkpoint):
    return torch.load(checkpoint, weights_only=True)["extra_state"]["learned_state"]


def same_state(one, other):
    one, other = (learned_state(checkpoint)["state"] for checkpoint in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_learning_changes_neither_masks_nor_weights_before_its_scores_are_used(score, data_bin, tmp_path):
    random = train(data_bin, str(tmp_path / "random"), "--mask-strategy", "random", "--max-epoch", "1")
    learning = train(data_bin, str(tmp_path / score), *learned_flags(score), "--self-mask-from-epoch", "2",
                     "--max-epoch", "1")
    assert same_weights(random, learning) and learned_state(learning)["score"] == score
    following = train(data_bin, str(tmp_path / "following"), *learned_flags(score), "--max-epoch", "1")
    assert not same_weights(random, following)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--kd-weight", "0.5", "--kd-positions", "all", "--update-freq", "2"]],
                         ids=["mlm", "kd"])
@pytest.mark.parametrize("score", LEARNED)
def test_a_run_killed_and_resumed_has_learned_what_a_straight_run_has(
    score, more, data_bin, teacher, tmp_path, monkeypatch
):
    flags = learned_flags(score, "--teacher", teacher, *more, "--max-epoch", "2", "--save-interval-updates", "4")
    straight = train(data_bin, str(tmp_path / "straight"), *flags)
    updates = torch.load(straight, weights_only=True)["optimizer_history"][-1]["num_updates"]
    with monkeypatch.context() as patch:
        kill_before_update(patch, updates - 1)
        with pytest.raises(Killed):
            train(data_bin, str(tmp_path / "killed"), *flags)
    resumed = train(data_bin, str(tmp_path / "killed"), *flags)
    assert same_weights(straight, resumed) and same_state(straight, resumed)


@pytest.mark.slow
def test_only_masked_tokens_of_training_are_counted(data_bin, tmp_path, caplog):
    with caplog.at_level("INFO"):
        checkpoint = train(data_bin, str(tmp_path), *learned_flags("accuracy"), "--accuracy-window", "1000",
                           "--max-epoch", "2", "--log-format", "json")  # validates twice
    seen, correct = learned_state(checkpoint)["state"]["seen_and_correct"]
    assert seen[:4].sum() == 0 and (correct <= seen).all()  # <s> <pad> </s> <unk>
    assert seen[-1] == 0  # <mask>
    text = " ".join(record.message for record in caplog.records)
    rates = [float(rate) for rate in re.findall(r'"train_mask_rate": "([\d.]+)"', text)]
    assert len(rates) == 2 and '"train_score_masked"' in text and "train_entropy" not in text
    updates = torch.load(checkpoint, weights_only=True)["optimizer_history"][-1]["num_updates"]
    assert 0.1 * 64 * 14 * updates < seen.sum() < 0.2 * 64 * 16 * updates


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_checkpoints_load_for_everything_else(score, data_bin, make_task, tmp_path, caplog):
    checkpoint = train(data_bin, str(tmp_path / "run"), *learned_flags(score), "--max-update", "7")
    done = run("fairseq_cli.validate", data_bin, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--path",
               checkpoint, "--batch-size", "64", "--cpu")
    assert done.returncode == 0, done.stderr
    task, _, _ = make_task(*learned_flags(score), "--kd-weight", "0.5", "--teacher", checkpoint)
    assert same_as_new(task.learner, score)
    with caplog.at_level("WARNING"):
        tuned = train(data_bin, str(tmp_path / "adapted"), *learned_flags(score), "--finetune-from-model", checkpoint,
                      "--max-update", "1")
        assert not caplog.records or "learned" not in caplog.text
    assert learned_state(tuned)["state"].keys() == learned_state(checkpoint)["state"].keys()
    binarise_task(data_bin, tmp_path / "glue")
    tuned = train(
        str(tmp_path / "glue"), str(tmp_path / "tuned"), "--restore-file", checkpoint, "--reset-optimizer",
        "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler", "--num-classes", "2", "--init-token", "0",
        "--max-epoch", "1", task=["--task", "sentence_prediction", "--criterion", "sentence_prediction"])
    assert torch.equal(weights(tuned)["lm_head.bias"], weights(checkpoint)["lm_head.bias"])


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_a_model_is_exported_without_what_was_learned(score, like_data, data_bin, tmp_path):
    pytest.importorskip("transformers")
    import_bert(str(like_data[0]), str(tmp_path / "in"))
    checkpoint = train(data_bin, str(tmp_path / "run"), "--restore-file", tmp_path / "in" / "model.pt", "--max-update",
                       "2", *learned_flags(score), model=["--arch", "bert_base", *TINY[2:]])
    assert export_bert(checkpoint, str(tmp_path / "out"), str(tmp_path / "in")) == "BertForMaskedLM"
    import_bert(str(tmp_path / "out"), str(tmp_path / "back"))
    back = read_checkpoint(str(tmp_path / "back" / "model.pt"), "--restore-file")
    assert "learned_state" not in back["extra_state"]
    assert back["model"].keys() == weights(checkpoint).keys()


def same_as_new(learner, score):
    new = SCORES[score].fn(V, C, **SCORES[score].chosen({})).state_dict()
    state = learner.state_dict()
    return all(state[key].numel() != new[key].numel() or torch.equal(state[key], new[key]) for key in new)


@pytest.mark.slow
def test_another_score_is_learned_from_scratch(data_bin, tmp_path, caplog):
    train(data_bin, str(tmp_path), *learned_flags("accuracy"), "--max-update", "4")
    with caplog.at_level("WARNING"):
        checkpoint = train(data_bin, str(tmp_path), *learned_flags("predicted-loss"), "--max-update", "6")
    assert "--mask-score predicted-loss: not in the checkpoint, it is learned from scratch" in caplog.text
    assert learned_state(checkpoint)["state"]["steps"] == 2


@pytest.mark.slow
def test_a_score_of_ones_own_may_learn(data_bin, tmp_path, monkeypatch):
    class Count(Accuracy):
        def __init__(self, vocabulary_size, width):
            super().__init__(vocabulary_size, width, 1, 1.0, 0.5)

    monkeypatch.setitem(SCORES._entries, "count", Entry(Count, {**SCORES.defaults, "needs": "history"}))
    checkpoint = train(data_bin, str(tmp_path), "--mask-score", "count", "--max-update", "3")
    assert learned_state(checkpoint)["state"]["rates"].min() == 0.5


EQUAL_STATES = """
import torch
from fairseq.trainer import Trainer
from fairseq_cli.train import cli_main

step = Trainer.train_step

def compared(self, samples, raise_oom=False):
    logs = step(self, samples, raise_oom)
    state = torch.cat([x.double().flatten() for x in self.task.learner.state_dict().values()])
    states = [torch.empty_like(state) for _ in range(2)]
    torch.distributed.all_gather(states, state)
    assert torch.equal(*states), "the ranks have learned differently"
    return logs

Trainer.train_step = compared
cli_main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("score", LEARNED)
def test_two_ranks_learn_the_same_and_resume_bit_for_bit(score, data_bin, tmp_path):
    script = tmp_path / "equal_states.py"
    script.write_text(EQUAL_STATES)
    flags = learned_flags(score, "--batch-size", "48", "--ddp-backend", "c10d")
    straight = torchrun(2, data_bin, tmp_path / "straight", *flags, "--max-update", "11", cwd=tmp_path,
                        program=[script])
    torchrun(2, data_bin, tmp_path / "resumed", *flags, "--max-update", "7", cwd=tmp_path)
    resumed = torchrun(2, data_bin, tmp_path / "resumed", *flags, "--max-update", "11", cwd=tmp_path)
    assert same_weights(straight, resumed) and same_state(straight, resumed)


@pytest.mark.slow
def test_two_ranks_count_what_one_rank_counts(data_bin, tmp_path):
    flags = learned_flags("accuracy", "--self-mask-from-epoch", "9", "--batch-size", "48", "--accuracy-window", "1000",
                     "--max-epoch", "2", "--dropout", "0", "--attention-dropout", "0", "--optimizer", "sgd")
    one = train(data_bin, str(tmp_path / "one"), *flags, "--update-freq", "2")
    two = torchrun(2, data_bin, tmp_path / "two", *flags, "--ddp-backend", "c10d", cwd=tmp_path)
    one, two = (learned_state(checkpoint)["state"]["seen_and_correct"] for checkpoint in (one, two))
    assert torch.equal(one[0], two[0]) and (one[1] - two[1]).abs().sum() <= 2
