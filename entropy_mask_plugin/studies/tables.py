"""The tables of a report: as text for people, once for all formats, and as numbers (CSV)."""

import csv
import io
import math
from typing import List, NamedTuple

from tabulate import tabulate

from ..glue.paper import is_constant
from ..glue.tasks import TASKS
from ..reporting.comparison import in_bits
from ..reporting.drift import ELEMENTWISE, FROBENIUS
from ..reporting.statistics import mean, std
from ..training.plateau import is_on_plateau
from .results import (
    baseline_of,
    cells_of,
    common_seeds,
    comparison,
    drift_of,
    metric_of,
    moving,
    papers_scores,
    plateaus,
    with_pretraining,
)
from .rows import STUDIES

SCORES = """Per cent on GLUE's dev sets, mean ± standard deviation over seeds (n - 1); the metric is the paper's (CoLA
accuracy, MRPC F1, the others accuracy), GLUE's own where the paper has none. CONSTANT: all seeds, or so many of them,
give 99 % of the examples the same answer, whichever; such a score says nothing. "paper": the published row beside ours,
on whole dev sets, two seeds, means recomputed over the same columns (the printed totals of BERTlet marginal,
alternating, mid and cold are wrong); it is CONSTANT where it is a constant classifier's to the digit. A task moves
where some row that was pretrained here is above the best constant classifier by more than three standard errors of its
dev set; the last column is the mean over those tasks alone. Which these are is decided by the very scores that it
averages. PLATEAU: the loss on random masks, in all seeds or in so many of them, did not end at least 0.3 bits below the
unigram entropy, the loss of a model that knows token frequencies alone. Such a model need not know less than another:
one that practised on other tokens is sure where it should not be, and the accuracy beside the loss may be high."""
DIFFERENCES = """Score minus that of the row named, over the seeds that both have, with a 95 % interval by paired
bootstrap over the examples, the seeds taken as they are; the last column has the last mean of each seed alone, and
shows what another seed can change. * = the interval does not hold 0; of twenty such intervals one does so by chance, of
policies that differ in nothing but seeds more. CONSTANT instead of *: one of the two rows is a constant classifier in
all seeds. –: no seed in common, or a score that is not defined."""
COSTS = """Means over seeds. Valid: random masks of 15 %, all <mask>, the same for every row of a corpus. Own masks: the
training loss of the last epoch, on the masks that the row's own policy chose: rows do not compare. Entropies in nats,
of the last epoch, as the model that chose the masks saw them. FLOPs hold entropy passes and the teacher's predictions;
a static teacher's entropies are counted once, whoever computed them. Time: training and validation; a static teacher's
entropies are on disk by then and not in them. The training of the teacher is in neither. Memory: the peak of the GPU's;
without one, the most that the process held since it was last started."""
DRIFT = """How far fine-tuning moved W to W', of the component that moved most by |W' - W| / |W|; means over seeds. The
paper: most in the feed-forward block of the last layer, 7077 % on MNLI, 167 % on CoLA, without a formula; the last
column, the mean of |W' - W| / |W| over the single weights, is our reading of it, and the weights near zero make it."""


class Table(NamedTuple):
    title: str
    header: List[str]
    rows: List[List[str]]
    note: str


def tables_of(options, results):
    """All `Table`s, corruption by corruption."""
    found = []
    for corruption in dict.fromkeys(result.corruption for result in results):
        own = [result for result in results if result.corruption == corruption]
        cells = cells_of(own)
        moves = moving(own, cells)
        found.append(scores(options, own, cells, moves, corruption))
        if any(baseline_of(own, result) for result in own):
            found.append(differences(own, cells, moves, corruption))
        found.append(costs(own, corruption))
        if "drift" in options.studies:
            found.append(drifts([result for result in own if result.name in STUDIES["drift"]], corruption))
    return found


