"""Format of the labels in the data, as declared by ``data.columns.label`` of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LabelForm", "parse_label_form"]


@dataclass(frozen=True)
class LabelForm:
    """Location and format of the labels.

    Attributes:
        columns: Names of the label columns; empty if they are inferred, or if labels are in file names.
        one_column_per_class: Whether each class has a separate column, with 0, 1 or a probability.
        separator: Text between the classes in a cell; None if a cell contains one class.
        classes: Class names, in order, of cells with a list of one value per class; empty if the data declares
            them.
        empty: Meaning of an empty cell where cells have a separator: a missing label, or none of the classes.
        normalize: Whether spellings that differ only in case, white space, hyphens, Unicode form or trailing
            punctuation are merged into one class.
        pattern: Regular expression whose group is the class in a file name; None if labels are in columns.
    """

    columns: tuple[str, ...] = ()
    one_column_per_class: bool = False
    separator: str | None = None
    classes: tuple[str, ...] = ()
    empty: Literal["missing", "none"] = "missing"
    normalize: bool = False
    pattern: str | None = None

    def as_recipe_field(self, **fields: str) -> str:
        """Return the line of a recipe that declares this format with additional fields.

        Args:
            fields: Additional fields, as YAML.

        Returns:
            YAML such as ``columns: {label: {name: tags, separator: ","}}``.
        """
        names = {"name": self.columns[0]} if len(self.columns) == 1 else {}
        inner = ", ".join(f"{field}: {value}" for field, value in {**names, **fields}.items())
        return f"columns: {{label: {{{inner}}}}}"


def parse_label_form(value: Any) -> LabelForm:
    """Parse ``data.columns.label``: None, a name, a list of names, or a mapping with the fields of a recipe.

    Args:
        value: Value of ``data.columns.label``: None, a name, a list of names, or a mapping.

    Returns:
        The format; its defaults for fields that are not set.
    """
    fields = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = fields.get("name")
    columns = tuple(name) if isinstance(name, list | tuple) else (name,) if name is not None else ()
    return LabelForm(
        columns=columns,
        one_column_per_class=isinstance(name, list | tuple),
        separator=fields.get("separator"),
        classes=tuple(fields.get("classes") or ()),
        empty=fields.get("empty", "missing"),
        normalize=fields.get("normalize", False),
        pattern=fields.get("pattern"),
    )
