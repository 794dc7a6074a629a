"""The mask atlas: its masks are those of the run's next update, its counts those of plain loops, and its page works in
a browser."""

import contextlib
import csv
import json
import math
import random
import re
import shutil
import subprocess
from collections import Counter
from html import unescape

import numpy as np
import pytest
import torch
from builders.masks import read_masks, record_masks
from builders.training import train

from entropy_mask_plugin import cli
from entropy_mask_plugin.atlas import counts, groups, pictures, word_classes
from entropy_mask_plugin.atlas.build import Settings, make_atlas
from entropy_mask_plugin.atlas.page import Symbols, page, view_data
from entropy_mask_plugin.atlas.summary import Types, summary
from entropy_mask_plugin.atlas.views import Extent, Shown, View, names_of_policies
from entropy_mask_plugin.evaluation.text_pairs import spread
from entropy_mask_plugin.inspection.checkpoints import check_one_policy, read_checkpoints, thinned, times_of
from entropy_mask_plugin.inspection.choices import Choices, Prediction, Text, choose, predictions, read_text
from entropy_mask_plugin.inspection.restoring import restore
from entropy_mask_plugin.system.errors import UsageError

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RAMP = ["--mask-strategy", "high", "--self-mask-from-epoch", "2", "--guided-fraction", "0:0.8", "--max-epoch", "3",
        "--self-mask-model", "ema", "--store-ema", "--ema-decay", "0.9"]


@pytest.fixture(scope="module")
def runs(subwords, tmp_path_factory):
    """The folders of two runs with a checkpoint for each of three epochs: guided by the average, and random."""
    folder = tmp_path_factory.mktemp("runs")
    for name, flags in (("ramp", RAMP), ("random", ["--mask-strategy", "random", "--max-epoch", "3"])):
        train(subwords, str(folder / name), *flags)
    return folder


@pytest.fixture(scope="module")
def written(runs, subwords, tmp_path_factory):
    """The folder of an atlas of both, as the command writes it."""
    out = tmp_path_factory.mktemp("atlas") / "out"
    assert not cli.main(["atlas", str(runs / "ramp"), "--beside", str(runs / "random"), "--data", subwords, "--out",
                         str(out), "--limit", "60", "--epochs", "3", "--passages", "5"])
    return out


# ---- counts

def random_choices(seed=1, n=300, draws=3):
    """(tokens, blocks, scores with ties, masked, groups)."""
    numbers = np.random.default_rng(seed)
    return (numbers.integers(0, 20, n), np.sort(numbers.integers(0, 9, n)), numbers.integers(0, 5, n) / 4,
            numbers.random((draws, n)) < 0.3, numbers.integers(-1, 4, n))


def test_counts_are_those_of_loops():
    tokens, _, scores, masked, group = random_choices()
    of_groups = counts.count_groups(group, masked, 5)
    of_types = counts.count_types(tokens, scores, masked, 25)
    for i in range(5):
        places = [p for p in range(300) if group[p] == i]
        assert of_groups.positions[i] == len(places)
        assert of_groups.masked[i] == sum(bool(draw[p]) for draw in masked for p in places)
    for i in range(25):
        places = [p for p in range(300) if tokens[p] == i]
        assert of_types.positions[i] == len(places)
        assert of_types.masked[i] == sum(bool(draw[p]) for draw in masked for p in places)
        assert of_types.score_sum[i] == pytest.approx(sum(scores[p] for p in places))


def test_the_overlap_of_draws_is_that_of_sets_of_positions():
    masked = random_choices()[3]
    sets = [{p for p in range(300) if draw[p]} for draw in masked]
    both = len(sets[0] & sets[1]) + len(sets[1] & sets[2])
    either = len(sets[0] | sets[1]) + len(sets[1] | sets[2])
    assert counts.repetition(masked) == both / either
    assert counts.jaccard(masked[0], masked[2]) == len(sets[0] & sets[2]) / len(sets[0] | sets[2])
    assert counts.never_masked(masked) == (300 - len(set.union(*sets))) / 300
    assert counts.repetition(masked[:1]) is None
    assert counts.jaccard(np.zeros(3, bool), np.zeros(3, bool)) is None


