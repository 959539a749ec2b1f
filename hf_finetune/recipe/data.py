"""Recipe fields for the data. Each field description states the meaning and the unit."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import (
    Count,
    Encoding,
    FoldText,
    Location,
    Separator,
    Text,
    Workers,
)
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.label_column import LabelColumnSpec
from hf_finetune.recipe.modality_fields import DataFields, RoleFields
from hf_finetune.recipe.rules import HELD_OUT
from hf_finetune.targets import TARGETS

__all__ = ["ColumnsSpec", "DataSource", "DataSpec", "LabelColumnSpec", "SplitSpec", "TargetName"]

if TYPE_CHECKING:
    TargetName = str
else:
    TargetName = Literal[("auto", *TARGETS)]


class ColumnsSpec(RoleFields):
    """Names of the columns of the data; columns that are left out are inferred."""

    label: LabelColumnSpec | None = Field(
        default=None,
        description="Column of the labels, a list of columns with one class each, or its fields; null = inferred.",
    )
    weight: Text | None = Field(
        default=None,
        description="Column of each training example's weight in the loss, a number from 0 on (no unit); "
        "null = all count alike.",
    )
    group: Text | None = Field(
        default=None, description="Column of what must not be split, as data.split.group; null = none."
    )
    split: Text | None = Field(
        default="auto",
        description="Column with the split of each example; auto = a column that holds only "
        "names of splits; null or none = the column is not used.",
    )


class SplitSpec(Part):
    """How validation and test splits are made where the source has none."""

    validation: float = Field(
        default=HELD_OUT,
        ge=0,
        lt=1,
        description="Fraction of the examples held out for validation; 0 = none.",
    )
    test: float = Field(
        default=HELD_OUT, ge=0, lt=1, description="Fraction of the examples held out for the test; 0 = none."
    )
    stratify: bool = Field(
        default=True, description="Whether each split keeps the proportions of the classes."
    )
    group: Text | None = Field(
        default=None, description="Column whose equal values stay in one split; null = none."
    )
    fold: FoldText | None = Field(
        default=None,
        description="Part K of N of a cross-validation, as K/N, that is held out as the test; null = none.",
    )


class DataSource(Part):
    """Where labelled data is, and how it is read."""

    shorthand = "path"

    path: Location = Field(
        description="Hub id, folder of class folders, csv, tsv, json, jsonl, parquet or xlsx file, or saved dataset."
    )
    config: Text | None = Field(
        default=None, description="Configuration of the Hub dataset; null = its default."
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the Hub; null = the main branch."
    )
    encoding: Encoding | None = Field(
        default=None, description="Encoding of text files, as Python names it; null = recognized."
    )
    separator: Separator | None = Field(
        default=None,
        description="Character between the cells of a row of text files, or comma, semicolon, tab or pipe; "
        "null = recognized.",
    )
    decimal: Literal[".", ","] | None = Field(
        default=None, description="Decimal mark of numbers in text files; null = recognized."
    )
    nested: Literal["join", "top"] | None = Field(
        default=None,
        description="Class of a file in nested class folders: join = the names of all of them, as animals/cat; "
        "top = the outermost one's; null = nested class folders are refused.",
    )
    columns: ColumnsSpec = Field(default=ColumnsSpec(), description="Names of the columns.")
    split: SplitSpec = Field(default=SplitSpec(), description="Fractions of the splits made where missing.")
    target: TargetName = Field(
        default="auto",
        description="A label is one class, a list of classes, or a number; auto = told from the column.",
    )


class DataSpec(DataFields, DataSource):
    """The labelled data."""

    augment: AugmentSpec = Field(
        default=AugmentSpec(), description="How training examples are varied: a preset's name, or its fields."
    )
    on_error: Literal["fail", "skip"] = Field(
        default="fail", description="What to do about unreadable examples."
    )
    limit: Count | None = Field(
        default=None, description="Number of examples used of each split; null = all."
    )
    workers: Workers = Field(
        default="auto",
        description="Number of processes that prepare batches; 0 = the main process; "
        "auto = as the cores allow on a GPU, else 0.",
    )
    group_by_length: bool = Field(
        default=True, description="Whether a batch is made of texts of about as many tokens."
    )
