"""A report of what a study has so far: report.html, .md, .csv, .tex and the pictures."""

import contextlib
import glob
import os

from ..system.atomic_files import write_text
from ..system.errors import UsageError
from ..training import plateau
from . import page, tables
from .curves import draw_curves, draw_drifts
from .identity import identity, refuse_another
from .plan import FINISHED, last_value
from .record import account
from .results import baseline_of, read_results, with_pretraining
from .rows import STUDIES


def write(options):
    """Write the report into the folder of the run.

    Returns:
        the Markdown.
    Raises:
        UsageError: no row is finished, or the folder is of another scale or data than the options.
    """
    refuse_another(options.out, {name: value for name, value in identity(options).items() if name != "commit"})
    results = read_results(options)
    title = f"{', '.join(options.studies)}: {options.arch}, scale {options.scale}"
    shown, pictures = tables.tables_of(options, results), draw(options, results)
    teacher = own_teacher(options)
    facts, cautions = facts_of(options, results, teacher), cautions_of(options, results, teacher)
    text = "\n\n".join([f"# {title}", *(f"- {fact}" for fact in facts), *(f"CAUTION: {each}" for each in cautions),
                        *map(tables.markdown, shown), *(f"![{name}]({os.path.basename(file)})" for name, file in
                                                        pictures)]).replace("\n\n- ", "\n- ") + "\n"
    contents = {
        "md": text, "csv": tables.comma_separated(options, results), "tex": "\n".join(map(tables.latex, shown)),
        "html": page.page(title, facts, cautions, shown, pictures, results),
    }
    for ending, content in contents.items():
        write_text(options.path(f"report.{ending}"), content)
    return f"{text}\nreport: {options.path('report.html')}"


def draw(options, results):
    """[(title, file)] of the pictures."""
    found = []
    for corruption in dict.fromkeys(result.corruption for result in results):
        own = [result for result in results if result.corruption == corruption]
        file = options.path(f"curves-{corruption}.png")
        if draw_curves(own, file):
            found.append((f"Curves, {corruption}", file))
        for result in own if "drift" in options.studies else ():
            if result.name in STUDIES["drift"]:
                file = options.path(f"drift-{result.name}-{corruption}.png")
                draw_drifts(result, file)
                found.append((f"What fine-tuning moved: {result.name}, {corruption}", file))
    return found


def facts_of(options, results, teacher=None):
    """Sentences. teacher: the `account` of one that was trained here."""
    records = [record for result in results for record in result.records.values()]
    steps = [record[step] for record in records for step in ("pretraining", "fine-tuning") if step in record]
    shards = max(len(corpus.split(":")) for corpus in options.data)
    training = sum(found["hours"] for result in with_pretraining(results) for found in result.pretrainings())
    return [
        f"machine: {'; '.join(sorted({step['machine'] for step in steps}))}",
        f"seeds {', '.join(map(str, options.seeds))}; {len(records)} of "
        f"{len(options.rows()) * len(options.seeds) * len(options.corruptions)} rows and seeds finished; their "
        f"pretraining took {training:.2f} hours",
        f"blocks of {options.sizes.length} tokens, {options.sizes.batch[options.arch]} a batch, {options.epochs} "
        f"epochs{f', each of one of {shards} shards' if shards > 1 else ''}; fine-tuning: {options.sizes.tuning}",
        *([f"further flags of all pretrainings: {' '.join(options.more)}"] if options.more else []),
        f"commit: {'; '.join(sorted({str(record['identity']['commit']) for record in records}))}",
        "versions: " + "; ".join(sorted({", ".join(f"{name} {version}" for name, version in step["versions"].items())
                                         for step in steps})),
        *unshown(options, records),
        "teacher: " + (options.teacher or "trained here, with random masks and 80/10/10")
        + (f", to {teacher['loss']:.2f} bits, {teacher['accuracy']:.1%} on the validation masks" if teacher else ""),
    ]


def own_teacher(options):
    """The account of the teacher that was trained here; None where it was not, or its files are no longer there."""
    if options.teacher is None and os.path.exists(options.path("teacher", FINISHED)):
        with contextlib.suppress(UsageError):  # records outlive the checkpoints and the corpus
            return account(options.path("teacher"))


def unshown(options, records):
    """A sentence where the folder holds more than these rows, seeds and corruptions."""
    count = len(glob.glob(os.path.join(glob.escape(options.out), "*", "*", "seed*", "record.json"))) - len(records)
    more = f"{count} more records are in the folder: name their rows, seeds or corruptions to have them here"
    return [more] if count else []


def cautions_of(options, results, teacher=None):
    found = []
    if options.scale == "smoke":
        found.append("Scale smoke shows that everything works. Its figures mean nothing.")
    commits = {record["identity"]["commit"] for result in results for record in result.records.values()}
    if len(commits) > 1:
        found.append("The records are of several commits.")
    trained = [result for result in with_pretraining(results) if result.trains()]
    stuck = [f"{result.name} ({result.corruption})" for result in trained if result.on_plateau()]
    if stuck:
        found.append(f"{len(stuck)} of {len(trained)} pretrained rows ended on the unigram plateau in some seed: "
                     f"{', '.join(stuck)}. Their loss on random masks is not {plateau.MARGIN} bits below that of token "
                     "frequencies alone.")
    if teacher and plateau.is_on_plateau(teacher["loss"], teacher["unigram entropy"]):
        found.append("The teacher ended on the unigram plateau: its entropies hardly depend on the text.")
    limit = last_value(options.sizes.tuning.split(), "--limit")
    if limit:
        found.append(f"Of each of GLUE's files the first {int(limit[1]):,} rows were read, of dev sets too: where that "
                     "is less than all, the paper's scores are of other examples.")
    absent = sorted({f"{result.row.against} ({result.corruption})" for result in results
                     if baseline_of(results, result) is None and result.row.against != result.name})
    if absent:
        found.append(f"Not among the rows: {', '.join(absent)}. Nothing is compared with it.")
    never = [f"{result.name} ({result.corruption})" for result in trained
             if any(found["never begun"] for found in result.pretrainings())]
    if never:
        found.append(f"These runs ended before self-masking or distillation began: {', '.join(never)}.")
    return found
