"""Recipe fields for the data. Each field description states the meaning and the unit."""

from typing import Annotated, Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.registry import RegisteredName
from hf_finetune.fields.types import (
    Count,
    Encoding,
    FoldText,
    Location,
    NonEmptyText,
    Separator,
    Workers,
)
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.label_column import LabelColumnSpec
from hf_finetune.recipe.modality_fields import DataFields, RoleFields
from hf_finetune.recipe.rules import HELD_OUT
from hf_finetune.targets import TARGETS

__all__ = ["ColumnsSpec", "DataSource", "DataSpec", "LabelColumnSpec", "SplitSpec", "TargetName"]

TargetName = Annotated[str, RegisteredName(TARGETS, "auto")]


class ColumnsSpec(RoleFields):
    """Names of the columns of the data; columns that are left out are inferred."""

    label: LabelColumnSpec | None = Field(
        default=None,
        description="Column of the labels, a list of columns with one class each, or its fields; null = inferred.",
    )
    weight: NonEmptyText | None = Field(
        default=None,
        description="Column of the weight of each training example in the loss, a non-negative number; null = "
        "equal weights.",
    )
    group: NonEmptyText | None = Field(
        default=None,
        description="Column that identifies the group of each example, the same as data.split.group; null = none.",
    )
    split: NonEmptyText | None = Field(
        default="auto",
        description="Column with the name of each example's split; auto = a column that contains only names of "
        "splits; null or none = no such column is used.",
    )


class SplitSpec(Part):
    """How validation and test splits are made where the source has none."""

    validation: float = Field(
        default=HELD_OUT,
        ge=0,
        lt=1,
        description="Fraction of the examples that becomes the validation split if the data has none; 0 = no such "
        "split.",
    )
    test: float = Field(
        default=HELD_OUT,
        ge=0,
        lt=1,
        description="Fraction of the examples that becomes the test split if the data has none; 0 = no such "
        "split.",
    )
    stratify: bool = Field(
        default=True, description="Whether each split keeps the proportions of the classes."
    )
    group: NonEmptyText | None = Field(
        default=None,
        description="Column that identifies the group of each example; all examples of a group are in the same "
        "split; null = no groups.",
    )
    fold: FoldText | None = Field(
        default=None,
        description="Fold of a cross-validation that is the test split, as K/N: the K-th of N; null = no "
        "cross-validation.",
    )


class DataSource(Part):
    """Where labelled data is, and how it is read."""

    shorthand = "path"

    path: Location = Field(
        description="Hub id, folder (of class folders, tables, or images with metadata), table (csv, tsv, json, "
        "jsonl, parquet, xlsx), or saved dataset."
    )
    config: NonEmptyText | None = Field(
        default=None, description="Configuration of the dataset on the Hub; null = its default."
    )
    revision: NonEmptyText | None = Field(
        default=None, description="Branch, tag or commit of the dataset on the Hub; null = the main branch."
    )
    encoding: Encoding | None = Field(
        default=None, description="Encoding of text files, by its name in Python; null = detected."
    )
    separator: Separator | None = Field(
        default=None,
        description="Character between the cells of text files, or comma, semicolon, tab or pipe; null = "
        "detected.",
    )
    decimal: Literal[".", ","] | None = Field(
        default=None, description="Decimal mark of numbers in text files; null = detected."
    )
    nested: Literal["join", "top"] | None = Field(
        default=None,
        description="Class of a file in nested class folders: join = the names of all of them, such as "
        "animals/cat; top = the name of the outermost one, such as animals; null = nested class "
        "folders are an error.",
    )
    columns: ColumnsSpec = Field(
        default=ColumnsSpec(), description="Names of the columns; those that are left out are inferred."
    )
    split: SplitSpec = Field(
        default=SplitSpec(),
        description="Fractions of the splits that the data lacks; groups; cross-validation.",
    )
    target: TargetName = Field(
        default="auto",
        description="Kind of labels: single_label = one class per example; multi_label = any number of classes "
        "per example; regression = a number; auto = inferred from the label column.",
    )


class DataSpec(DataFields, DataSource):
    """Labeled data."""

    augment: AugmentSpec = Field(
        default=AugmentSpec(),
        description="Augmentation of the training examples: a preset, or its fields; validation and test examples "
        "are not augmented.",
    )
    on_error: Literal["fail", "skip"] = Field(
        default="fail",
        description="Handling of unusable and unlabeled examples: fail = an error; skip = they are left out "
        "before splits are cut, and listed in a note.",
    )
    limit: Count | None = Field(
        default=None, description="Maximum number of examples of each split, for a quick trial; null = all."
    )
    workers: Workers = Field(
        default="auto",
        description="Number of data loader processes; 0 = batches are prepared in the main process; auto = by the "
        "number of cores on a GPU (8 at most), 0 on a CPU.",
    )
    group_by_length: bool = Field(
        default=True, description="Whether the texts of a batch have similar numbers of tokens."
    )