def test_independent_choices_overlap_as_chance_says():
    numbers = np.random.default_rng(2)
    one, other = numbers.random(400_000) < 0.2, numbers.random(400_000) < 0.5
    assert counts.jaccard(one, other) == pytest.approx(counts.jaccard_by_chance(0.2, 0.5), abs=0.005)


def test_ranks_are_those_of_a_sorted_block():
    _, blocks, scores, _, _ = random_choices()
    ranks = counts.ranks(scores, blocks)
    for block in set(blocks):
        places = [p for p in range(300) if blocks[p] == block]
        order = sorted(places, key=lambda p: (-scores[p], p))
        assert [ranks[p] for p in order] == list(range(1, len(order) + 1))


def test_the_types_masked_most_and_least_are_two_lists_without_rare_types():
    shares, positions = np.array([0.5, 0.9, 0.1, 0.5, 1.0, 0.2]), np.array([9, 9, 9, 12, 1, 9])
    most, least = counts.extremes(shares, positions, 5, 24)
    assert most.tolist() == [1, 3] and least.tolist() == [2, 5]
    assert counts.extremes(shares, positions, 5, 1)[0].tolist() == [1]
    equal = counts.extremes(np.full(4, 0.5), np.array([9, 8, 7, 6]), 5, 2)
    assert [types.tolist() for types in equal] == [[0, 1], [2, 3]]


# ---- groups

def test_a_decile_holds_a_tenth_of_the_running_text():
    numbers = random.Random(3)
    frequencies = np.array([0, 0, *(round(20_000 / rank) + numbers.randrange(3) for rank in range(3, 3000))])
    deciles = groups.deciles(frequencies)
    order = sorted(range(len(frequencies)), key=lambda i: (-frequencies[i], i))
    before, total = 0, int(frequencies.sum())
    for i in order:
        assert deciles[i] == min(9, math.floor(10 * (before + frequencies[i] / 2) / total))
        before += int(frequencies[i])
    for decile in range(1, 10):  # the most frequent types are large steps
        assert frequencies[deciles == decile].sum() == pytest.approx(total / 10, rel=0.3)


def test_bands_are_limits_per_million():
    assert groups.bands(np.array([20_000, 10_000, 9_999, 1_000, 999, 10, 9.9, 0])).tolist() == [0, 0, 1, 1, 2, 3, 4, 4]


def test_tenths_of_a_block_begin_with_the_first_position():
    assert groups.tenths_of_block(np.array([0, 12, 13, 127, 130]), 128).tolist() == [0, 0, 1, 9, 9]


@pytest.mark.parametrize(("symbols", "text", "name"), [
    (["##ed", "##s", "word"], "##ed", "letters"), (["▁1985", "▁a"], "▁1985", "digits"),
    (["▁", "▁a"], "▁", "no character"), (["Ġ\"", "Ġa"], "Ġ\"", "punctuation"), (["Ġa", "ĠÃ©t"], "ĠÃ©t", "letters"),
    (["a1", "##b"], "a1", "mixed"), (["don't", "##b"], "don't", "mixed"),
])
def test_characters_are_those_without_the_mark_of_a_word(symbols, text, name):
    shown = groups.texts_of(symbols)[symbols.index(text)]
    assert groups.CHARACTER_CLASSES[groups.character_class(shown)] == name


def test_frequencies_without_counts_in_the_dictionary_are_those_of_the_text():
    tokens = np.array([1, 1, 2])
    assert groups.frequencies(np.array([1, 1, 1]), tokens)[0].tolist() == [0, 2, 1]
    assert groups.frequencies(np.array([5, 1, 1]), tokens)[0].tolist() == [5, 1, 1]


