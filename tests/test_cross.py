"""The masks that trained policies choose on validation text, and every model's loss on them, against plain loops."""

import csv
import json
import math
import re
import shutil

import pytest
import torch
from builders.training import train
from fairseq import checkpoint_utils

from entropy_mask_plugin import cli
from entropy_mask_plugin.inspection import cross
from entropy_mask_plugin.system.errors import UsageError

EMA = ["--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9"]
END = ["--max-epoch", "2", "--batch-size", "32"]
POLICIES = {
    "random": ["--mask-strategy", "random", "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"],
    "teacher": ["--mask-strategy", "high", "--teacher", "{teacher}", "--entropy-cache", "{folder}/cache"],
    "average": ["--mask-strategy", "high", "--self-mask-from-epoch", "1", *EMA, "--guided-fraction", "0:1",
                "--mask-prob", "0.1:0.3"],
    "learned": ["--mask-strategy", "low", "--mask-score", "accuracy", "--accuracy-window", "3", "--seed", "3"],
    "spans": ["--mask-strategy", "random", "--mask-unit", "span", "--arch", "bertlet", "--mask-count", "4"],
}

pytestmark = pytest.mark.slow  # five trainings


@pytest.fixture(scope="module")
def runs(data_bin, teacher, tmp_path_factory):
    """{policy: folder of a short training with it}."""
    folder = tmp_path_factory.mktemp("runs")
    for name, flags in POLICIES.items():
        train(data_bin, str(folder / name), *END,
              *(flag.format(teacher=teacher, folder=folder) for flag in flags))
    return {name: folder / name for name in POLICIES}


@pytest.fixture
def policy_of(runs, data_bin):
    return lambda name: cross.last_policy(str(runs[name] / "checkpoint_last.pt"), data_bin)


def masked_of(policy, **more):
    """[(clean tokens, masked positions)] of each block."""
    blocks = []
    for sample, selected in cross.masks_of(policy, **more):
        inputs = sample["net_input"]
        for row, length, chosen in zip(inputs["src_tokens"], inputs["src_lengths"], selected):
            blocks.append((row[: int(length)].tolist(), chosen.nonzero().flatten().tolist()))
    return blocks


def highest_entropies(model, tokens, maskable, k):
    """Positions of the k tokens that a model is least sure of, it sees all of them."""
    with torch.no_grad():
        p = model(torch.tensor([tokens]))[0][0].double().softmax(-1)
    entropy = -(p * p.log()).sum(-1)
    return sorted(sorted(maskable, key=lambda i: (-float(entropy[i]), i))[:k])


def entropy_is_ambiguous(chosen, expected):
    """Nearly equal entropies may be ranked otherwise in fp32: not more than one token of a block."""
    return len(set(chosen) ^ set(expected)) > 2


@pytest.mark.parametrize("name, rate", [("teacher", 0.15), ("average", 0.3)])
def test_a_policy_masks_what_its_source_is_least_sure_of_at_the_end_of_its_training(name, rate, policy_of):
    policy = policy_of(name)
    source = policy.task.teacher if name == "teacher" else policy.average
    masked, n_equal = masked_of(policy), 0
    source.eval()  # what scores leaves it in training mode
    for tokens, positions in masked:
        maskable = [i for i, token in enumerate(tokens) if token > 3]
        expected = highest_entropies(source, tokens, maskable, max(1, math.floor(rate * len(maskable) + 0.5)))
        assert len(positions) == len(expected) and not entropy_is_ambiguous(positions, expected)
        n_equal += positions == expected
    assert n_equal > 0.97 * len(masked) > 50
    if name == "average":
        of_weights = policy._replace(average=policy.model)
        assert masked_of(of_weights) != masked and policy.when.progress == 1


def test_a_score_that_learns_is_that_of_the_checkpoint(runs, policy_of):
    policy = policy_of("learned")
    checkpoint = torch.load(runs["learned"] / "checkpoint_last.pt", weights_only=True)
    state = checkpoint["extra_state"]["learned_state"]["state"]
    learned = policy.task.learner.state_dict()
    assert state.keys() and all(torch.equal(value, state[key]) for key, value in learned.items())
    fresh = policy_of("learned")
    fresh.task.learner.rates.fill_(0.5)
    assert masked_of(fresh) != masked_of(policy)


