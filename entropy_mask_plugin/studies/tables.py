"""The tables of a report: as text for people, and the scores as values."""

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..glue.paper import is_single_class_score
from ..glue.tasks import TASKS
from ..reporting.comparison import PAIRS, in_bits
from ..reporting.drift import ELEMENTWISE, FROBENIUS
from ..reporting.statistics import mean, std
from ..reporting.table import Table
from ..system.text import one_line
from .conditions import STUDIES
from .options import StudyOptions
from .results import (
    Result,
    baseline_of,
    cells_of,
    common_seeds,
    ended_on_plateau,
    informative_tasks,
    mean_drift,
    metric_of,
    paired_differences,
    papers_scores,
    plateaus,
    with_pretraining,
)

SCORES = one_line("""Per cent on GLUE's dev sets, mean ± standard deviation over seeds (n - 1); the metric is the
paper's (CoLA accuracy, MRPC F1, the others accuracy), GLUE's own where the paper has none. Majority-class baseline:
the best score of predicting one class for every example. COLLAPSED: all seeds, or so many of them, predict one class
for 99 % of the examples, whichever; such a score says nothing. "paper": the published row beside ours, on whole dev
sets, two seeds, means recomputed over the same columns (the printed totals of BERTlet marginal, alternating, mid and
cold are wrong); it is COLLAPSED where it is, to the digit, the score of predicting one class. A task is informative
where some condition that was pretrained here is above the majority-class baseline by more than three standard errors
of its dev set; the last column is the mean over those tasks alone. Which these are is decided by the very scores that
it averages. PLATEAU: the loss on random masks, in all seeds or in so many of them, did not end at least 0.3 bits below
the unigram entropy, the loss of a model that knows token frequencies alone. Such a model need not know less than
another: one that practised on other tokens is sure where it should not be, and the accuracy beside the loss may be
high.""")
DIFFERENCES = one_line("""Score minus that of the baseline named, over the seeds that both have, with a 95 % interval
by paired bootstrap over the examples, the seeds taken as they are; the last column has the last mean of each seed
alone, and shows what another seed can change. * = the interval does not hold 0; of twenty such intervals one does so
by chance, of policies that differ in nothing but seeds more. COLLAPSED instead of *: one of the two collapsed in all
seeds. –: no seed in common, or a score that is not defined.""")
COSTS = one_line("""Means over seeds. Valid: random masks of 15 %, all <mask>, the same for every condition of a
corpus. Train loss: of the last epoch, on the masks that the condition's own policy chose: conditions do not compare.
Mean entropies in nats, of the last epoch, by the model that chose the masks. FLOPs hold entropy passes and the
teacher's predictions; a static teacher's entropies are counted once, whoever computed them. Time: training and
validation; a static teacher's entropies are on disk by then and not in them. The training of the teacher is in
neither. Memory: the peak of the GPU's; without one, the most that the process held since it was last started.""")
PAIRS_NOTE = one_line("""Minimal pairs (--valid-pairs): how often the model prefers the right one; chance is 50 %.""")
DRIFT = one_line("""How far fine-tuning moved W to W', of the component that moved most by |W' - W| / |W|; means over
seeds. The paper: most in the feed-forward block of the last layer, 7077 % on MNLI, 167 % on CoLA, without a formula;
the last column, the mean of |W' - W| / |W| over the single weights, is our reading of it, and the weights near zero
make it.""")


def tables_of(options: StudyOptions, results: Sequence[Result]) -> List[Table]:
    """All tables, corruption by corruption."""
    tables = []
    for corruption in dict.fromkeys(result.corruption for result in results):
        ours = [result for result in results if result.corruption == corruption]
        cells = cells_of(ours)
        informative = informative_tasks(ours, cells)
        tables.append(score_table(options, ours, cells, informative, corruption))
        if any(baseline_of(ours, result) for result in ours):
            tables.append(difference_table(ours, cells, informative, corruption))
        tables.append(cost_table(ours, corruption))
        if "drift" in options.studies:
            tables.append(drift_table([result for result in ours if result.name in STUDIES["drift"]], corruption))
    return tables


# ---- scores


