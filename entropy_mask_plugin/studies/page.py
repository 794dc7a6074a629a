"""All of a report in one HTML file that needs no other."""

import base64
import json
import os
from typing import Any, Dict, Sequence, Tuple

import jinja2

from ..reporting.table import Table
from .results import Result

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")


def page(title: str, facts: Sequence[str], cautions: Sequence[str], tables: Sequence[Table],
         pictures: Sequence[Tuple[str, str]], results: Sequence[Result]) -> str:
    """
    Args:
        title: of the page.
        facts: sentences.
        cautions: sentences.
        tables: in the order of the page.
        pictures: [(title, PNG file)].
        results: whose records are shown in full.
    Returns:
        HTML.
    """
    with open(TEMPLATE, encoding="utf-8") as file:
        template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(file.read())
    return template.render(
        kind_of=kind_of, title=title, facts=facts, cautions=cautions, tables=tables,
        pictures=[(name, encoded(file)) for name, file in pictures],
        records=[(f"{result.name}, {result.corruption}, seed {seed}", record_text(record)) for result in results
                 for seed, record in result.records.items()])


def kind_of(cell: str) -> str:
    """The CSS class of a cell."""
    if "COLLAPSED" in cell or "PLATEAU" in cell:
        return "marked"
    return ("below" if cell.startswith("-") else "above") if cell.endswith("*") else ""


def encoded(file: str) -> str:
    with open(file, "rb") as picture:
        return base64.b64encode(picture.read()).decode()


def record_text(record: Dict[str, Any]) -> str:
    """The commands as they can be copied, and what they ran on."""
    facts = {name: record["identity"][name] for name in ("commit", "data", "glue")}
    facts |= {step: {name: record[step][name] for name in ("machine", "versions", "threads")}
              for step in ("pretraining", "fine_tuning") if step in record}
    return "\n\n".join([*record["commands"], json.dumps(facts, indent=1)])