def scores(options, results, cells, moves, corruption):
    header = ["row", "seeds", *cells, f"mean of {len(cells)}", *moving_header(moves)]
    examples = [f"{results[0].cells[name].rows:,}" for name in cells]
    constants = [results[0].cells[name].constant(metric_of(results[0].cells[name])) for name in cells]
    rows = [["always the same answer", "", *map(decimals, constants), decimals(mean(constants)),
             *means(constants, cells, moves)], ["examples", "", *examples, "", *([""] * bool(moves))]]
    for result in results:
        averages = [result.averages(names).values() for names in (cells, moves) if names]
        rows.append([label(result), seeds(result), *(score_cell(result, name) for name in cells),
                     *(with_spread(list(values)) for values in averages)])
        paper = papers_scores(result, options.arch)
        if paper:
            known = [paper.get(name) for name in cells]
            whole = all(value is not None for value in known)
            averages = [decimals(mean(known)), *means(known, cells, moves)] if whole else [""] * (1 + bool(moves))
            rows.append([f"paper: {result.row.paper}", "2", *(paper_cell(name, paper) for name in cells), *averages])
    said = "".join(f" The paper of {result.name}: {result.row.said}." for result in results if result.row.said)
    note = f"{one_line(SCORES)} Tasks that move here: {', '.join(moves) or 'none'}.{said}"
    return Table(f"Scores, {corruption}", header, rows, note)


def moving_header(moves):
    """A column, where a task moves."""
    return [f"mean of the {len(moves)} that move"] if moves else []


def means(values, cells, moves):
    return [decimals(mean([value for value, name in zip(values, cells) if name in moves]))] if moves else []


def score_cell(result, name):
    values = list(result.scores(name).values())
    text, constant = with_spread(values), result.constant(name)
    if not constant:
        return text
    return text + (" CONSTANT" if constant == len(values) else f" CONSTANT {constant}/{len(values)}")


def with_spread(values, digits=2):
    """Mean ± standard deviation over seeds; – where it is not defined."""
    undefined = len(values) == 1 or math.isnan(mean(values))
    return decimals(mean(values), digits) + ("" if undefined else f" ± {decimals(std(values), digits)}")


def paper_cell(name, paper):
    """A score that is to the last digit a constant classifier's is one."""
    if name not in paper:
        return ""
    return decimals(paper[name]) + (" CONSTANT" if is_constant(name, paper[name]) else "")


def label(result):
    """The name of a row, and whether it ended on the plateau."""
    count = result.on_plateau()
    if not count or not result.trains():
        return result.name
    return f"{result.name} PLATEAU" + ("" if count == len(result.pretrainings()) else f" {count}/{len(result.records)}")


def seeds(result):
    finished, wanted = len(result.records), len(result.wanted)
    return str(finished) if finished == wanted else f"{finished} of {wanted}"


def differences(results, cells, moves, corruption):
    header = ["row", "against", *cells, f"mean of {len(cells)}", *moving_header(moves), "seed by seed"]
    rows = []
    for result in results:
        baseline = baseline_of(results, result)
        if baseline is None:
            continue
        found, moved = comparison(result, baseline, cells), comparison(result, baseline, moves)
        constant = {name for name in cells for row in (result, baseline) if row.constant(name) == len(row.records)}
        rows.append([label(result), baseline.name,
                     *(with_interval(found.get(name), name in constant) for name in cells),
                     with_interval(found.get("mean"), constant.issuperset(cells)),
                     *([with_interval(moved.get("mean"), constant.issuperset(moves))] if moves else []),
                     seed_by_seed(result, baseline, moves or cells)])
    return Table(f"Differences, {corruption}", header, rows, one_line(DIFFERENCES))


def seed_by_seed(result, baseline, cells):
    ours, theirs = result.averages(cells), baseline.averages(cells)
    differences = [ours[seed] - theirs[seed] for seed in common_seeds(result, baseline)]
    return "–" if math.isnan(mean(differences)) else ", ".join(f"{value:+.1f}" for value in differences)


def with_interval(found, constant=False):
    if found is None:
        return "–"
    difference, low, high = found
    mark = " CONSTANT" if constant else "" if low <= 0 <= high else " *"
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"


