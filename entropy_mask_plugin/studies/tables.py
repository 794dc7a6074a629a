"""The tables of a report: as text for people, once for all formats, and as numbers (CSV)."""

import csv
import io
from typing import List, NamedTuple

from tabulate import tabulate

from ..glue.cells import deviation, mean
from ..glue.paper import is_constant
from ..plateau import is_on_plateau
from ..reports.comparison import in_bits
from .results import baseline_of, cells_of, comparison, metric_of, moving, papers_scores, plateaus, with_pretraining

SCORES = """Per cent on GLUE's dev sets, mean ± standard deviation over seeds; the metric is the paper's (CoLA accuracy,
MRPC F1, the others accuracy), GLUE's own where the paper has none. CONST: all seeds, or so many of them, give (nearly)
every example the same answer, so the score is a constant classifier's. "paper": the published row beside ours, means
recomputed over the same columns (four of the printed ones are wrong). A task moves where some row that was pretrained
here is above the best constant classifier by more than three standard errors of its dev set; the last column is the
mean over those tasks alone.
PLATEAU: the pretraining ended within 0.3 bits of the unigram entropy, in so many seeds."""
DIFFERENCES = """Score minus that of the row named, over the seeds that both have, with a 95 % interval by paired
bootstrap over the examples. It does not hold what other seeds would give. * = the interval does not
hold 0; of twenty intervals one does so by chance."""
COSTS = """Means over seeds. Valid: random masks of 15 %, all <mask>, the same for every row of a corpus. Own masks: the
training loss of the last epoch, on the masks that the row's own policy chose: rows do not compare. Entropies in nats,
of the last epoch, as the model that chose the masks saw them. FLOPs hold entropy passes and the teacher's predictions;
a static teacher's entropies are counted once, whoever computed them. Hours: training and validation; a static teacher's
entropies are on disk by then and not in them. The training of the teacher is in neither. Memory: the most that the
process held since it was last started (not the GPU's)."""


class Table(NamedTuple):
    title: str
    header: List[str]
    rows: List[List[str]]
    note: str


def tables_of(options, results):
    """All `Table`s, for each corruption three."""
    found = []
    for corruption in dict.fromkeys(result.corruption for result in results):
        own = [result for result in results if result.corruption == corruption]
        cells = cells_of(own)
        moves = moving(own, cells)
        found.append(scores(options, own, cells, moves, corruption))
        if any(baseline_of(own, result) for result in own):
            found.append(differences(own, cells, moves, corruption))
        found.append(costs(own, corruption))
    return found


def scores(options, results, cells, moves, corruption):
    header = ["row", "seeds", *cells, f"mean of {len(cells)}", f"mean of the {len(moves)} that move"]
    constants = [results[0].cells[name].constant(metric_of(results[0].cells[name])) for name in cells]
    rows = [["always the same answer", "", *map(percent, constants), percent(mean(constants)),
             means(constants, cells, moves)]]
    for result in results:
        values = [result.score(name) for name in cells]
        rows.append([label(result), seeds(result), *(score_cell(result, name) for name in cells), percent(mean(values)),
                     means(values, cells, moves)])
        paper = papers_scores(result, options.arch)
        if paper:
            known = [paper.get(name) for name in cells]
            whole = all(value is not None for value in known)
            rows.append([f"paper: {result.row.paper}", "2", *(paper_cell(name, paper) for name in cells),
                         percent(mean(known)) if whole else "", means(known, cells, moves) if whole else ""])
    said = "".join(f" The paper of {result.name}: {result.row.said}." for result in results if result.row.said)
    note = f"{one_line(SCORES)} Tasks that move here: {', '.join(moves) or 'none'}.{said}"
    return Table(f"Scores, {corruption}", header, rows, note)


def means(values, cells, moves):
    return percent(mean([value for value, name in zip(values, cells) if name in moves])) if moves else "–"


def score_cell(result, name):
    cell = result.cells[name]
    values = cell.values(metric_of(cell))
    spread = deviation(values)
    text = percent(mean(values)) + (f" ± {spread:.2f}" if spread is not None else "")
    constant = result.constant(name)
    if not constant:
        return text
    return text + (" CONST" if constant == len(values) else f" CONST {constant}/{len(values)}")


def paper_cell(name, paper):
    """A score that is to the last digit a constant classifier's is one."""
    if name not in paper:
        return ""
    return percent(paper[name]) + (" CONST" if is_constant(name, paper[name]) else "")


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
    header = ["row", "against", *cells, f"mean of {len(cells)}", f"mean of the {len(moves)} that move"]
    rows = []
    for result in results:
        baseline = baseline_of(results, result)
        if baseline is None:
            continue
        found, moved = comparison(result, baseline, cells), comparison(result, baseline, moves) if moves else {}
        if found:
            rows.append([label(result), baseline.name, *(with_interval(found.get(name)) for name in (*cells, "mean")),
                         with_interval(moved.get("mean"))])
    return Table(f"Differences, {corruption}", header, rows, one_line(DIFFERENCES))


def with_interval(found):
    if found is None:
        return "–"
    difference, low, high = found
    mark = "" if low <= 0 <= high else " *"
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"


def costs(results, corruption):
    header = ["row", "seeds", "updates", "tokens", "FLOPs", "hours", "memory, GB", "valid loss, bits",
              "valid accuracy", "own masks, bits", "entropy of the masks", "of the text", "remarks"]
    rows = []
    for result in with_pretraining(results):
        of = lambda name: mean([found[name] for found in result.pretrainings() if found[name] is not None])  # noqa: E731
        losses = [found["loss"] for found in result.pretrainings()]
        spread = deviation(losses)
        remarks = sorted({f"{what.replace('begins', 'never began')}" for found in result.pretrainings()
                          for what in found["never begun"]})
        rows.append([
            label(result), seeds(result), f"{of('updates'):,.0f}", f"{of('tokens') / 1e6:,.2f} M", f"{of('flops'):.3g}",
            f"{of('hours'):.3g}", f"{of('peak memory') / 2**30:.2f}",
            f"{mean(losses):.3f}" + (f" ± {spread:.3f}" if spread is not None else ""), f"{of('accuracy'):.1%}",
            f"{of('own loss'):.3f}", known(of("entropy of the masks")), known(of("entropy")), "; ".join(remarks)])
    unigrams = ", ".join(map(in_bits, plateaus(results))) or in_bits(None)
    note = f"{one_line(COSTS)} Unigram entropy of the training data: {unigrams}."
    return Table(f"Pretraining, {corruption}", header, rows, note)


def known(value):
    return "–" if value != value else f"{value:.2f}"


def percent(value):
    return f"{value:.2f}"


def one_line(text):
    return text.replace("\n", " ")


# ---- formats


def markdown(table):
    return "\n\n".join([f"## {table.title}", tabulate(table.rows, table.header, tablefmt="github",
                                                      disable_numparse=True), table.note])


def latex(table):
    """For pdflatex with booktabs; title and note are comments."""
    body = tabulate(table.rows, [name.replace("±", "+-") for name in table.header], tablefmt="latex_booktabs",
                    disable_numparse=True).replace("±", "$\\pm$").replace("–", "--")
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