def test_words_are_tagged_as_a_sentence_and_each_token_gets_the_class_of_its_word():
    symbols = ["run", "##ning", ".", "dog", "##s", ",", "##'"]
    tokens = np.array([3, 4, 0, 1, 2, 3, 6, 4, 5, 0])  # dogs running. dog's, run | the next block begins with run
    blocks, positions = np.array([0] * 9 + [1]), np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    sentences = []

    def tagger(words):
        sentences.append(words)
        return ["PUN" if word in ".," else "VVG" if word.endswith("ing") else "NN1" for word in words]

    grouping = word_classes.word_classes(tagger, tokens, blocks, positions, symbols, "##")
    assert sentences == [["dogs", "running", "."], ["dog's", ","], ["run"]]
    names = [grouping.labels[group] for group in grouping.groups]
    assert names == [*["nouns"] * 2, *["verbs"] * 2, "punctuation", *["nouns"] * 3, "punctuation", "nouns"]


def test_the_installed_tagger_knows_word_classes():
    tagger = word_classes.installed_tagger() or pytest.skip("HanTa is not installed")
    tags = tagger(["the", "old", "dogs", "quickly", "found", "3", "bones", "in", "Paris", "."])
    names = [[*word_classes.CLASSES, word_classes.OTHER][word_classes.class_of(tag)] for tag in tags]
    assert names == ["determiners", "adjectives", "nouns", "adverbs", "verbs", "numbers", "nouns", "prepositions",
                     "names", "punctuation"]


# ---- what is read

def test_items_are_spread_evenly():
    assert spread(10, 4) == (0, 2, 5, 7) and spread(3, 4) == (0, 1, 2)
    assert thinned(list(range(10)), 4) == [0, 3, 6, 9] and thinned([1, 2, 3], 1) == [3] and thinned([1], 8) == [1]


def test_policies_are_named_by_what_differs_in_their_paths():
    assert names_of_policies(["runs/high/seed1/a.pt"], ["runs/low/seed1/a.pt"]) == ["high", "low"]
    assert names_of_policies(["runs/high/seed1/a.pt"], []) == ["seed1"]
    assert names_of_policies(["runs/a.pt"], ["runs/b.pt"]) == ["A", "B"]


def test_a_run_is_its_checkpoints_by_update_each_once(runs):
    found = read_checkpoints([str(runs / "ramp")])
    assert [checkpoint.path.rsplit("/")[-1] for checkpoint in found] == [f"checkpoint{i}.pt" for i in (1, 2, 3)]
    assert [checkpoint.epoch for checkpoint in found] == [2, 3, 4]  # of the next update
    times = times_of(found)
    assert [fraction for _, fraction in times] == pytest.approx([1 / 3, 2 / 3, 1])
    assert len(read_checkpoints([str(runs / "ramp")], most=2)) == 2


def test_a_run_that_was_resumed_with_a_later_end_is_one_policy_unless_its_rates_depend_on_the_end(runs):
    for name, is_one in (("random", True), ("ramp", False)):
        first, *_, last = read_checkpoints([str(runs / name)])
        longer = last._replace(settings={**last.settings, "max_epoch": 6})
        with contextlib.nullcontext() if is_one else pytest.raises(UsageError, match="--max-epoch 6, expected 3"):
            check_one_policy([first, longer], "RUN")


def test_progress_within_the_first_epoch_needs_a_later_checkpoint(subwords, tmp_path):
    train(subwords, str(tmp_path), *RAMP, "--save-interval-updates", "3")
    first, *_, last = read_checkpoints([str(tmp_path)])
    assert first.epoch == 1 and times_of([first, last])[0][1] == pytest.approx(first.update / last.update)
    with pytest.raises(UsageError, match="a later checkpoint of it too"):
        times_of([first])
    constant = first._replace(settings={**first.settings, "mask_prob": "0.2", "guided_fraction": "0.5"})
    assert times_of([constant])[0][1] is None