@pytest.mark.parametrize("name", POLICIES)
def test_masks_are_the_same_each_time_and_in_batches_of_any_size(name, policy_of):
    masked = masked_of(policy_of(name))
    assert masked == masked_of(policy_of(name), max_tokens=16)
    assert masked_of(policy_of(name), limit=7, max_tokens=60) == masked[:7]
    assert len(masked) > 50 and all(tokens[i] > 3 for tokens, positions in masked for i in positions)


# ---- the matrix

def loss_in_a_loop(checkpoint, masked):
    """Bits per masked token, block by block, with all logits."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    model.eval()
    losses = []
    for tokens, positions in masked:
        corrupted = [task.mask_idx if i in positions else token for i, token in enumerate(tokens)]
        with torch.no_grad():
            log_p = model(torch.tensor([corrupted]))[0][0].double().log_softmax(-1)
        losses += [-float(log_p[i, tokens[i]]) / math.log(2) for i in positions]
    return sum(losses) / len(losses), len(losses)


def test_every_loss_is_that_of_a_plain_loop(runs, policy_of):
    result = cross.cross(list(map(str, runs.values())), max_tokens=200)
    assert list(result.losses) == list(POLICIES)
    assert list(result.n_masked) == ["random masks", *POLICIES]
    for name in POLICIES:
        masked = masked_of(policy_of(name))
        for model, folder in runs.items():
            loss, number = loss_in_a_loop(folder / "checkpoint_last.pt", masked)
            assert result.losses[model][name] == pytest.approx(loss, rel=1e-5) and result.n_masked[name] == number


def test_random_masks_are_those_of_validation(runs):
    result = cross.cross([str(runs["random"]), str(runs["learned"])])
    for name in ("random", "learned"):
        state = torch.load(runs[name] / "checkpoint_last.pt", weights_only=True)
        assert result.losses[name]["random masks"] == pytest.approx(state["extra_state"]["val_loss"], abs=6e-4)


def test_what_is_computed_is_not_computed_again(runs, tmp_path, monkeypatch):
    paths, out = [str(runs[name]) for name in ("random", "spans", "learned")], str(tmp_path)
    read, calls = cross.read_model, []

    def dying(path):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(cross, "read_model", dying)
    with pytest.raises(KeyboardInterrupt):
        cross.cross(paths, limit=20, out=out)
    monkeypatch.setattr(cross, "read_model", lambda path: calls.append(path) or read(path))
    result = cross.cross(paths, limit=20, out=out)
    assert [path.split("/")[-2] for path in calls] == ["random", "spans", "learned", "learned"]
    assert cross.cross(paths, limit=20, out=out) == result == cross.cross(paths, limit=20)
    calls.clear()
    assert cross.cross(paths, limit=21, out=out) != result
    assert len(calls) == 3  # other text
    cross.cross(paths[:2], limit=21, out=out)
    assert len(calls) == 5  # other runs


def test_the_command_prints_a_table_and_leaves_a_matrix_and_a_picture(runs, tmp_path, capsys):
    paths, out = [str(runs["random"]), str(runs["average"] / "checkpoint_last.pt")], tmp_path / "deep" / "out"
    assert cli.main(["cross", *paths, "--limit", "30", "--out", str(out)]) is None
    printed = capsys.readouterr().out
    assert (out / "cross.md").read_text() == printed and cross.HOW_TO_READ in printed
    losses = json.loads((out / "cross.json").read_text())["loss_bits"]
    with open(out / "cross.csv", encoding="utf-8") as file:
        rows = {row.pop("model"): {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)}
    assert rows == losses and len(rows) == 2
    for masks in ("random masks", *losses):
        assert f"**{min(of_model[masks] for of_model in losses.values()):.3f}**" in printed
    assert printed.count("**") == 2 * 3  # one in each column
    assert (out / "cross.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_what_paths_do_not_share():
    assert cross.names_of_runs(["/a/x/80/s1/p", "/a/y-z/80/s1/p"]) == ["x", "y-z"]
    assert cross.names_of_runs(["/a/x/80/s1/p", "/a/x/80/s2/p"]) == ["s1", "s2"]
    assert cross.names_of_runs(["/a/b", "/a/b/b"]) == ["b", "b/b"]
    assert cross.names_of_runs(["/a/run"]) == ["run"]
    with pytest.raises(UsageError, match="^RUN: /a/b/ twice found, expected each run once$"):
        cross.names_of_runs(["/a/b/", "/a/b"])


# ---- refusals

def changed(checkpoint, path, change):
    """A copy of a checkpoint with another state."""
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return str(path)


def test_another_vocabulary_is_refused_naming_both(runs, tmp_path):
    one = str(runs["random"] / "checkpoint_last.pt")
    other = changed(one, tmp_path / "other.pt", lambda state: state["extra_state"]["vocabulary"].__setitem__(9, "new"))
    with pytest.raises(UsageError, match=f"^RUN: {other} has another vocabulary than {one}: .*at id 9 it has 'new'"):
        cross.cross([one, other])


def test_data_of_another_vocabulary_are_refused(runs, subwords):
    with pytest.raises(UsageError, match="^RUN: .* has another vocabulary than the data: "):
        cross.cross([str(runs["random"])], data=subwords)


@pytest.mark.parametrize("change, message", [
    (lambda state: state["cfg"]["task"].update(replay_masks="masks"), "with --replay-masks found, expected the run"),
    (lambda state: state["cfg"]["task"].update(_name="masked_lm", mask_prob=0.15),
     "of --task masked_lm found, expected a checkpoint"),
    (lambda state: state["cfg"]["task"].update(tokens_per_sample=9), "with --tokens-per-sample 9 found, expected 16"),
    (lambda state: state["extra_state"].update({"masked-LM head": "none"}), "has no trained masked-LM head, expected"),
])
def test_runs_that_do_not_belong_together_are_refused_by_name(change, message, runs, tmp_path):
    path = changed(runs["random"] / "checkpoint_last.pt", tmp_path / "other.pt", change)
    with pytest.raises(UsageError, match=f"^RUN: {re.escape(path)} {message}"):
        cross.cross([str(runs["spans"]), path])


def test_what_is_missing_is_named(runs, teacher, tmp_path):
    with pytest.raises(UsageError, match=f"^RUN: {tmp_path} without checkpoint_last.pt found, expected the --save-dir"):
        cross.cross([str(tmp_path)])
    with pytest.raises(UsageError, match="^RUN: .*missing.pt does not exist"):
        cross.cross([str(tmp_path / "missing.pt")])
    gone = changed(runs["teacher"] / "checkpoint_last.pt", tmp_path / "gone.pt",
                   lambda state: state["cfg"]["task"].update(teacher="gone"))
    with pytest.raises(UsageError, match="^--teacher: gone does not exist"):
        cross.cross([gone])
    shutil.copy(teacher, tmp_path / "moved.pt")
    found = cross.cross([gone], limit=9, teacher=str(tmp_path / "moved.pt"))
    there = cross.cross([str(runs["teacher"])], limit=9)
    assert found.losses["gone.pt"]["gone.pt"] == there.losses["teacher"]["teacher"]
    without = changed(runs["average"] / "checkpoint_last.pt", tmp_path / "no_ema.pt",
                      lambda state: state["extra_state"].pop("ema"))
    with pytest.raises(UsageError, match="no_ema.pt without the average of its weights found, expected"):
        cross.cross([without])
    for settings in ({"limit": 0}, {"max_tokens": 0}):
        with pytest.raises(UsageError, match="0 found, expected 1 or more$"):
            cross.cross([str(runs["random"])], **settings)


def test_where_nothing_is_masked_there_is_no_loss():
    batch = cross.FrozenBatch(torch.zeros(1, 3).long(), torch.zeros(1, 3).long(), torch.zeros(1, 3).bool(), False)
    model = type("Model", (), {"parameters": lambda self: iter([torch.zeros(1)]),
                               "__call__": lambda self, tokens, **more: (torch.zeros(0, 5), None)})()
    assert math.isnan(cross.mean_loss_bits(model, [batch]))
