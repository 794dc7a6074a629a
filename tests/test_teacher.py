"""What may be a teacher, and what happens to a file that may not."""

import argparse
import contextlib
import os
import pickle

import pytest
import torch
from builders.training import TINY, TRAINING, run, train

from entropy_mask_plugin.pretrained.teacher import with_separate_projection
from entropy_mask_plugin.system.errors import UsageError


class RunsCode:
    """Unpickling this writes a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.fixture(params=["torch", "pickle"])
def malicious(request, teacher, tmp_path):
    state = {**torch.load(teacher, weights_only=True), "surprise": RunsCode(tmp_path / "code-ran")}
    file = tmp_path / "malicious.pt"
    if request.param == "torch":
        torch.save(state, file)
    else:
        file.write_bytes(pickle.dumps(state))
    return str(file)


@pytest.mark.parametrize("flag", ["--teacher", "--restore-file"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(flag, malicious, make_task, tmp_path):
    with pytest.raises(UsageError, match=f"^{flag}: .*malicious.pt.*refused"):
        make_task("--mask-strategy", "random", flag, malicious)
    assert not (tmp_path / "code-ran").exists()
    with contextlib.suppress(RuntimeError):
        torch.load(malicious, weights_only=False)  # the test can fail: unpickled carelessly, it does run
    assert (tmp_path / "code-ran").exists()


@pytest.mark.slow
def test_fairseqs_own_loading_refuses_it_too(malicious, data_bin, tmp_path):
    done = run("fairseq_cli.train", data_bin, *TRAINING, "--task", "masked_lm", "--criterion", "masked_lm", *TINY,
               "--tokens-per-sample", "16", "--save-dir", tmp_path / "run", "--restore-file", malicious)
    assert done.returncode != 0
    assert not (tmp_path / "code-ran").exists()


@pytest.mark.parametrize("flag", ["--teacher", "--restore-file"])
def test_what_is_no_checkpoint_is_refused_in_one_line(flag, teacher, make_task, tmp_path):
    truncated, foreign, text, empty = (tmp_path / f"{name}.pt" for name in ("truncated", "foreign", "text", "empty"))
    truncated.write_bytes(open(teacher, "rb").read()[:-5000])
    torch.save({"weights": torch.zeros(3)}, foreign)
    text.write_text("this is no checkpoint")
    empty.touch()
    for file in (truncated, foreign, text, empty, tmp_path, tmp_path / "missing.pt"):
        with pytest.raises(UsageError, match=f"^{flag}: {file} ") as caught:
            make_task("--mask-strategy", "random", flag, file)
        assert "\n" not in str(caught.value)


def test_a_teacher_is_frozen_in_eval_mode_and_outside_the_model(make_task, teacher):
    task, model, criterion = make_task("--mask-strategy", "high", "--teacher", teacher, "--kd-weight", "0.5")
    assert not any(module.training for module in task.teacher.modules())
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())
    assert not list(criterion.parameters()) and not criterion.state_dict()
    ours = {id(parameter) for parameter in model.parameters()}
    assert not any(id(parameter) in ours for parameter in task.teacher.parameters())


def test_a_teacher_with_another_vocabulary_is_refused_with_sizes_and_first_difference(teacher, make_task, tmp_path):
    state = torch.load(teacher, weights_only=True)
    symbols = state["extra_state"]["vocabulary"]
    cases = {
        "401 symbols as expected, but at id 9 it has 'other', expected": [*symbols[:9], "other", *symbols[10:]],
        "402 symbols, expected 401; at id 401 it has 'more', expected None": [*symbols, "more"],
    }
    for message, changed in cases.items():
        state["extra_state"]["vocabulary"] = changed
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(UsageError, match=f"^--teacher: .*{message}"):
            make_task("--teacher", tmp_path / "other.pt")


def test_without_a_record_the_dictionary_beside_the_checkpoint_counts(teacher, make_task, data_bin, tmp_path):
    state = torch.load(teacher, weights_only=True)
    del state["extra_state"]["vocabulary"]
    torch.save(state, tmp_path / "model.pt")
    make_task("--teacher", tmp_path / "model.pt")  # the data-bin it was trained on is there, and is this one
    lines = open(f"{data_bin}/dict.txt", encoding="utf-8").readlines()
    (tmp_path / "dict.txt").write_text("".join(reversed(lines)), encoding="utf-8")
    with pytest.raises(UsageError, match="another vocabulary .* at id 4 it has"):
        make_task("--teacher", tmp_path / "model.pt")


def test_a_teacher_that_is_too_short_is_refused(make_task, teacher):
    with pytest.raises(UsageError, match="^--teacher: .*with 16 positions found, expected at least --tokens-per"):
        make_task("--teacher", teacher, "--tokens-per-sample", "32", "--max-positions", "32")


def test_fairseqs_roberta_can_teach_and_its_namespace_is_read(make_task, data_bin, tmp_path):
    roberta = train(
        data_bin, str(tmp_path / "roberta"), "--max-update", "2",
        model=["--arch", "roberta_base", *TINY[2:]],
        task=["--task", "masked_lm", "--criterion", "masked_lm", "--tokens-per-sample", "16"],
    )
    assert isinstance(torch.load(roberta, weights_only=True)["cfg"]["model"], argparse.Namespace)
    train(data_bin, str(tmp_path / "student"), "--teacher", roberta, "--kd-weight", "0.5", "--max-update", "2")

    task, _, _ = make_task("--teacher", roberta)
    tokens = torch.randint(4, 300, (3, 16))
    p = torch.softmax(task.teacher(tokens)[0].double(), -1)
    clean = {"net_input": {"src_tokens": tokens, "has_padding": False}}
    assert torch.allclose(task.scorer.exact(task.teacher, clean).double(), -(p * p.log()).sum(-1), atol=1e-5)


def test_a_model_of_another_kind_is_refused_by_name():
    with pytest.raises(UsageError, match="^--teacher: x.pt is a Linear, expected one of this plug-in's archs"):
        with_separate_projection("x.pt", torch.nn.Linear(1, 1))


@pytest.mark.parametrize("flag", ["--restore-file", "--finetune-from-model", "--save-dir"])
def test_going_on_from_a_checkpoint_with_another_dictionary_is_refused(flag, teacher, make_task, tmp_path):
    state = torch.load(teacher, weights_only=True)
    symbols = state["extra_state"]["vocabulary"]
    symbols[10], symbols[11] = symbols[11], symbols[10]
    torch.save(state, tmp_path / "checkpoint_last.pt")
    value = tmp_path if flag == "--save-dir" else tmp_path / "checkpoint_last.pt"
    with pytest.raises(UsageError, match=f"^{flag}: .* has another vocabulary than the data: .* at id 10"):
        make_task("--mask-strategy", "random", flag, value)
