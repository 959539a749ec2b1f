"""HTML page of original examples and their views."""

from collections.abc import Sequence
from html import escape

from hf_finetune.tasks.examples import PreviewRow

__all__ = ["cells_page", "text_page"]

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; table-layout: fixed; width: 100%; }}
th, td {{ border: 1px solid #ccc; padding: .5em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }}
</style>
<h1>{title}</h1>
<table>
<tr>{headings}</tr>
{rows}
</table>
"""


def text_page(rows: Sequence[PreviewRow], title: str) -> str:
    """Return an HTML page with a row for each example: label, original, and the views decoded from tokens."""
    return cells_page([[*map(escape, [row.label, row.original, *row.views])] for row in rows], title)


def cells_page(lines: Sequence[Sequence[str]], title: str) -> str:
    """Return an HTML page with a table row for each example.

    Args:
        lines: HTML of the cells of each example: label, original, and a view for each epoch.
        title: Title of the page, as text.
    """
    columns = max(map(len, lines), default=2) - 2
    headings = ["label", "original", *(f"epoch {number}" for number in range(1, columns + 1))]
    return PAGE.format(
        title=escape(title),
        headings="".join(f"<th>{heading}</th>" for heading in headings),
        rows="\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines),
    )