@pytest.mark.parametrize("flags", [
    ["--mask-strategy", "random"],
    ["--mask-strategy", "high", "--self-mask-from-epoch", "1"],
    ["--mask-strategy", "gumbel", "--mask-score", "surprisal", "--self-mask-from-epoch", "1", "--mask-unit", "word"],
    ["--mask-strategy", "alternating", "--teacher", "TEACHER", "--mask-prob", "0.3:0.1"],
    ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--guided-fraction", "0.2:0.9"],
    ["--mask-strategy", "low", "--self-mask-from-epoch", "1", "--guided-fraction", "0.5", "--guided-by", "sequences"],
    ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--self-mask-model", "ema", "--store-ema", "--ema-decay",
     "0.5"],
    ["--mask-strategy", "high", "--mask-score", "accuracy", "--accuracy-window", "2"],
    ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--entropy-folds", "3"],
    ["--mask-strategy", "high", "--self-mask-from-epoch", "2"],  # random in this epoch
], ids=lambda flags: "-".join(flag.strip("-") for flag in flags))
def test_the_first_draw_is_what_the_run_masks_in_its_next_update(flags, subwords, tmp_path, monkeypatch):
    if "TEACHER" in flags:
        train(subwords, str(tmp_path / "teacher"), "--mask-strategy", "random", "--max-update", "3", "--seed", "7")
        flags = [str(tmp_path / "teacher" / "checkpoint_last.pt") if flag == "TEACHER" else flag for flag in flags]
    record_masks(tmp_path / "masks", monkeypatch.setattr)
    train(subwords, str(tmp_path / "run"), *flags, "--max-update", "5", "--save-interval-updates", "3", "--cpu")
    masks = {int(i): positions for (update, i), positions in read_masks(tmp_path / "masks").items() if update == 3}
    checkpoint, = read_checkpoints([str(tmp_path / "run" / "checkpoint_1_3.pt")])
    (when, _), = times_of([checkpoint])
    policy = restore(checkpoint, when, subwords)
    policy.task.load_dataset("train")
    samples, ids = policy.task.dataset("train").dataset, sorted(masks)
    text, chosen = read_text(samples, ids), choose(policy, samples, ids, 2, 100)
    for place, i in enumerate(ids):
        of_block = text.blocks == place
        assert text.positions[of_block & chosen.masked[0]].tolist() == masks[i], i
    assert len(masks) > 30


def test_the_other_draws_differ_by_noise_alone(runs, subwords):
    checkpoint = read_checkpoints([str(runs / "ramp")])[-1]
    (when, _), = times_of([checkpoint])
    policy = restore(checkpoint, when, subwords)
    samples = policy.task.dataset("valid").dataset
    chosen = choose(policy, samples, range(40), 2, 4)
    later = choose(policy._replace(when=when._replace(epoch=when.epoch + 4, update=when.update + 1)), samples,
                   range(40), 1, 4)
    assert (chosen.masked[1] == later.masked[0]).all() and (chosen.scores == later.scores).all()
    assert (chosen.masked[0] != chosen.masked[1]).any() and not (chosen.guided & ~chosen.masked).any()


def test_the_scores_and_predictions_are_those_of_a_softmax(runs, subwords):
    checkpoint = read_checkpoints([str(runs / "random")])[-1]
    policy = restore(checkpoint, times_of([checkpoint])[0][0], subwords)
    samples = policy.task.dataset("valid").dataset
    tokens = samples[7]["src_tokens"]
    logits = policy.model(tokens[None])[0][0].double()
    log_probabilities = logits.log_softmax(-1)
    entropies = -(log_probabilities.exp() * log_probabilities).sum(-1)
    chosen, text = choose(policy, samples, [7], 1, 1), read_text(samples, [7])
    assert chosen.scores == pytest.approx(entropies[torch.from_numpy(text.positions)].numpy(), abs=1e-4)
    found, = predictions(policy, samples, [7], longest=9)
    assert found.tokens.shape == (min(9, len(tokens)), 5)
    best = log_probabilities.exp().sort(descending=True)
    assert (found.tokens == best.indices[: len(found.tokens), :5].numpy()).all()
    assert found.probabilities == pytest.approx(best.values[: len(found.tokens), :5].numpy(), abs=1e-5)


# ---- the numbers