def costs(results, corruption):
    header = ["row", "seeds", "updates", "tokens", "FLOPs", "time", "memory, GB", "valid loss, bits",
              "valid accuracy", "own masks, bits", "entropy of the masks, nats", "of the text, nats"]
    rows = []
    for result in with_pretraining(results):
        of = lambda name: mean([found[name] for found in result.pretrainings() if found[name] is not None])  # noqa: E731
        losses = [found["loss"] for found in result.pretrainings()]
        rows.append([
            label(result), seeds(result), f"{of('updates'):,.0f}", f"{of('tokens') / 1e6:,.2f} M", f"{of('flops'):.3g}",
            duration(of("hours")), f"{mean(list(map(memory_of, result.pretrainings()))) / 2**30:.2f}",
            with_spread(losses, 3), f"{of('accuracy'):.1%}", decimals(of("own loss"), 3),
            decimals(of("entropy of the masks")), decimals(of("entropy"))])
    unigrams = ", ".join(map(in_bits, plateaus(results))) or in_bits(None)
    note = f"{one_line(COSTS)} Unigram entropy of the training data: {unigrams}."
    return Table(f"Pretraining, {corruption}", header, rows, note)


def drifts(results, corruption):
    rows = []
    for result in results:
        for task, found in drift_of(result).items():
            (part, component), moved = max(found.items(), key=lambda item: item[1][FROBENIUS])
            rows.append([result.name, TASKS[task].folder, f"{part}, {component}", f"{moved[FROBENIUS]:.3f}",
                         f"{moved[ELEMENTWISE]:,.0f}"])
    header = ["row", "task", "moved most", "relative Frobenius change", "mean element-wise change, %"]
    return Table(f"Drift, {corruption}", header, rows, one_line(DRIFT))


def memory_of(pretraining):
    """In bytes, of the GPU where there is one."""
    return pretraining["peak GPU memory"] or pretraining["peak memory"]


def duration(hours):
    return f"{hours:.2f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def decimals(value, digits=2):
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def one_line(text):
    return text.replace("\n", " ")


# ---- formats


def markdown(table):
    return "\n\n".join([f"## {table.title}", tabulate(table.rows, table.header, tablefmt="github",
                                                      disable_numparse=True), table.note])


def latex(table):
    """For pdflatex with booktabs; title and note are comments."""
    body = tabulate(table.rows, table.header, tablefmt="latex_booktabs", disable_numparse=True)
    body = body.replace("±", "$\\pm$").replace("–", "--")
    return f"% {table.title}\n% {table.note}\n{body}\n"


def comma_separated(options, results):
    """One line for each row, corruption, dev set and seed, and the costs beside."""
    file = io.StringIO()
    names = ["row", "corruption", "seed", "task", "metric", "score", "official metric", "official score",
             "constant score", "is constant", "paper", "updates", "tokens", "flops", "hours", "valid loss",
             "valid accuracy", "unigram entropy", "on the plateau", "commit"]
    writer = csv.DictWriter(file, names, restval="")
    writer.writeheader()
    for result in results:
        paper = papers_scores(result, options.arch)
        for name, cell in result.cells.items():
            metric = metric_of(cell)
            pairs = zip(cell.seeds, cell.values(metric), cell.values("official"))
            for seed, score, official in pairs:
                writer.writerow({
                    "row": result.name, "corruption": result.corruption, "seed": seed, "task": name, "metric": metric,
                    "score": score, "official metric": "/".join(cell.task.official), "official score": official,
                    "constant score": cell.constant(metric), "is constant": cell.seeds[seed].is_constant(),
                    "paper": paper.get(name, ""), **costs_of_seed(result, seed)})
    return file.getvalue()


def costs_of_seed(result, seed):
    record = result.records[seed]
    found = record.get("pretraining")
    commit = {"commit": record["identity"]["commit"]}
    if found is None:
        return commit
    return commit | {
        "updates": found["updates"], "tokens": found["tokens"], "flops": found["flops"], "hours": found["hours"],
        "valid loss": found["loss"], "valid accuracy": found["accuracy"], "unigram entropy": found["unigram entropy"],
        "on the plateau": is_on_plateau(found["loss"], found["unigram entropy"])}
