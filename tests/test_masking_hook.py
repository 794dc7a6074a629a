"""The batch hook: who chooses the masks, when, and that a mask depends on nothing else."""

import itertools

import pytest
import torch
from builders.training import LargestOutput, batch_of, masked_by_policy, scores_of
from fairseq import utils

from entropy_mask_plugin.masking.take import number_to_mask, take


@pytest.fixture
def random_task(make_task):
    return make_task("--mask-strategy", "random")[0]


def masks(task, ids, model=None, update_num=0):
    """{sample id: the clean row and where it is masked}."""
    sample = masked_by_policy(task, batch_of(task, ids), model, update_num)[0]
    return {int(i): row.ne(1).nonzero().flatten().tolist() for i, row in zip(sample["id"], sample["target"])}


def plant(model, per_token):
    """Make the model's entropy at a position a function of the token there: the larger, the more uncertain."""
    vocabulary = len(per_token)

    def lm_hidden(src_tokens, has_padding):
        return per_token[src_tokens][..., None]  # B x T x 1

    # logits = -score * (0, 1, 2, ...): a small score is a flat distribution
    model.lm_hidden = lm_hidden
    model.output_projection = lambda: (-torch.arange(vocabulary)[:, None].float(), torch.zeros(vocabulary))


def test_epoch_1_masks_are_the_teachers_and_epoch_2_masks_the_models(make_task, teacher):
    task, model, _ = make_task("--mask-strategy", "high", "--teacher", teacher, "--self-mask-from-epoch", "2")
    n = len(task.dictionary)
    flat_for_low_ids, flat_for_high_ids = torch.linspace(0.01, 1, n), torch.linspace(1, 0.01, n)
    plant(task.teacher, flat_for_low_ids)
    plant(model, flat_for_high_ids)
    sample = batch_of(task, range(20))
    tokens = sample["net_input"]["src_tokens"]
    maskable = sample["maskable"]
    k = number_to_mask(maskable.sum(1), 0.15)
    for epoch, lowest_first in ((1, True), (2, False), (3, False), (2, False), (1, True)):  # also back: no state
        task.begin_epoch(epoch, model)
        selected = masked_by_policy(task, sample, model, 0)[0]["target"].ne(1)
        expected = take(-tokens.float() if lowest_first else tokens.float(), maskable, k)
        # equal tokens tie, so compare the tokens that were chosen, not where
        one, other = (torch.where(chosen, tokens, 0).sort().values for chosen in (selected, expected))
        assert torch.equal(one, other)


@pytest.mark.parametrize("bf16_pays, tolerance", [(False, 1e-5), (True, 2e-3)])  # exact near the cut only
@pytest.mark.parametrize("source", ["teacher", "self"])
def test_high_and_low_follow_the_entropies_of_the_source(make_task, teacher, source, bf16_pays, tolerance, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.bf16_pays", lambda device: bf16_pays)
    flags = ["--teacher", teacher] if source == "teacher" else ["--self-mask-from-epoch", "1"]
    by_strategy = {}
    for strategy in ("high", "low", "random"):
        task, model, _ = make_task("--mask-strategy", strategy, *flags)
        model.train()
        sample = batch_of(task, range(40))
        masked, log = masked_by_policy(task, sample, model, 0)
        reference = task.teacher if source == "teacher" else model.eval()
        p = torch.softmax(reference(sample["net_input"]["src_tokens"])[0].double(), -1)
        entropy = -(p * p.log()).sum(-1)
        selected = masked["target"].ne(1)
        by_strategy[strategy] = entropy[selected].mean()
        if strategy != "random":
            assert torch.allclose(log["entropy_masked_sum"].double(), entropy[selected].sum(), rtol=tolerance)
            of_text = entropy[sample["maskable"]].sum()
            assert torch.allclose(log["entropy_sum"].double(), of_text, rtol=tolerance)
    assert by_strategy["low"] < by_strategy["random"] < by_strategy["high"]


def test_the_self_pass_is_without_dropout_and_leaves_the_model_training(make_task):
    task, model, _ = make_task("--mask-strategy", "high", "--self-mask-from-epoch", "1", "--dropout", "0.5")
    model.train()
    assert masks(task, range(30), model) == masks(task, range(30), model)
    assert model.training and all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_mask_does_not_depend_on_batch_or_order(make_task, teacher):
    for flags in (["random"], ["high", "--teacher", teacher], ["marginal", "--teacher", teacher]):
        task, model, _ = make_task("--mask-strategy", *flags)
        together = masks(task, range(30), model)
        assert together == masks(task, reversed(range(30)), model)
        assert together == {**masks(task, range(7), model), **masks(task, range(7, 30), model)}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_random_mask_does_not_depend_on_the_device(random_task, device):
    sample = batch_of(random_task, range(30))
    moved = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)  # as fairseq's trainer does it
    one, other = (masked_by_policy(random_task, batch, None, 0)[0]["target"] for batch in (sample, moved))
    assert torch.equal(one, other.cpu())


