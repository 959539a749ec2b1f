"""How labels are written in the data, as ``data.columns.label`` of a recipe says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LabelForm", "read_form"]


@dataclass(frozen=True)
class LabelForm:
    """Where the labels are and how they are written.

    Attributes:
        columns: Names of the label columns; empty if they are inferred, or read from file names.
        several: Whether each class has a column of its own, which holds 0, 1 or a probability.
        separator: Text between the classes in a cell; None if a cell is one class.
        classes: Classes, in order, of cells that hold a list with a place for each; empty if the data declares them.
        empty: Meaning of an empty cell where classes are separated.
        normalize: Whether spellings that differ only in case, blanks, hyphens, Unicode form or trailing punctuation
            are one.
        pattern: Regular expression whose group is the class in a file's name; None if labels are in columns.
    """

    columns: tuple[str, ...] = ()
    several: bool = False
    separator: str | None = None
    classes: tuple[str, ...] = ()
    empty: Literal["missing", "none"] = "missing"
    normalize: bool = False
    pattern: str | None = None

    def written(self, **fields: str) -> str:
        """Write the recipe's line that would give this form other fields: ``columns: {label: {name: tags}}``.

        Args:
            fields: Further fields, as YAML.
        """
        names = {"name": self.columns[0]} if len(self.columns) == 1 else {}
        inner = ", ".join(f"{field}: {value}" for field, value in {**names, **fields}.items())
        return f"columns: {{label: {{{inner}}}}}"


def read_form(given: Any) -> LabelForm:
    """Read ``data.columns.label``: None, a name, a list of names, or a mapping with the fields of a recipe."""
    fields = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = fields.get("name")
    columns = tuple(name) if isinstance(name, list | tuple) else (name,) if name is not None else ()
    return LabelForm(
        columns=columns,
        several=isinstance(name, list | tuple),
        separator=fields.get("separator"),
        classes=tuple(fields.get("classes") or ()),
        empty=fields.get("empty", "missing"),
        normalize=fields.get("normalize", False),
        pattern=fields.get("pattern"),
    )