def score_table(options: StudyOptions, results: Sequence[Result], cells: Sequence[str], informative: Sequence[str],
                corruption: str) -> Table:
    """results: of one corruption."""
    header = ["condition", "seeds", *cells, f"mean of {len(cells)}", *informative_header(informative)]
    dev_sets = [results[0].cells[name] for name in cells]
    baselines = [cell.majority_baseline(metric_of(cell)) for cell in dev_sets]
    rows = [["majority-class baseline", "", *map(decimals, baselines), *means(baselines, cells, informative)],
            ["examples", "", *(f"{cell.n_examples:,}" for cell in dev_sets), "", *([""] * bool(informative))]]
    for result in results:
        averages = [result.averages(names).values() for names in (cells, informative) if names]
        rows.append([label(result), seeds(result), *(score_cell(result, name) for name in cells),
                     *(with_std(list(values)) for values in averages)])
        rows += paper_rows(result, papers_scores(result, options.arch), cells, informative)
    claims = "".join(f" The paper of {result.name}: {result.condition.paper_claim}."
                     for result in results if result.condition.paper_claim)
    note = f"{SCORES} Informative tasks here: {', '.join(informative) or 'none'}.{claims}"
    return Table(f"Scores, {corruption}", header, rows, note)


def paper_rows(result, paper, cells, informative) -> List[List[str]]:
    """The published row, where there is one; its means only where it has all cells."""
    if not paper:
        return []
    values = [paper.get(name) for name in cells]
    averages = means(values, cells, informative) if None not in values else [""] * (1 + bool(informative))
    return [[f"paper: {result.condition.paper}", "2", *(paper_cell(name, paper) for name in cells), *averages]]


def informative_header(informative: Sequence[str]) -> List[str]:
    """A column, where a task is informative."""
    return [f"mean of {len(informative)} informative"] if informative else []


def means(values: Sequence[float], cells: Sequence[str], informative: Sequence[str]) -> List[str]:
    """Of all, and of the informative ones where there are such."""
    chosen = [value for value, name in zip(values, cells) if name in informative]
    return [decimals(mean(values)), *([decimals(mean(chosen))] if informative else [])]


def score_cell(result: Result, name: str) -> str:
    values = list(result.scores(name).values())
    text, n_collapsed = with_std(values), result.n_collapsed(name)
    if not n_collapsed:
        return text
    return text + (" COLLAPSED" if n_collapsed == len(values) else f" COLLAPSED {n_collapsed}/{len(values)}")