def test_numbers_of_the_summary_are_counted_again_from_the_masks(runs, subwords):
    atlas = make_atlas(Settings([str(runs / "ramp")], [str(runs / "random")], subwords, limit=50, epochs=2))
    record, text = json.loads(json.dumps(atlas.summary)), atlas.text
    ramp, chance = record["policies"]
    assert (record["n_positions"], record["n_draws"]) == (len(text.tokens), 2)
    view, choices = ramp["checkpoints"][1], atlas.policies[0].views[1].choices
    n_masked = sum(int(draw.sum()) for draw in choices.masked)
    n_guided = sum(int(draw.sum()) for draw in choices.guided)
    assert view["mask_rate"] == n_masked / (2 * len(text.tokens))
    assert view["guided_fraction"] == n_guided / n_masked
    assert view["guided_fraction_intended"] == pytest.approx(0.8 * 2 / 3)
    assert view["guided_fraction"] == pytest.approx(0.8 * 2 / 3, abs=0.06)
    assert [v["source"] for v in ramp["checkpoints"]] == ["ema"] * 3
    assert [v["source"] for v in chance["checkpoints"]] == [None] * 3
    assert chance["all_checkpoints"]["guided_fraction"] == 0
    views = atlas.policies[0].views
    kept = [p for p in range(len(text.tokens)) if not any(v.choices.masked[:, p].any() for v in views)]
    assert ramp["all_checkpoints"]["never_masked_fraction"] == len(kept) / len(text.tokens)
    assert chance["all_checkpoints"]["never_masked_by_chance"] == pytest.approx(
        chance["all_checkpoints"]["never_masked_fraction"], abs=0.05)
    shares = ramp["masked_fraction"]["word_part"]
    inside = [p for p, token in enumerate(text.tokens) if atlas.types.symbols[token].startswith("##")]
    assert shares["positions"][1] == len(inside)
    assert shares["at_checkpoints"][1][1] == sum(choices.masked[:, p].sum() for p in inside) / (2 * len(inside))
    used, ranks = Symbols(atlas.types.symbols), counts.ranks(choices.scores, text.blocks)
    for block, of in zip(atlas.extent.passages, view_data(atlas.policies[0].views[1], text, atlas.extent, used)):
        places = [p for p in range(len(text.tokens)) if text.ids[text.blocks[p]] == block]
        assert of["at"] == [text.positions[p] for p in places] and of["n"] == len(places)
        assert of["score"] == pytest.approx([100 * choices.scores[p] for p in places], abs=0.51)
        assert of["rank"] == [ranks[p] for p in places]
        for key, drawn in (("masked", choices.masked), ("guided", choices.guided)):
            assert of[key] == [drawn[0, p] + 2 * drawn[1, p] for p in places]
    a, b = (shown.views[1].choices.masked for shown in atlas.policies)
    assert record["overlap"][1]["jaccard"] == (a & b).sum() / (a | b).sum()
    assert record["overlap"][1]["other_update"] == record["overlap"][1]["update"]


def test_groups_without_tokens_have_no_bar(monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "save", lambda figure, file: figures.append(figure))
    fractions = {"title": "kind", "labels": ["a", "b", "c"], "positions": [3, 0, 4],
                 "all_checkpoints": [0.5, None, 0.0]}
    policy = {"name": "x", "masked_fraction": {"kind": fractions}, "all_checkpoints": {"mask_rate": 0.2}}
    pictures.draw_masked_fractions({"policies": [policy]}, "")
    (axis,) = figures[0].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "c"]
    assert [bar.get_width() for bar in axis.patches] == [50, 0]


def test_the_files_agree_with_one_another(written):
    record = json.loads((written / "atlas.json").read_text())
    with open(written / "tokens.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["positions"]) for row in rows) == record["n_positions"]
    for letter, policy in zip("ab", record["policies"]):
        draws, masked = (sum(int(row[f"{letter}_{name}"]) for row in rows) for name in ("draws", "masked"))
        assert masked / draws == policy["all_checkpoints"]["mask_rate"]
        top, = (row for row in rows if int(row["id"]) == policy["most_masked"][0]["id"])
        expected = policy["most_masked"][0]["masked_fraction"]
        assert float(top[f"{letter}_masked_fraction"]) == pytest.approx(expected, abs=1e-6)
        types = Counter(row["frequency_decile"] for row in rows)
        assert set(types) <= {str(i) for i in range(1, 11)}
    for name in ("token_map.png", "masked_fraction.png", "checkpoints.png"):
        assert (written / name).read_bytes().startswith(b"\x89PNG")


# ---- the page

def test_the_page_needs_nothing_from_outside(written):
    text = (written / "atlas.html").read_text(encoding="utf-8")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg\")", text)
    assert not re.findall(r"<(?:link|img|iframe)\b|\bsrc=|@import|url\(", text)
    assert len(text.encode()) < 5e6


