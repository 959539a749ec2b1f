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
    Moment,
    NonEmptyText,
    Separator,
    Workers,
)
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.label_column import LabelColumnSpec
from hf_finetune.recipe.modality_fields import DataFields, RoleFields
from hf_finetune.recipe.rules import HELD_OUT_FRACTION
from hf_finetune.targets import TARGETS

__all__ = ["ColumnsSpec", "DataSource", "DataSpec", "LabelColumnSpec", "SplitSpec", "TargetName"]

TargetName = Annotated[str, RegisteredName(TARGETS, "auto")]


class ColumnsSpec(RoleFields):
    """Names of the columns of the data; missing ones are inferred."""

    label: LabelColumnSpec | None = Field(
        default=None,
        description="Column of the labels; or a list of columns, one per class; or a mapping of the fields below; "
        "null = inferred.",
    )
    weight: NonEmptyText | None = Field(
        default=None,
        description="Column of the weight of each training example in the loss, a non-negative number; null = "
        "equal weights.",
    )
    time: NonEmptyText | None = Field(
        default=None,
        description="Column of the time of each example, or of each event, in ISO 8601 such as 2024-05-31 or "
        "2024-05-31T12:30, for data.split.time; null = a column named time, date, datetime or timestamp.",
    )
    group: NonEmptyText | None = Field(
        default=None,
        description="Column that identifies the group of each example; alias of data.split.group: if both are set, "
        "they must be equal; null = none.",
    )
    split: NonEmptyText | None = Field(
        default="auto",
        description="Column with the name of each example's split; auto = a column that contains only names of "
        "splits, train and another one among them; null = no split column.",
    )


class SplitSpec(Part):
    """Random splits for data without a validation or test split; groups; cross-validation."""

    validation: float = Field(
        default=HELD_OUT_FRACTION,
        ge=0,
        lt=1,
        description="Fraction of the train split that becomes the validation split if the data has none; 0 = no "
        "validation split.",
    )
    test: float = Field(
        default=HELD_OUT_FRACTION,
        ge=0,
        lt=1,
        description="Fraction of the train split that becomes the test split if the data has none; 0 = no test "
        "split.",
    )
    merge_validation: bool = Field(
        default=False,
        description="Whether the examples of the validation split, given or created, become training examples; the "
        "test split is the same. For a final model whose number of epochs is known.",
    )
    stratify: bool = Field(
        default=True,
        description="Whether each split keeps the proportions of the classes; each class then contributes its "
        "fraction, rounded, but at least one example.",
    )
    group: NonEmptyText | None = Field(
        default=None,
        description="Column that identifies the group of each example; all examples of a group are in the same "
        "split; null = no groups.",
    )
    time: Moment | None = Field(
        default=None,
        description="Date or time in ISO 8601, such as 2024-05-31: examples from then on become the test split, and "
        "earlier ones the training and validation splits; null = no division by time.",
    )
    fold: FoldText | None = Field(
        default=None,
        description="Cross-validation fold to hold out in place of the test split, as K/N, counted from 1; null = "
        "no cross-validation.",
    )


class DataSource(Part):
    """Location and format of labeled data."""

    shorthand = "path"

    path: Location = Field(
        description="Hub id, saved dataset, table (csv, tsv, json, jsonl, parquet, xlsx), or folder: class folders, "
        "tables, or images with metadata."
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
        description="Separator of the cells of text files: the character, or its name (comma, semicolon, tab, "
        "pipe); null = detected.",
    )
    decimal: Literal[".", ","] | None = Field(
        default=None, description="Decimal mark of numbers in text files; null = detected."
    )
    nested: Literal["join", "top"] | None = Field(
        default=None,
        description="Class of a file in nested class folders: join = the names of all nested folders, such as "
        "animals/cat; top = the name of the outermost folder, such as animals; null = nested class folders "
        "are an error.",
    )
    columns: ColumnsSpec = Field(
        default=ColumnsSpec(), description="Names of the columns; missing ones are inferred."
    )
    split: SplitSpec = Field(
        default=SplitSpec(),
        description="Sizes of missing splits; groups; cross-validation.",
    )
    target: TargetName = Field(
        default="auto",
        description="Label type, named target as in scikit-learn: single_label = one class per example; multi_label = "
        "any number of classes per example; regression = a number; transcript = the words that are spoken; relevance = "
        "how well a candidate answers its query; auto = inferred from the label column.",
    )


class DataSpec(DataFields, DataSource):
    """Labeled data."""

    augment: AugmentSpec = Field(
        default=AugmentSpec(),
        description="Augmentation of the training examples; {} = preset standard for images, none for others; "
        "validation and test examples are not augmented.",
    )
    on_error: Literal["fail", "skip"] = Field(
        default="fail",
        description="Handling of unusable and unlabeled examples: fail = an error; skip = they are removed before "
        "the data is split, and listed in a note.",
    )
    limit: Count | None = Field(
        default=None, description="Maximum number of examples of each split, for a quick trial; null = all."
    )
    workers: Workers = Field(
        default="auto",
        description="Number of data loader processes; 0 = batches are prepared in the main process; auto = if "
        "training on a GPU, the number of CPU cores per process minus 1 (from 1 to 8), else 0.",
    )
    group_by_length: bool = Field(
        default=True, description="Whether the texts of a batch have similar numbers of tokens."
    )
