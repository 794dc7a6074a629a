"""One table in every format: for people (Markdown, LaTeX) and for programs (CSV)."""

import csv
import io
from typing import Any, Dict, List, NamedTuple, Sequence

from tabulate import tabulate

LATEX = {"±": "$\\pm$", "–": "--", "Δ": "difference"}  # pdflatex has no glyphs for these


class Table(NamedTuple):
    """
    title: above it; "" = none.
    header: words for people, or snake_case keys where the table is written as CSV.
    rows: cells, each as long as the header; text for people, or values.
    note: below it; "" = none.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def markdown(self, align: Sequence[str] = ()) -> str:
        """GitHub's, without a line end behind it. align: "left" or "right" for each column; () = all left."""
        body = tabulate(self.rows, self.header, tablefmt="github", disable_numparse=True, colalign=align or None)
        return "\n\n".join(part for part in (f"## {self.title}" if self.title else "", body, self.note) if part)

    def latex(self) -> str:
        """For pdflatex with booktabs; title and note are comments."""
        body = tabulate(self.rows, self.header, tablefmt="latex_booktabs", disable_numparse=True)
        for character, command in LATEX.items():
            body = body.replace(character, command)
        comments = [line for line in (self.title, *self.note.split("\n")) if line]
        return "".join(f"% {line}\n" for line in comments) + body + "\n"

    def csv(self) -> str:
        """Header and rows; None is an empty cell."""
        file = io.StringIO()
        csv.writer(file).writerows([self.header, *self.rows])
        return file.getvalue()


def table_of_records(records: Sequence[Dict[str, Any]]) -> Table:
    """Their keys as columns, in the order in which they come up; None where a record lacks one."""
    header: List[str] = list(dict.fromkeys(key for record in records for key in record))
    return Table("", header, [[record.get(key) for key in header] for record in records])
