"""Recipe fields for the source and the format of the labels: one column, several columns, or file names."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import NameOrNames, NonEmptyText, Pattern, as_tuple

__all__ = ["LabelColumnSpec"]


class LabelColumnSpec(Part):
    """Source and format of the labels: a column's name, a list of columns, or the fields below."""

    shorthand = "name"

    name: NameOrNames | None = Field(
        default=None,
        description="Column of the labels; or a list of columns with 0 or 1, or a probability, one column per "
        "class; null = inferred.",
    )
    source: Literal["name"] | None = Field(
        default=None,
        alias="from",
        description="Source of the labels: name = extracted from file names with pattern; null = read from a "
        "column.",
    )
    pattern: Pattern | None = Field(
        default=None,
        description="Regular expression that is searched for in each file name, including its suffix; its "
        "capturing group is the class; null = none.",
    )
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="Separator of the classes in a cell; null = each cell is one class.",
    )
    classes: tuple[NonEmptyText, ...] | None = Field(
        default=None,
        description="Class names, in order, for cells that contain a list with one position per class; null = the "
        "names that the data declares.",
    )
    empty: Literal["missing", "none"] = Field(
        default="missing",
        description="Meaning of an empty cell if separator is set: missing = a missing label; none = an example "
        "that belongs to no class.",
    )
    normalize: bool = Field(
        default=False,
        description="Whether spellings that differ only in case, spaces, hyphens, Unicode form or trailing "
        "punctuation are one class, named by the most frequent spelling.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_lists(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {"name": tuple(value)}
        if isinstance(value, Mapping):
            return {name: as_tuple(entry) for name, entry in value.items()}
        return value

    @model_serializer(mode="plain")
    def _write(self) -> Any:
        """Serialize the fields that differ from their defaults; if only ``name`` does, as the bare name."""
        fields = {
            field.alias or name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.default
        }
        return fields["name"] if fields.keys() == {"name"} else fields
