"""A report of what a study has finished so far: report.html, .md, .csv, .tex and the pictures."""

import contextlib
import glob
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..system.atomic_files import write_text
from ..system.errors import UsageError
from ..training import plateau
from . import page, tables
from .conditions import STUDIES
from .curves import draw_loss_curves, draw_pairs_curves, draw_result_drift
from .identity import identity, refuse_another
from .options import StudyOptions
from .plan import FINISHED, last_value
from .record import account
from .results import Result, baseline_of, read_results, with_pretraining


def write_study_report(options: StudyOptions) -> str:
    """Write the report into the folder of the run.

    Returns:
        the Markdown.
    Raises:
        UsageError: no trial is finished, or the folder is of another scale or data than the options.
    """
    refuse_another(options.out, {name: value for name, value in identity(options).items() if name != "commit"})
    results = read_results(options)
    title = f"{', '.join(options.studies)}: {options.arch}, scale {options.scale}"
    all_tables, pictures = tables.tables_of(options, results), draw_pictures(options, results)
    teacher = own_teacher(options)
    facts, cautions = facts_of(options, results, teacher), cautions_of(options, results, teacher)
    text = "\n\n".join([f"# {title}", *(f"- {fact}" for fact in facts), *(f"CAUTION: {each}" for each in cautions),
                        *(table.markdown() for table in all_tables),
                        *(f"![{name}]({os.path.basename(file)})" for name, file in pictures)])
    text = text.replace("\n\n- ", "\n- ") + "\n"
    contents = {
        "md": text, "csv": tables.score_rows(options, results).csv(),
        "tex": "\n".join(table.latex() for table in all_tables),
        "html": page.page(title, facts, cautions, all_tables, pictures, results),
    }
    for ending, content in contents.items():
        write_text(options.path(f"report.{ending}"), content)
    return f"{text}\nreport: {options.path('report.html')}"


def draw_pictures(options: StudyOptions, results: Sequence[Result]) -> List[Tuple[str, str]]:
    """[(title, file)] of the pictures."""
    pictures = []
    for corruption in dict.fromkeys(result.corruption for result in results):
        own = [result for result in results if result.corruption == corruption]
        for title, name, draw in (("Curves", "curves", draw_loss_curves),
                                  ("Minimal pairs", "pairs", draw_pairs_curves)):
            file = options.path(f"{name}-{corruption}.png")
            if draw(own, file):
                pictures.append((f"{title}, {corruption}", file))
        for result in own if "drift" in options.studies else ():
            if result.name in STUDIES["drift"]:
                file = options.path(f"drift-{result.name}-{corruption}.png")
                draw_result_drift(result, file)
                pictures.append((f"What fine-tuning moved: {result.name}, {corruption}", file))
    return pictures


def facts_of(options: StudyOptions, results: Sequence[Result], teacher: Optional[Dict[str, Any]] = None) -> List[str]:
    """Sentences. teacher: the `account` of one that was trained here."""
    records = [record for result in results for record in result.records.values()]
    steps = [record[step] for record in records for step in ("pretraining", "fine_tuning") if step in record]
    shards = max(len(corpus.split(":")) for corpus in options.data)
    training = sum(pretraining["hours"] for result in with_pretraining(results)
                   for pretraining in result.pretrainings())
    return [
        f"machine: {'; '.join(sorted({step['machine'] for step in steps}))}",
        f"seeds {', '.join(map(str, options.seeds))}; {len(records)} of "
        f"{len(options.conditions) * len(options.seeds) * len(options.corruptions)} trials finished; their "
        f"pretraining took {training:.2f} hours",
        f"blocks of {options.sizes.length} tokens, {options.sizes.batch[options.arch]} a batch, {options.epochs} "
        f"epochs{f', each of one of {shards} shards' if shards > 1 else ''}; fine-tuning: {options.sizes.tuning}",
        *([f"further flags of all pretrainings: {' '.join(options.extra_args)}"] if options.extra_args else []),
        f"commit: {'; '.join(sorted({str(record['identity']['commit']) for record in records}))}",
        "versions: " + "; ".join(sorted({", ".join(f"{name} {version}" for name, version in step["versions"].items())
                                         for step in steps})),
        *unreported(options, records),
        "teacher: " + (options.teacher or "trained here, with random masks and 80/10/10") + teacher_loss(teacher),
    ]


def teacher_loss(teacher: Optional[Dict[str, Any]]) -> str:
    if teacher is None:
        return ""
    return f", to {teacher['loss_bits']:.2f} bits, {teacher['accuracy']:.1%} on the validation masks"


def own_teacher(options: StudyOptions) -> Optional[Dict[str, Any]]:
    """The account of the teacher that was trained here; None where it was not, or its files are no longer there."""
    if options.teacher is None and os.path.exists(options.path("teacher", FINISHED)):
        with contextlib.suppress(UsageError):  # records outlive the checkpoints and the corpus
            return account(options.path("teacher"))


def unreported(options: StudyOptions, records: Sequence[Dict[str, Any]]) -> List[str]:
    """A sentence where the folder holds more than these conditions, seeds and corruptions."""
    count = len(glob.glob(os.path.join(glob.escape(options.out), "*", "*", "seed*", "record.json"))) - len(records)
    sentence = f"{count} more records are in the folder: name their rows, seeds or corruptions to have them here"
    return [sentence] if count else []


def cautions_of(options: StudyOptions, results: Sequence[Result],
                teacher: Optional[Dict[str, Any]] = None) -> List[str]:
    """Sentences about what the tables cannot show."""
    cautions = []
    if options.scale == "smoke":
        cautions.append("Scale smoke shows that everything works. Its figures mean nothing.")
    commits = {record["identity"]["commit"] for result in results for record in result.records.values()}
    if len(commits) > 1:
        cautions.append("The records are of several commits.")
    trained = [result for result in with_pretraining(results) if result.trains()]
    stuck = [f"{result.name} ({result.corruption})" for result in trained if result.on_plateau()]
    if stuck:
        cautions.append(f"{len(stuck)} of {len(trained)} pretrained conditions ended on the unigram plateau in some "
                        f"seed: {', '.join(stuck)}. Their loss on random masks is not {plateau.MARGIN} bits below that "
                        "of token frequencies alone.")
    if teacher and plateau.is_on_plateau(teacher["loss_bits"], teacher["unigram_entropy_bits"]):
        cautions.append("The teacher ended on the unigram plateau: its entropies hardly depend on the text.")
    limit = last_value(options.sizes.tuning.split(), "--limit")
    if limit:
        cautions.append(f"Of each of GLUE's files the first {int(limit[1]):,} rows were read, of dev sets too: where "
                        "that is less than all, the paper's scores are of other examples.")
    absent = sorted({f"{result.condition.baseline} ({result.corruption})" for result in results
                     if baseline_of(results, result) is None and result.condition.baseline != result.name})
    if absent:
        cautions.append(f"Not among the conditions: {', '.join(absent)}. Nothing is compared with it.")
    never = [f"{result.name} ({result.corruption})" for result in trained
             if any(pretraining["events_not_reached"] for pretraining in result.pretrainings())]
    if never:
        cautions.append(f"These runs ended before self-masking or distillation began: {', '.join(never)}.")
    return cautions