def with_std(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation over seeds; – where it is not defined."""
    undefined = len(values) == 1 or math.isnan(mean(values))
    return decimals(mean(values), digits) + ("" if undefined else f" ± {decimals(std(values), digits)}")


def paper_cell(name: str, paper: Dict[str, float]) -> str:
    if name not in paper:
        return ""
    return decimals(paper[name]) + (" COLLAPSED" if is_single_class_score(name, paper[name]) else "")


def label(result: Result) -> str:
    """The name of a condition, and whether it ended on the plateau."""
    count = result.on_plateau()
    if not count or not result.trains():
        return result.name
    return f"{result.name} PLATEAU" + ("" if count == len(result.pretrainings()) else f" {count}/{len(result.records)}")


def seeds(result: Result) -> str:
    finished, requested = len(result.records), len(result.requested_seeds)
    return str(finished) if finished == requested else f"{finished} of {requested}"


# ---- differences


def difference_table(results: Sequence[Result], cells: Sequence[str], informative: Sequence[str],
                     corruption: str) -> Table:
    """results: of one corruption; those without a baseline among them are left out."""
    header = ["condition", "baseline", *cells, f"mean of {len(cells)}", *informative_header(informative),
              "seed by seed"]
    pairs = [(result, baseline_of(results, result)) for result in results]
    rows = [difference_row(result, baseline, cells, informative) for result, baseline in pairs if baseline is not None]
    return Table(f"Differences, {corruption}", header, rows, DIFFERENCES)


def difference_row(result: Result, baseline: Result, cells: Sequence[str], informative: Sequence[str]) -> List[str]:
    all_cells = paired_differences(result, baseline, cells)
    chosen = paired_differences(result, baseline, informative)
    collapsed = {name for name in cells for each in (result, baseline) if each.n_collapsed(name) == len(each.records)}
    return [label(result), baseline.name,
            *(with_interval(all_cells.get(name), name in collapsed) for name in cells),
            with_interval(all_cells.get("mean"), collapsed.issuperset(cells)),
            *([with_interval(chosen.get("mean"), collapsed.issuperset(informative))] if informative else []),
            seed_by_seed(result, baseline, informative or cells)]


def seed_by_seed(result: Result, baseline: Result, cells: Sequence[str]) -> str:
    ours, theirs = result.averages(cells), baseline.averages(cells)
    differences = [ours[seed] - theirs[seed] for seed in common_seeds(result, baseline)]
    return "–" if math.isnan(mean(differences)) else ", ".join(f"{value:+.1f}" for value in differences)


def with_interval(interval: Optional[Tuple[float, float, float]], collapsed: bool = False) -> str:
    """interval: (difference, low, high)."""
    if interval is None:
        return "–"
    difference, low, high = interval
    mark = " COLLAPSED" if collapsed else "" if low <= 0 <= high else " *"
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"


# ---- costs and drift


def cost_table(results: Sequence[Result], corruption: str) -> Table:
    """results: of one corruption; those that pretrain nothing are left out."""
    header = ["condition", "seeds", "updates", "tokens", "FLOPs", "time", "memory, GB", "valid loss, bits",
              "valid accuracy", "train loss, bits", "mean entropy: masked tokens, nats", "all tokens, nats"]
    unigrams = ", ".join(map(in_bits, plateaus(results))) or in_bits(None)
    note = f"{COSTS} Unigram entropy of the training data: {unigrams}."
    shown = with_pretraining(results)
    rows = [cost_row(result) for result in shown]
    if any(map(pairs_accuracies, shown)):
        header.append("minimal pairs, %")
        rows = [[*cells, with_std(pairs_accuracies(result), 1)] for result, cells in zip(shown, rows)]
        note += " " + PAIRS_NOTE
    return Table(f"Pretraining, {corruption}", header, rows, note)


def pairs_accuracies(result: Result) -> List[float]:
    """Of each seed at its end, in per cent; none where pairs were not measured."""
    return [100 * each[PAIRS] for each in result.pretrainings() if PAIRS in each]


def cost_row(result: Result) -> List[str]:
    pretrainings = result.pretrainings()
    average = {key: mean([each[key] for each in pretrainings if each[key] is not None])
               for key in ("updates", "tokens", "flops", "hours", "accuracy", "train_loss_bits", "masked_entropy_nats",
                           "entropy_nats")}
    memory = mean([peak_memory_bytes_of(each) for each in pretrainings])
    return [label(result), seeds(result), f"{average['updates']:,.0f}", f"{average['tokens'] / 1e6:,.2f} M",
            f"{average['flops']:.3g}", duration(average["hours"]), f"{memory / 2**30:.2f}",
            with_std([each["loss_bits"] for each in pretrainings], 3), f"{average['accuracy']:.1%}",
            decimals(average["train_loss_bits"], 3), decimals(average["masked_entropy_nats"]),
            decimals(average["entropy_nats"])]


def drift_table(results: Sequence[Result], corruption: str) -> Table:
    """The component that moved most, for each condition and task."""
    rows = []
    for result in results:
        for task, changes in mean_drift(result).items():
            (part, component), change = max(changes.items(), key=lambda item: item[1][FROBENIUS])
            rows.append([result.name, TASKS[task].folder, f"{part}, {component}", f"{change[FROBENIUS]:.3f}",
                         f"{change[ELEMENTWISE]:,.0f}"])
    header = ["condition", "task", "moved most", "relative Frobenius change", "mean element-wise change, %"]
    return Table(f"Drift, {corruption}", header, rows, DRIFT)


def peak_memory_bytes_of(pretraining: Dict[str, Any]) -> float:
    """Of the GPU where there is one."""
    return pretraining["peak_gpu_memory_bytes"] or pretraining["peak_memory_bytes"]


def duration(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def decimals(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


# ---- as values

SCORE_KEYS = ("condition", "corruption", "seed", "task", "metric", "score_pct", "official_metric", "official_score_pct",
              "majority_baseline_pct", "is_collapsed", "paper_score_pct")
COST_KEYS = ("updates", "tokens", "flops", "hours", "valid_loss_bits", "valid_accuracy", "unigram_entropy_bits",
             "on_plateau", "pairs_accuracy")


def score_rows(options: StudyOptions, results: Sequence[Result]) -> Table:
    """A row for each condition, corruption, dev set and seed, with the costs of the pretraining."""
    rows = []
    for result in results:
        paper = papers_scores(result, options.arch)
        for name, cell in result.cells.items():
            metric, official = metric_of(cell), "/".join(cell.task.official)
            for seed, score, official_score in zip(cell.seeds, cell.values(metric), cell.values("official")):
                rows.append([result.name, result.corruption, seed, name, metric, score, official, official_score,
                             cell.majority_baseline(metric), cell.seeds[seed].is_collapsed(), paper.get(name),
                             *costs_of_seed(result, seed), result.records[seed]["identity"]["commit"]])
    return Table("", [*SCORE_KEYS, *COST_KEYS, "commit"], rows)


def costs_of_seed(result: Result, seed: int) -> List[Any]:
    """Values of COST_KEYS; None where nothing was pretrained."""
    pretraining = result.records[seed].get("pretraining")
    if pretraining is None:
        return [None] * len(COST_KEYS)
    return [*(pretraining[key] for key in ("updates", "tokens", "flops", "hours", "loss_bits", "accuracy",
                                           "unigram_entropy_bits")),
            ended_on_plateau(pretraining), pretraining.get(PAIRS)]
