"""The policies of examples/policies: each one short file, right by a plain reference, and at home in a training."""

import copy
import math
import re
import shlex
import sys
from argparse import Namespace
from collections import Counter

import pytest
import torch
from builders.processes import Killed, kill_before_update
from builders.training import OURS, PLUGIN, ROOT, TINY, TRAINING, batch_of, masked_by_policy, run, same_weights, train
from fairseq.utils import import_user_module

from entropy_mask_plugin.masking import SCORES, Answers, Scores
from entropy_mask_plugin.masking.corruption import Corruption
from entropy_mask_plugin.masking.when import When
from entropy_mask_plugin.models.flops import macs_of_step
from entropy_mask_plugin.scoring.sources import SOURCES
from entropy_mask_plugin.system.errors import UsageError

FOLDER = ROOT / "examples" / "policies"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
FLAGS = {name: shlex.split(flags) for name, flags in re.findall(r"^\| \[(\w+)\].*?\| `(--.+?)`", README, re.MULTILINE)}
ALONE = lambda tensor: None  # noqa: E731  (all_reduce of a single rank)


@pytest.fixture(scope="module", autouse=True)
def policies():
    """The package, as --user-dir imports it; other test modules do not see its parts."""
    before = [(registry, dict(registry._entries)) for registry in (SOURCES, SCORES)]
    import_user_module(Namespace(user_dir=str(FOLDER)))
    yield sys.modules["policies"]
    for registry, entries in before:
        registry._entries = entries


@pytest.fixture
def flags_of(teacher, general_dict):
    """A policy's flags in the README, with files that exist here."""
    files = {"--teacher": teacher, "--general-dict": str(general_dict)}
    return lambda name: [files.get(flag, word) for flag, word in zip(["", *FLAGS[name]], FLAGS[name])]


@pytest.fixture(scope="session")
def general_dict(data_bin, tmp_path_factory):
    """The data's dictionary without its rarest half, as if all of the rest were equally frequent."""
    file = tmp_path_factory.mktemp("general") / "dict.txt"
    with open(f"{data_bin}/dict.txt", encoding="utf-8") as lines:
        symbols = [line.rsplit(" ", 1)[0] for line in lines]
    file.write_text("".join(f"{symbol} 50\n" for symbol in symbols[:200]), encoding="utf-8")
    return file


def scores_by(task, sample, model=None, progress=0.5):
    return task.score(sample, model, When(1, 0, progress)).exact()


def assert_scores(scores, expected, sample):
    """expected: (row, position) -> float."""
    for row, position in sample["maskable"].nonzero().tolist():
        assert scores[row, position].item() == pytest.approx(expected(row, position), rel=1e-4, abs=1e-5)


def test_the_table_has_every_file_and_each_is_short():
    files = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")
    assert sorted(FLAGS) == files and len(files) == 5
    for file in FOLDER.glob("*.py"):
        assert file.read_text(encoding="utf-8").count("\n") <= 40, file


# ---- frequency

@pytest.mark.parametrize("power, progress, p", [("1", 0.3, 1.0), ("0.02", 0.3, 0.02), ("0:0.02", 0.25, 0.005)])
def test_frequency_weights_are_ranks_scaled_to_the_sentence(power, progress, p, make_task, flags_of):
    task, _, _ = make_task(*flags_of("frequency"), "--frequency-power", power, "--max-update", "9", "--cpu")
    sample, count = batch_of(task, range(40)), task.dictionary.count
    tokens = sample["net_input"]["src_tokens"].tolist()
    order = sorted(range(len(count)), key=lambda i: (-count[i], i))
    rank = {token: place for place, token in enumerate(order)}

    def expected(row, position):
        ranks = [rank[token] for token, is_maskable in zip(tokens[row], sample["maskable"][row]) if is_maskable]
        return p * math.log((rank[tokens[row][position]] - min(ranks) + 1) / (max(ranks) - min(ranks) + 1))

    assert_scores(scores_by(task, sample, progress=progress), expected, sample)


