"""The loss against a plain reference, and its balance under every way of cutting a batch."""

import math

import pytest
import torch
import torch.nn.functional as F
from builders.training import TINY, batch_of, masked_by_policy, train

from entropy_mask_plugin.criterion import distillation_loss

KD = ["--kd-weight", "0.3", "--kd-temperature", "2"]


@pytest.fixture
def kd_run(make_task, teacher):
    def make(*flags):
        task, model, criterion = make_task("--mask-strategy", "random", "--teacher", teacher, "--dropout", "0",
                                           "--attention-dropout", "0", "--sample-break-mode", "eos", "--shorten-method",
                                           "truncate", *flags)
        model.train(), criterion.train()
        return task, model, criterion

    return make


def masked(task, model, part=slice(None)):
    """A masked batch of 12 sentences from the shortest to the longest, or a part of it."""
    by_length = task.dataset("train").ordered_indices()
    return masked_by_policy(task, batch_of(task, by_length[:: len(by_length) // 11][part]), model, 0)[0]


def plain_loss(task, model, sample, weight, temperature, positions):
    """Written without the criterion: loops over sequences, probabilities instead of log-softmax."""
    src_tokens, target = sample["net_input"]["src_tokens"], sample["target"]
    ours, theirs = model(src_tokens)[0].double(), task.teacher(src_tokens)[0].double()
    total = 0.0
    for b in range(len(target)):
        chosen = target[b] != 1
        compared = chosen if positions == "masked" else src_tokens[b] != 1
        p = torch.softmax(theirs[b][compared] / temperature, -1)
        q = torch.softmax(ours[b][compared] / temperature, -1)
        kd = temperature**2 * (p * (p / q).log()).sum()
        mlm = -torch.softmax(ours[b][chosen], -1)[range(int(chosen.sum())), target[b][chosen]].log().sum()
        if compared.any():
            total = total + (1 - weight) * mlm + weight * kd * chosen.sum() / compared.sum()
    return total


def gradients(model, loss):
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


@pytest.mark.parametrize("more", [[], ["--kd-weight", "0.5"]], ids=["mlm", "kd"])
def test_fairseqs_roberta_can_be_the_student(more, data_bin, teacher, tmp_path):
    train(data_bin, str(tmp_path), "--mask-strategy", "high", "--teacher", teacher, "--max-update", "2", *more,
          model=["--arch", "roberta_base", *TINY[2:]])


@pytest.mark.parametrize("positions", ["masked", "all"])
def test_loss_and_gradient_equal_autograd_on_a_plain_reference(kd_run, positions):
    task, model, criterion = kd_run(*KD, "--kd-positions", positions)
    sample = masked(task, model)
    assert sample["net_input"]["src_tokens"].eq(1).any()  # uneven lengths
    loss, sample_size, log = criterion(model, sample)
    expected = plain_loss(task, model, sample, 0.3, 2.0, positions)
    assert torch.allclose(loss.double(), expected, rtol=1e-5)
    one, other = gradients(model, loss), gradients(model, expected)
    assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-4) for name in one)
    assert sample_size == sample["target"].ne(1).sum()


@pytest.mark.parametrize("positions", ["masked", "all"])
def test_two_half_batches_sum_to_one_full_batch(kd_run, positions):
    task, model, criterion = kd_run(*KD, "--kd-positions", positions)
    full = criterion(model, masked(task, model))
    halves = [criterion(model, masked(task, model, part)) for part in (slice(None, 4), slice(4, None))]
    assert torch.allclose(full[0], halves[0][0] + halves[1][0], rtol=1e-5)
    assert full[1] == halves[0][1] + halves[1][1]
    for key in full[2]:
        parts = [torch.as_tensor(half[2][key]).float() for half in halves]
        assert torch.allclose(torch.as_tensor(full[2][key]).float(), sum(parts), rtol=1e-5), key


def test_weight_zero_is_mlm(kd_run):
    task, model, criterion = kd_run()
    sample = masked(task, model)
    loss, _, log = criterion(model, sample)
    target = sample["target"]
    logits = model(sample["net_input"]["src_tokens"])[0]
    expected = F.cross_entropy(logits.view(-1, logits.size(-1)), target.view(-1), ignore_index=1, reduction="sum")
    assert torch.allclose(loss, expected, rtol=1e-6)
    assert log["kd_loss"] == 0 and log["kd_sample_size"] == 0


def test_an_equal_teacher_has_nothing_to_teach(kd_run):
    task, model, criterion = kd_run(*KD)
    model.load_state_dict(task.teacher.state_dict())
    _, sample_size, log = criterion(model, masked(task, model))
    assert sample_size > 0 and abs(log["kd_loss"]) < 1e-4


def test_distillation_begins_at_its_epoch_and_never_enters_validation(kd_run):
    task, model, criterion = kd_run("--kd-weight", "1", "--kd-start-epoch", "2")
    sample = masked(task, model)
    mlm = criterion(model, sample)[0]
    task.begin_epoch(2, model)
    kd = criterion(model, sample)[0]
    assert not torch.allclose(mlm, kd)
    criterion.eval()
    assert torch.equal(mlm, criterion(model, sample)[0])


def test_distillation_loss_is_t_squared_kl_from_teacher_to_student():
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 11), torch.randn(7, 11)
    for temperature in (0.5, 1.0, 3.0):
        p = torch.distributions.Categorical(logits=teacher / temperature)
        q = torch.distributions.Categorical(logits=student / temperature)
        expected = temperature**2 * torch.distributions.kl_divergence(p, q)
        assert torch.allclose(distillation_loss(student, teacher, temperature), expected, atol=1e-5)


def test_the_log_of_nothing_is_not_a_loss_of_zero():
    from fairseq.logging import metrics

    from entropy_mask_plugin.criterion import EntropyMaskedLMCriterion

    nothing = {"loss": 0.0, "kd_loss": 0.0, "kd_sample_size": 0, "n_correct": 0, "sample_size": 0}
    something = {"loss": 6.0, "kd_loss": 0.0, "kd_sample_size": 0, "n_correct": 1, "sample_size": 2}
    with metrics.aggregate(new_root=True) as log:
        EntropyMaskedLMCriterion.reduce_metrics([nothing])
        assert math.isnan(log.get_smoothed_values()["loss"])
        EntropyMaskedLMCriterion.reduce_metrics([something])
        assert log.get_smoothed_values()["loss"] == round(3 / math.log(2), 3)
        assert log.get_smoothed_values()["accuracy"] == 0.5
