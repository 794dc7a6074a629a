"""All of a report in one HTML file that needs no other."""

import base64
import json
import os

import jinja2

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")


def page(title, facts, cautions, tables, pictures, results):
    """
    Args:
        facts, cautions: sentences.
        tables: list of `tables.Table`.
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
        records=[(f"{result.name}, {result.corruption}, seed {seed}", lines_of(record)) for result in results
                 for seed, record in result.records.items()])


def kind_of(cell):
    """How a cell is coloured."""
    if "CONSTANT" in cell or "PLATEAU" in cell:
        return "marked"
    return ("below" if cell.startswith("-") else "above") if cell.endswith("*") else ""


def encoded(file):
    with open(file, "rb") as picture:
        return base64.b64encode(picture.read()).decode()


def lines_of(record):
    """The commands as they can be copied, and what they ran on."""
    known = {name: record["identity"][name] for name in ("commit", "data", "glue")}
    known |= {step: {name: record[step][name] for name in ("machine", "versions", "threads")}
              for step in ("pretraining", "fine-tuning") if step in record}
    return "\n\n".join([*record["commands"], json.dumps(known, indent=1)])