def test_the_rarest_tokens_are_masked_with_a_large_power(make_task, flags_of):
    task, model, _ = make_task(*flags_of("frequency"), "--frequency-power", "1000", "--cpu")
    sample = batch_of(task, range(40))
    chosen = masked_by_policy(task, sample, model, 0)[0]["target"] != 1
    counts = torch.tensor(task.dictionary.count)[sample["net_input"]["src_tokens"]]
    for row in range(40):
        assert counts[row][chosen[row]].max() <= counts[row][sample["maskable"][row] & ~chosen[row]].min()


def test_a_power_of_zero_is_chance_and_rows_without_text_are_finite(policies, make_task, flags_of):
    task, _, _ = make_task(*flags_of("frequency"), "--frequency-power", "0", "--cpu")
    sample = batch_of(task, range(3))
    assert (scores_by(task, sample) == 0).all()
    empty = {**sample, "maskable": torch.zeros_like(sample["maskable"])}
    task.sources["frequency"].power = 1.0
    assert scores_by(task, empty).isfinite().all()


@pytest.mark.parametrize("power", ["-1", "some"])
def test_a_power_is_checked(power, make_task, flags_of):
    with pytest.raises(UsageError, match=f"--frequency-power: {power} found, expected 0 or more, or FIRST:LAST"):
        make_task(*flags_of("frequency"), "--frequency-power", power)


# ---- TF-ICF

def test_tf_icf_is_the_ratio_of_relative_frequencies(make_task, flags_of, general_dict):
    task, _, _ = make_task(*flags_of("tf_icf"), "--cpu")
    sample, here = batch_of(task, range(40)), dict(zip(task.dictionary.symbols, task.dictionary.count))
    general = dict.fromkeys(("<s>", "<pad>", "</s>", "<unk>"), 1)  # fairseq counts them
    for line in general_dict.read_text(encoding="utf-8").splitlines():
        symbol, count = line.rsplit(" ", 1)
        general[symbol] = int(count)

    def expected(row, position):
        symbol = task.dictionary[sample["net_input"]["src_tokens"][row, position]]
        tf, cf = here[symbol] / sum(here.values()), max(1, general.get(symbol, 0)) / sum(general.values())
        return math.log(tf / cf)

    assert_scores(scores_by(task, sample), expected, sample)


def test_what_the_general_corpus_lacks_is_masked_before_what_both_have(make_task, flags_of, data_bin, tmp_path):
    with open(f"{data_bin}/dict.txt", encoding="utf-8") as lines:
        known = [line for line in lines if not line.startswith(("the ", "of "))]  # frequent here, unknown there
    (tmp_path / "dict.txt").write_text("".join(known), encoding="utf-8")
    task, model, _ = make_task(*flags_of("tf_icf"), "--general-dict", str(tmp_path / "dict.txt"), "--mask-strategy",
                               "high", "--cpu")
    sample = batch_of(task, range(60))
    planted = torch.isin(sample["net_input"]["src_tokens"],
                         torch.tensor([task.dictionary.index(word) for word in ("the", "of")]))
    chosen = masked_by_policy(task, sample, model, 0)[0]["target"] != 1
    assert (chosen & planted).sum(1).eq(torch.minimum(chosen.sum(1), planted.sum(1))).all() and planted.sum() > 40


@pytest.mark.parametrize("path", ["", "no/such/dict.txt"])
def test_a_missing_general_dictionary_is_named(path, make_task, flags_of):
    task, _, _ = make_task(*flags_of("tf_icf"), "--general-dict", path)
    message = f"^--general-dict: {path or 'none'} found, expected the dict.txt of a general corpus$"
    with pytest.raises(UsageError, match=message):
        scores_by(task, batch_of(task, range(2)))


# ---- PMI

