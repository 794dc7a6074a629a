"""The step computes only what reaches the loss: same loss, same gradients, the FLOPs that it must have, no waiting."""

import pytest
import torch
import torch.nn.functional as F
from builders.flops import multiplications
from builders.models import build
from builders.training import TINY, batch_of, masked_by_policy
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from entropy_mask_plugin.models.positions import SelectedPositions
from entropy_mask_plugin.training.cross_entropy import inplace_cross_entropy

CHOSEN = {
    "some in each row": lambda tokens, draw: draw < 0.3,
    "very unequal": lambda tokens, draw: draw < torch.tensor([0.9, 0.1, 0.0, 0.5, 1.0])[:, None],
    "one in all": lambda tokens, draw: torch.arange(80).view(5, 16) == 33,
    "none": lambda tokens, draw: torch.zeros_like(tokens, dtype=torch.bool),
    "all": lambda tokens, draw: torch.ones_like(tokens, dtype=torch.bool),
}


@pytest.fixture
def tokens():
    tokens = torch.randint(4, 49, (5, 16), generator=torch.Generator().manual_seed(0))
    tokens[1, 9:] = tokens[2, 2:] = 1  # padding
    return tokens


@pytest.fixture
def draw():
    return torch.rand(5, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chosen", CHOSEN)
def test_positions_are_those_of_the_mask_in_its_order(chosen, tokens, draw):
    mask = CHOSEN[chosen](tokens, draw)
    x = torch.arange(80).view(5, 16)
    for positions in (SelectedPositions(mask), SelectedPositions(mask, mask.sum(1).tolist())):
        assert positions.number == mask.sum() and torch.equal(positions.gather(x), x[mask])
        assert torch.equal(positions.unpad(positions.pad(x[..., None]))[:, 0], x[mask])


def test_counts_that_are_not_the_masks_are_refused():
    mask = torch.tensor([[True, False, True], [False, False, True]])
    with pytest.raises(ValueError, match=r"\[2 1\] selected positions per row found, expected \[2 2\]"):
        SelectedPositions(mask, [2, 2])


@pytest.mark.parametrize("layout", [[], ["--encoder-normalize-before"]])
@pytest.mark.parametrize("chosen", CHOSEN)
def test_loss_and_gradients_are_those_of_a_step_that_computes_everything(chosen, layout, tokens, draw):
    torch.manual_seed(0)
    model = build("--dropout", "0", "--attention-dropout", "0", *layout, model=TINY)
    mask, target = CHOSEN[chosen](tokens, draw), torch.randint(4, 49, (5, 16))
    everything = F.linear(model.lm_head(model.encode(tokens)), *model.output_projection())
    expected = F.cross_entropy(everything[mask], target[mask], reduction="sum")
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    positions = SelectedPositions(mask, mask.sum(1).tolist())
    logits, _ = model(tokens, masked_tokens=positions, has_padding=True)
    assert torch.allclose(logits, everything[mask], rtol=1e-5, atol=1e-6)
    loss, correct = inplace_cross_entropy(logits, positions.gather(target))
    assert correct == everything[mask].argmax(-1).eq(target[mask]).sum()
    assert torch.allclose(loss, expected, rtol=1e-5)
    loss.backward()
    for name, gradient in gradients.items():
        assert torch.allclose(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
@pytest.mark.parametrize("rows", [1, 255, 256, 700])
def test_cross_entropy_is_torchs_and_so_is_its_gradient(rows, dtype, tolerance):
    generator = torch.Generator().manual_seed(rows)
    logits = (torch.randn(rows, 57, generator=generator) * 8).to(dtype)
    target = torch.randint(0, 57, (rows,), generator=generator)
    plain = logits.clone().requires_grad_()
    expected = F.cross_entropy(plain.float(), target, reduction="sum")
    (expected * 0.25).backward()
    leaf = logits.clone().requires_grad_()
    loss, correct = inplace_cross_entropy(leaf * 1, target)
    (loss * 0.25).backward()
    assert torch.allclose(loss, expected, rtol=1e-5) and correct == logits.argmax(-1).eq(target).sum()
    assert torch.allclose(leaf.grad, plain.grad, rtol=tolerance, atol=tolerance * 0.25)
    with torch.no_grad():
        untouched = logits.clone()
        assert torch.allclose(inplace_cross_entropy(untouched, target)[0], expected, rtol=1e-5)
        assert torch.equal(untouched, logits)


# ---- what a step costs


class Waiting(TorchDispatchMode):
    """Counts the operations whose result the host must wait for."""

    names = ()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero") or (
                name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.names = (*self.names, name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("flags", [
    ["random"], ["random", "--leave-unmasked-prob", "0.1", "--random-token-prob", "0.1"], ["high", "--teacher", "T"],
    ["marginal", "--self-mask-from-epoch", "1"], ["high", "--teacher", "T", "--kd-weight", "0.5"],
    ["high", "--teacher", "T", "--entropy-folds", "3"],
], ids=" ".join)
@pytest.mark.parametrize("bf16_pays", [False, True])
def test_a_step_never_makes_the_host_wait_for_the_device(bf16_pays, flags, make_task, teacher, monkeypatch):
    monkeypatch.setattr("entropy_mask_plugin.scoring.scorer.bf16_pays", lambda device: bf16_pays)
    # as on a GPU
    monkeypatch.setattr("entropy_mask_plugin.masking.devices.syncs_are_expensive", lambda device: True)
    task, model, criterion = make_task("--sample-break-mode", "eos", "--shorten-method", "truncate", "--mask-strategy",
                                       *(teacher if flag == "T" else flag for flag in flags))
    by_length = task.dataset("train").ordered_indices()
    sample = batch_of(task, by_length[:: len(by_length) // 11])
    assert sample["net_input"]["has_padding"]
    masked_by_policy(task, sample, model, 0)  # the scores of the first batch alone are looked at
    with Waiting() as watch:
        masked, _ = masked_by_policy(task, sample, model, 0)
        loss, _, _ = criterion(model, masked)
        loss.backward()
    assert watch.names == ()


@pytest.mark.parametrize("arch, width, ffn, layers, heads", [("bertlet", 512, 2048, 4, 8)])
def test_a_step_and_an_entropy_pass_cost_the_flops_that_they_must(arch, width, ffn, layers, heads, make_task):
    model, tokens = ["--arch", arch, "--max-positions", "64"], 3 * 64
    task, model, criterion = make_task("--mask-strategy", "random", "--tokens-per-sample", "64", model=model)
    vocabulary = len(task.dictionary)
    model.train()
    masked, _ = masked_by_policy(task, batch_of(task, range(3)), model, 0)
    share = masked["selected"].number / tokens
    body, head, step = multiplications(width, ffn, layers, vocabulary, 64, share)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        loss, _, _ = criterion(model, masked)
        loss.backward()
    assert counted.get_total_flops() == pytest.approx(3 * 2 * tokens * step, rel=0.02)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        task.scorer.exact(model.eval(), masked)
    assert counted.get_total_flops() == pytest.approx(2 * tokens * (body + head), rel=0.001)