def test_random_masks_change_with_epoch_and_seed_only(make_task):
    task = make_task("--mask-strategy", "random")[0]
    seen = []
    for epoch in (1, 2):
        task.begin_epoch(epoch, NoModel())
        seen.append(masks(task, range(30)))
        assert seen[-1] == masks(task, range(30), update_num=77)
    seen.append(masks(make_task("--mask-strategy", "random", "--seed", "2")[0], range(30)))
    assert all(one != other for one, other in itertools.combinations(seen, 2))


class NoModel:
    def set_epoch(self, epoch):
        pass


def test_static_random_masks_and_their_corruption_repeat(make_task):
    task = make_task("--mask-strategy", "random", "--static-masks", "--leave-unmasked-prob", "0.3",
                     "--random-token-prob", "0.3")[0]
    samples = []
    for epoch in (1, 2, 5):
        task.begin_epoch(epoch, NoModel())
        samples.append(masked_by_policy(task, batch_of(task, range(30)), None, epoch)[0])
    for sample in samples[1:]:
        assert torch.equal(sample["target"], samples[0]["target"])
        assert torch.equal(sample["net_input"]["src_tokens"], samples[0]["net_input"]["src_tokens"])


def test_80_10_10_of_the_hook(make_task):
    """Over 100,000 selected tokens. Only half are selected: were all, no stream of noise could be the wrong one."""
    task = make_task("--mask-strategy", "random", "--mask-prob", "0.5", "--leave-unmasked-prob", "0.1",
                     "--random-token-prob", "0.1")[0]
    sample = batch_of(task, range(len(task.dataset("train"))))
    clean = sample["net_input"]["src_tokens"]
    seen, truth = [], []
    for epoch in range(1, 36):
        task.begin_epoch(epoch, NoModel())
        masked, _ = masked_by_policy(task, sample, None, 0)
        selected = masked["target"].ne(1)
        assert torch.equal(masked["net_input"]["src_tokens"][~selected], clean[~selected])
        seen.append(masked["net_input"]["src_tokens"][selected])
        truth.append(clean[selected])
    seen, truth = torch.cat(seen), torch.cat(truth)
    assert len(seen) > 100_000
    is_mask, is_kept = seen.eq(task.mask_idx), seen.eq(truth)
    assert abs(is_mask.float().mean() - 0.8) < 0.01
    assert abs(is_kept.float().mean() - 0.1) < 0.01
    swapped = seen[~is_mask & ~is_kept].bincount(minlength=len(task.dictionary))[task.ordinary]
    assert abs(swapped.sum() / len(seen) - 0.1) < 0.01
    assert swapped.min() > 0.4 * swapped.float().mean() and swapped.max() < 1.8 * swapped.float().mean()


def test_validation_masks_are_the_same_in_every_epoch(make_task):
    task = make_task("--mask-strategy", "random")[0]
    targets = []
    for epoch in (1, 2):
        task.begin_epoch(epoch, NoModel())
        targets.append(task.mask_for_validation(batch_of(task, range(30)))["target"])
    assert torch.equal(*targets)


@pytest.mark.parametrize("flags", [["--teacher", "TEACHER", "--kd-weight", "0.5"], ["--self-mask-from-epoch", "1"]])
def test_a_step_never_holds_tokens_times_vocabulary(flags, make_task, teacher):
    """64 x 16 tokens are four chunks of the entropy pass; the LM head runs at the masked ones."""
    task, model, criterion = make_task("--mask-strategy", "high", *(teacher if f == "TEACHER" else f for f in flags))
    sample, optimizer = batch_of(task, range(64)), OnlyBackward()
    tokens = sample["net_input"]["src_tokens"].numel()
    with LargestOutput() as watch:
        task.train_step(sample, model, criterion, optimizer, 0)
    with LargestOutput() as naive:
        model(sample["net_input"]["src_tokens"])
    assert naive.numel >= tokens * len(task.dictionary) > watch.numel