def test_the_largest_page_is_below_5_mb():
    numbers = np.random.default_rng(4)
    symbols = [f"##token{i}" if i % 2 else f"token{i}" for i in range(30_000)]
    tokens = np.minimum(numbers.zipf(1.2, 512 * 100), 29_999)
    text = Text(tuple(range(100)), tokens, np.repeat(np.arange(100), 512), np.tile(np.arange(512), 100))
    passages = tuple(range(0, 100, 5))
    best = [Prediction(numbers.integers(0, 30_000, (93, 5)), numbers.random((93, 5))) for _ in passages]
    shown = []
    for name in ("one", "other"):
        choices = Choices(numbers.random(len(tokens)) * 9, numbers.random((4, len(tokens))) < 0.15,
                          numbers.random((4, len(tokens))) < 0.1)
        views = [View(f"checkpoint{i}.pt", 1000 * i, i, i / 8, "self", "self", "entropy", "nats", 0.15, 0.5, choices,
                      best) for i in range(8)]
        shown.append(Shown(name, "a policy", 1, False, views))
    types = Types(symbols, np.bincount(tokens, minlength=30_000), "training text (dict.txt)")
    found = groups.groupings(tokens, text.positions, types.frequencies, symbols, 512)
    record = {"data": "bin", **summary(shown, text, found, types)}
    sequences = [tokens[512 * i : 512 * i + 93] for i in passages]
    assert 5e5 < len(page(record, shown, text, types, Extent(text.ids, passages, 93, 4, 9), sequences).encode()) < 5e6


def test_symbols_that_look_like_html_stay_text():
    tokens, extent = np.array([0, 1] * 5), Extent((0,), (0,), 10, 1, 1)
    text = Text((0,), tokens, np.zeros(10, int), np.arange(10))
    choices = Choices(np.ones(10), np.ones((1, 10), bool), np.zeros((1, 10), bool))
    best = Prediction(np.zeros((10, 5), int), np.zeros((10, 5)))
    view = View("c.pt", 1, 1, None, None, None, "entropy", "nats", 0.15, 0.0, choices, [best])
    types, shown = Types(["</script><b>", "&amp;"], np.array([2, 1]), "text"), [Shown("<i>", "d", 1, False, [view])]
    found = groups.groupings(tokens, tokens, types.frequencies, types.symbols, 9)
    record = {"data": "bin", **summary(shown, text, found, types)}
    html = page(record, shown, text, types, extent, [tokens])
    assert "</script><b>" not in html and "<i>" not in html and "&amp;amp;" in html


PROBE = """<script>
const seen = {};
seen.tokens = document.querySelectorAll(".token[data-passage]").length;
const masked = () => [...document.querySelectorAll("#passages .token.masked")].map(
  ({dataset}) => [dataset.policy, dataset.passage, dataset.position].map(Number));
seen.masked = masked();
seen.charts = document.querySelectorAll("main svg").length;
seen.circles = document.querySelectorAll("circle.type").length;
seen.cards = byId("cards").textContent;
slider.value = 0;
slider.dispatchEvent(new Event("input"));
seen.which = byId("which").value;
seen.masked_first = masked();
const token = document.querySelector('.token[data-passage="1"][data-policy="0"]:not(.special)');
token.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
seen.hover = byId("hover").innerText;
seen.background = token.style.background;
byId("all").click();
seen.cards_first = byId("cards").textContent;
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
parent.postMessage(JSON.stringify(seen), "*");
</script></html>"""
WINDOW = """<!doctype html><iframe src="probe.html" width="%d" height="900" style="border: 0"></iframe><script>
addEventListener("message", (event) => {
  document.body.append(Object.assign(document.createElement("pre"), {id: "seen", textContent: event.data}));
});
</script>"""