@pytest.mark.parametrize("least", [1, 3, 10])
def test_npmi_is_that_of_a_loop_over_the_text(least, make_task, flags_of):
    task, _, _ = make_task(*flags_of("pmi"), "--pmi-min-count", str(least), "--cpu")
    specials = {task.dictionary.index(symbol) for symbol in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
    pairs, blocks = Counter(), task.dataset("train").dataset.blocks
    for i in range(len(blocks)):
        block = blocks[i].tolist()
        pairs.update(pair for pair in zip(block, block[1:]) if not specials & set(pair))
    n, left, right = sum(pairs.values()), Counter(), Counter()
    for (one, other), count in pairs.items():
        left[one] += count
        right[other] += count

    def npmi(pair):
        if pairs[pair] < least:
            return 0
        p = pairs[pair] / n
        return math.log(p / (left[pair[0]] / n * right[pair[1]] / n)) / -math.log(p)

    sample = batch_of(task, range(40))
    rows = sample["net_input"]["src_tokens"].tolist()

    def expected(row, position):
        around = [0, *rows[row], 0]  # <s>, which has no pairs
        return max(npmi(tuple(around[at:at + 2])) for at in (position, position + 1))

    scores = scores_by(task, sample)
    assert_scores(scores, expected, sample)
    assert scores.abs().max() <= 1 + 1e-6 and scores.max() > 0.5


@pytest.mark.slow
def test_both_tokens_of_a_planted_collocation_are_masked(tmp_path, make_task, flags_of):
    generator = torch.Generator().manual_seed(0)
    words = [f"w{i}" for i in torch.randint(30, (4000,), generator=generator).tolist()]
    lines = [" ".join([*words[i:i + 6], "new", "york", *words[i + 6:i + 12]]) for i in range(0, 3600, 12)]
    (tmp_path / "text").write_text("\n".join(lines) + "\n")
    done = run("fairseq_cli.preprocess", "--only-source", "--trainpref", tmp_path / "text", "--destdir",
               tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    task, model, _ = make_task(*flags_of("pmi"), "--mask-count", "2", "--sample-break-mode", "eos", "--cpu",
                               data=str(tmp_path / "bin"))
    sample = batch_of(task, range(100))
    chosen = sample["net_input"]["src_tokens"][masked_by_policy(task, sample, model, 0)[0]["target"] != 1]
    assert chosen.view(-1, 2).tolist() == 100 * [[task.dictionary.index("new"), task.dictionary.index("york")]]


def test_a_count_that_no_pair_has_is_refused(make_task, flags_of):
    task, _, _ = make_task(*flags_of("pmi"), "--pmi-min-count", "100000", "--cpu")
    with pytest.raises(UsageError, match="^--pmi-min-count: 100000 found, expected less: no pair of tokens is seen"):
        scores_by(task, batch_of(task, range(2)))


# ---- AMLM

def answers(number, seed, size=30):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(5, size - 3, (number,), generator=generator)  # some types are never seen
    correct = torch.rand(number, generator=generator) < 0.9
    return Answers(target, correct, torch.rand(number, generator=generator), torch.zeros_like(target), None)


@pytest.mark.parametrize("window", [1, 3, 200])
def test_amlm_weights_are_those_of_their_formula(window, policies):
    learner, rate = policies.amlm.Amlm(30, 0, window), 0.15  # in their code, weights are mask probabilities
    theirs, counts = dict.fromkeys(range(30), rate), {}
    for update in range(2 * window + 1):
        for batch in range(2):  # --update-freq 2
            learner.observe(answers(40, seed=2 * update + batch))
            for token, is_right in zip(*(x.tolist() for x in answers(40, seed=2 * update + batch)[:2])):
                seen, right = counts.get(token, (0, 0))
                counts[token] = seen + 1, right + is_right
        learner.update(update, ALONE)
        if (update + 1) % window == 0:
            for token in theirs:
                seen, right = counts.get(token, (0, 0))
                new = rate - rate * (right + 0.5) / (seen + 1)
                theirs[token] = max(0.005, 0.2 * theirs[token] + 0.8 * new)
            mean, counts = sum(theirs.values()) / 30, {}
            theirs = {token: rate * weight / mean for token, weight in theirs.items()}
        assert [tuple(pair) for pair in learner.counts.tolist()] == [
            (seen - right, right) for seen, right in (counts.get(token, (0, 0)) for token in range(30))]
    assert (rate * learner.weights).tolist() == pytest.approx(list(theirs.values()), rel=1e-4)
    assert window > 1 or min(theirs.values()) < max(theirs.values()) / 2
    tokens = torch.tensor([[5, 0, 29]])
    noise = torch.tensor([[0.0, 0.5, 0.9]])
    assert torch.equal(learner.scores(tokens, None, noise), learner.weights[tokens].log() + 1e-3 * noise)


def test_two_ranks_have_the_weights_of_one(policies):
    alone, one, other = (policies.amlm.Amlm(30, 0, 2) for _ in range(3))
    for update in range(5):
        alone.observe(answers(40, 2 * update)), alone.observe(answers(30, 2 * update + 1))
        one.observe(answers(40, 2 * update)), other.observe(answers(30, 2 * update + 1))
        total = one.latest + other.latest
        alone.update(update, ALONE)
        for learner in (one, other):
            learner.update(update, lambda tensor: tensor.copy_(total))  # noqa: B023
    for learner in (one, other):
        assert all(torch.equal(value, alone.state_dict()[key]) for key, value in learner.state_dict().items())
    assert alone.state_dict().keys() == {"weights", "counts"}


def test_masks_are_in_proportion_to_the_weights_of_types(make_task, flags_of):
    task, model, _ = make_task(*flags_of("amlm"), "--mask-count", "1", "--cpu")
    task.learner.weights[:] = 1 + torch.arange(len(task.dictionary)) % 4
    n = len(task.dataset("train"))
    sample = batch_of(task, range(n))
    weights = task.learner.weights[sample["net_input"]["src_tokens"]] * sample["maskable"]
    expected = weights / weights.sum(1, keepdim=True)
    chosen = torch.zeros(5)
    for epoch in range(1, 21):
        task.epoch = epoch
        target = masked_by_policy(task, sample, model, 0)[0]["target"]
        chosen += (weights * (target != 1)).long().flatten().bincount(minlength=5) * torch.tensor([0, 1, 1, 1, 1])
    for weight in range(1, 5):
        mean = 20 * expected[weights == weight].sum().item()
        assert abs(chosen[weight] - mean) < 4 * mean**0.5 + 1


# ---- RHO-1

def nats(model, tokens):
    with torch.no_grad():
        return -model.eval()(tokens)[0].log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def test_the_excess_loss_is_that_of_two_models(make_task, flags_of):
    task, model, _ = make_task(*flags_of("rho1"), "--cpu")
    sample = batch_of(task, range(20))
    scores, tokens = scores_by(task, sample, model.train()), sample["net_input"]["src_tokens"]
    assert model.training
    expected = nats(model, tokens) - nats(task.teacher, tokens)
    assert torch.allclose(scores[sample["maskable"]], expected[sample["maskable"]], atol=1e-4)
    no_excess = scores_by(task, sample, copy.deepcopy(task.teacher))
    assert no_excess[sample["maskable"]].abs().max() < 1e-5


def test_with_folds_the_token_is_hidden_from_both_models(make_task, flags_of):
    task, model, _ = make_task(*flags_of("rho1"), "--entropy-folds", "14", "--cpu")
    sample = batch_of(task, range(3))
    scores, tokens = scores_by(task, sample, model), sample["net_input"]["src_tokens"]
    for row, position in [place for place in sample["maskable"].nonzero().tolist() if place[0] == 0]:
        hidden = tokens[:1].clone()
        hidden[0, position] = task.mask_idx
        losses = [-reference.eval()(hidden)[0][0, position].log_softmax(-1)[tokens[0, position]]
                  for reference in (model, task.teacher)]
        assert scores[row, position].item() == pytest.approx((losses[0] - losses[1]).item(), abs=1e-4)


def test_neither_noise_nor_what_is_learned_is_masked(make_task, flags_of):
    task, model, _ = make_task(*flags_of("rho1"), "--mask-count", "1", "--cpu")
    sample, when = batch_of(task, range(30)), When(1, 0, 0)
    task.score(sample, model, when)
    source, kinds = task.sources["excess-loss"], torch.arange(30 * 16).view(30, 16) % 3  # learned, noise, learnable
    source.own = lambda *_: Scores(torch.tensor([0.1, 9.0, 5.0])[kinds])
    source.teacher = lambda *_: Scores(torch.tensor([0.1, 8.5, 1.0])[kinds])
    masked, _ = task.mask(sample, task.score(sample, model, when), when)
    assert (kinds[masked["target"] != 1] == 2).all()


def test_the_excess_loss_asks_for_surprisal(make_task, flags_of):
    task, model, _ = make_task(*flags_of("rho1"), "--mask-score", "entropy")
    with pytest.raises(UsageError, match="^--mask-score: entropy found, expected surprisal with --mask-source excess-"):
        scores_by(task, batch_of(task, range(2)), model)


def test_the_excess_loss_asks_for_a_teacher(make_task, flags_of):
    flags = flags_of("rho1")
    at = flags.index("--teacher")
    with pytest.raises(UsageError, match="^--teacher: none found, expected a checkpoint for --mask-strategy high"):
        make_task(*flags[:at], *flags[at + 2 :])


def test_a_source_that_reads_two_models_costs_both_passes(make_task):
    _, model, _ = make_task("--mask-strategy", "random")
    step, own, teacher, both = (macs_of_step(model, 16, Corruption(0.15, 0, 0), model, reads)
                                for reads in (None, "self", "teacher", ("teacher", "self")))
    assert both - step == pytest.approx((own - step) + (teacher - step)) and own > step


# ---- in trainings

def settings_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["cfg"]["task"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAGS)
def test_a_policy_trains_is_recorded_and_resumes(name, data_bin, tmp_path, flags_of, monkeypatch):
    window = ["--amlm-window", "3"] if name == "amlm" else []
    flags = [*flags_of(name), *window, "--max-epoch", "2", "--save-interval-updates", "4"]
    straight = train(data_bin, str(tmp_path / "straight"), *flags)
    state = torch.load(straight, weights_only=True)
    recorded = {flag[2:].replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2])}
    assert all(str(settings_of(straight).get(key, value)) == str(value) for key, value in recorded.items())
    random = train(data_bin, str(tmp_path / "random"), "--mask-strategy", "random", "--max-epoch", "2")
    assert not same_weights(straight, random)
    with monkeypatch.context() as patch:
        kill_before_update(patch, state["optimizer_history"][-1]["num_updates"] - 1)
        with pytest.raises(Killed):
            train(data_bin, str(tmp_path / "killed"), *flags)
    resumed = train(data_bin, str(tmp_path / "killed"), *flags)
    assert same_weights(straight, resumed)
    learned, again = (torch.load(checkpoint, weights_only=True)["extra_state"].get("learned_state") or {"state": {}}
                      for checkpoint in (straight, resumed))
    assert learned["state"].keys() == ({"weights", "counts"} if name == "amlm" else set())
    assert all(torch.equal(value, again["state"][key]) for key, value in learned["state"].items())