class OnlyBackward:
    def backward(self, loss):
        loss.backward()


def test_the_teacher_does_not_move_and_the_model_does(make_task, teacher):
    task, model, criterion = make_task("--mask-strategy", "high", "--teacher", teacher, "--kd-weight", "0.5")
    before, ours = ({name: tensor.clone() for name, tensor in module.state_dict().items()}
                    for module in (task.teacher, model))
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    for update in range(3):
        task.train_step(batch_of(task, range(64)), model, criterion, OnlyBackward(), update)
        descent.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in task.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert not torch.equal(ours["lm_head.dense.weight"], model.state_dict()["lm_head.dense.weight"])


def test_bf16_reaches_the_entropy_pass_and_entropies_stay_fp32(make_task, teacher):
    task, _, _ = make_task("--mask-strategy", "high", "--teacher", teacher, "--precision", "bf16")
    types, hidden = [], task.teacher.lm_head.dense.register_forward_hook(lambda *io: types.append(io[2].dtype))
    entropies = scores_of(task, batch_of(task, range(8)), None).exact()
    hidden.remove()
    assert types == [torch.bfloat16] and entropies.dtype == torch.float32


def test_the_coin_of_alternating_depends_on_the_seed(make_task, teacher):
    """The chosen masks of twenty updates are high's or low's: which, differs between seeds."""
    kinds = []
    for seed in ("1", "2"):
        tasks = [make_task("--mask-strategy", strategy, "--teacher", teacher, "--seed", seed)[0]
                 for strategy in ("alternating", "high")]
        kinds.append([masks(tasks[0], range(4), None, n) == masks(tasks[1], range(4), None, n) for n in range(20)])
    assert kinds[0] != kinds[1]


def test_alternating_is_high_or_low_for_a_whole_update(make_task, teacher):
    chosen = {}
    for strategy in ("high", "low", "alternating"):
        task, model, _ = make_task("--mask-strategy", strategy, "--teacher", teacher)
        chosen[strategy] = [masks(task, range(10), model, update) for update in range(20)]
    kinds = ["high" if update == high else "low" if update == low else None
             for update, high, low in zip(chosen["alternating"], chosen["high"], chosen["low"])]
    assert set(kinds) == {"high", "low"}


def test_mask_count_masks_that_many(make_task):
    task = make_task("--mask-strategy", "random", "--mask-count", "1")[0]
    assert all(len(positions) == 1 for positions in masks(task, range(30)).values())


def test_the_old_sample_stays_clean(random_task):
    sample = batch_of(random_task, range(30))
    before = sample["net_input"]["src_tokens"].clone()
    masked, _ = masked_by_policy(random_task, sample, None, 0)
    random_task.mask_for_validation(sample)
    assert torch.equal(sample["net_input"]["src_tokens"], before) and "target" not in sample
    assert masked["net_input"]["src_tokens"].eq(random_task.mask_idx).any()


def test_specials_are_never_masked_and_never_a_random_token(make_task):
    task = make_task("--mask-strategy", "random", "--mask-prob", "1", "--random-token-prob", "1")[0]
    masked = masked_by_policy(task, batch_of(task, range(len(task.dataset("train")))), None, 0)[0]
    specials = torch.tensor([task.dictionary.index(s) for s in ("<pad>", "<s>", "</s>", "<unk>", "<mask>")])
    clean = batch_of(task, range(len(task.dataset("train"))))["net_input"]["src_tokens"]
    assert torch.isin(clean, specials).any()
    selected = masked["target"].ne(1)
    assert torch.equal(selected, ~torch.isin(clean, specials))
    assert not torch.isin(masked["net_input"]["src_tokens"][selected], specials).any()


def test_data_workers_change_nothing(make_task):
    task = make_task("--mask-strategy", "random")[0]
    seen = []
    for workers in (0, 2):
        iterator = task.get_batch_iterator(task.dataset("train"), max_sentences=32, num_workers=workers, seed=1,
                                           disable_iterator_cache=True)
        batches = iterator.next_epoch_itr(shuffle=True)
        seen.append([masked_by_policy(task, batch, None, 0)[0]["target"] for batch in batches])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


@pytest.mark.slow
def test_every_block_is_seen_whatever_the_batch_size(make_task):
    task = make_task("--mask-strategy", "random")[0]
    dataset = task.dataset("train")
    for size in (7, 16, 1000):
        batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=size, required_batch_size_multiple=8)
        assert sorted(i for batch in batches for i in batch) == list(range(len(dataset)))
