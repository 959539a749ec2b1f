"""HTML page of original examples and their views, as texts."""

from collections.abc import Sequence
from html import escape

from hf_finetune.tasks.examples import PreviewRow

__all__ = ["text_page"]

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
    columns = max((len(row.views) for row in rows), default=0)
    headings = ["label", "original", *(f"epoch {number}" for number in range(1, columns + 1))]
    lines = [[row.label, row.original, *row.views] for row in rows]
    return PAGE.format(
        title=escape(title),
        headings="".join(f"<th>{escape(heading)}</th>" for heading in headings),
        rows="\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
        ),
    )