@pytest.mark.slow
def test_the_teachers_half_of_the_excess_loss_comes_from_a_cache(data_bin, tmp_path, flags_of):
    flags = [*flags_of("rho1"), "--max-epoch", "1"]
    direct = train(data_bin, str(tmp_path / "direct"), *flags)
    cached = train(data_bin, str(tmp_path / "cached"), *flags, "--entropy-cache", str(tmp_path / "cache"))
    assert list((tmp_path / "cache").glob("*/facts.json")) and same_weights(direct, cached)


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_processes_of_their_own(data_bin, tmp_path):
    (block,) = re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    listing, training = map(shlex.split, block.splitlines())
    done = run(*listing[2:], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {part} " in done.stdout for part in ("frequency", "tf-icf", "pmi", "excess-loss", "amlm"))
    smoke = [*(word for word in TRAINING if word not in ("--user-dir", PLUGIN)), *OURS, *TINY]
    done = run("fairseq_cli.train", data_bin, *smoke, *training[3:-1], tmp_path / "run", "--max-update", "2", cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = tmp_path / "run" / "checkpoint_last.pt"
    assert settings_of(checkpoint)["mask_source"] == "frequency"
    assert settings_of(checkpoint)["frequency_power"] == "0.02"
    done = run("fairseq_cli.validate", data_bin, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--cpu",
               "--path", checkpoint, "--batch-size", "64")  # without the policy
    assert done.returncode == 0, done.stderr[-3000:]
