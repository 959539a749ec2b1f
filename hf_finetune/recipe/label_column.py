"""Recipe fields for the source and the format of the labels: one column, several columns, or file names."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import NameOrNames, Pattern, Text, as_tuple

__all__ = ["LabelColumnSpec"]


class LabelColumnSpec(Part):
    """Where the labels are and how they are written: a column's name, a list of columns, or the fields below."""

    shorthand = "name"

    name: NameOrNames | None = Field(
        default=None,
        description="Column of the labels; a list of columns holds 0 or 1, or a probability, for the class that "
        "each is named after; null = inferred.",
    )
    source: Literal["name"] | None = Field(
        default=None,
        alias="from",
        description="name = the class stands in the file's name, where pattern says; null = in a column.",
    )
    pattern: Pattern | None = Field(
        default=None,
        description="Regular expression searched for in the file's name; its group is the class.",
    )
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="Text between the classes in a cell that holds several; null = a cell is one class.",
    )
    classes: tuple[Text, ...] | None = Field(
        default=None,
        description="Classes, in order, of cells that hold a list with a place for each class; null = as the "
        "data declares them.",
    )
    empty: Literal["missing", "none"] = Field(
        default="missing",
        description="Meaning of an empty cell where classes are separated: a missing label, or none of the classes.",
    )
    normalize: bool = Field(
        default=False,
        description="Whether spellings that differ only in case, blanks, hyphens, Unicode form or trailing punctuation "
        "are one class, called by the most frequent of them.",
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