def in_browser(html, folder, width=1280):
    """What the probe sees in a copy of the page, in a frame of this width: no window is as narrow as a phone."""
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    (folder / "probe.html").write_text(html.replace("</html>", PROBE), encoding="utf-8")
    (folder / "window.html").write_text(WINDOW % width, encoding="utf-8")
    done = subprocess.run([BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000",
                           f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
                           (folder / "window.html").as_uri()], capture_output=True, text=True, timeout=300)
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr[-2000:]
    return json.loads(unescape(match[1]))


@pytest.mark.slow
def test_a_browser_shows_the_passages_the_map_and_the_numbers(written, tmp_path):
    html = (written / "atlas.html").read_text(encoding="utf-8")
    record = json.loads((written / "atlas.json").read_text())
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    seen = in_browser(html, tmp_path)
    assert seen["tokens"] == 2 * sum(map(len, data["passages"]))
    for name, place in (("masked", -1), ("masked_first", 0)):
        of_draw = [[policy, passage, at] for policy, views in enumerate(data["views"])
                   for passage, of in enumerate(views[place]) for at, bits in zip(of["at"], of["masked"]) if bits & 1]
        assert sorted(seen[name]) == of_draw != []
    assert seen["circles"] == 2 * len(data["types"]["symbol"]) > 0 and seen["charts"] >= 10
    rates = [policy["all_checkpoints"]["never_masked_fraction"] for policy in record["policies"]]
    assert all(f"{100 * rate:.0f}\u00a0%" in seen["cards"] for rate in rates)
    first = record["policies"][0]["checkpoints"][0]
    assert f"update {first['update']:,}" in seen["which"]
    assert f"{100 * first['guided_fraction']:.0f}\u00a0%" in seen["cards_first"] != seen["cards"]
    of_token = data["views"][0][0][1]
    rank = f"{of_token['score'][0] / 100:.2f} nats, rank {of_token['rank'][0]} of {of_token['n']}"
    assert rank in seen["hover"]
    best = [data["symbols"][i][2] for i in of_token["best"][:5]]
    assert all(symbol in seen["hover"] for symbol in best) and seen["background"].startswith("rgb")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(written, tmp_path, width):
    assert in_browser((written / "atlas.html").read_text(encoding="utf-8"), tmp_path, width)["wide"] <= 0


@pytest.mark.slow
def test_one_policy_at_one_checkpoint_is_an_atlas_too(runs, subwords, tmp_path):
    assert not cli.main(["atlas", str(runs / "random" / "checkpoint2.pt"), "--data", subwords, "--out", str(tmp_path),
                         "--limit", "20", "--epochs", "1", "--names", "any", "--no-word-classes"])
    record = json.loads((tmp_path / "atlas.json").read_text())
    assert record["policies"][0]["name"] == "any" and record["overlap"] == []
    assert record["policies"][0]["checkpoints"][0]["jaccard_of_epochs"] is None
    assert "word_class" not in record["policies"][0]["masked_fraction"]


# ---- mistakes

def test_mistakes_are_one_line(runs, subwords, data_bin, tmp_path):
    def settings(*paths, beside=(), data=subwords, **others):
        return Settings([str(path) for path in paths], [str(path) for path in beside], data, **others)

    other = train(subwords, str(tmp_path / "short"), "--mask-strategy", "random", "--max-update", "1",
                  "--tokens-per-sample", "12")
    replayed = tmp_path / "replayed.pt"
    state = torch.load(other, weights_only=True)
    state["cfg"]["task"]["replay_masks"] = "masks"
    torch.save(state, replayed)
    for given, message in (
            (settings(tmp_path), "without checkpoint"),
            (settings(runs / "ramp", runs / "random"), "expected high as .*: one policy"),
            (settings(runs / "ramp", beside=[other]), "--beside: a run with --tokens-per-sample 12 found, expected 16"),
            (settings(runs / "ramp", data=data_bin), "another vocabulary"),
            (settings(replayed), "--replay-masks"),
            (settings(runs / "ramp", names=("a", "b")), "--names: a b found, expected a name for each policy"),
            (settings(runs / "ramp", epochs=0), "--epochs: 0 found, expected 1 to 30")):
        with pytest.raises(UsageError, match=message):
            make_atlas(given)
