"""Examples of loaded data before their columns are chosen: joined from several rows, and divided by time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_finetune.data.load import Source
from hf_finetune.data.split_time import divide_by_time
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.tasks import Modality

__all__ = ["examples_of_rows"]


def examples_of_rows(
    source: Source, modality: Modality, spec: DataFields, *, divides: bool = True
) -> tuple[Source, dict[str, Any], Mapping[str, str]]:
    """Join rows to examples, where the modality does that, and divide the examples by time, if the recipe does.

    Args:
        source: Loaded data.
        modality: Kind of input.
        spec: Data of a recipe.
        divides: Whether rows that are examples are divided by time; joined ones always are.

    Returns:
        The examples; their column names by role, as in a recipe; and the columns of the rows by role, empty if each row
        is an example.

    Raises:
        InputError: If the rows cannot be joined or divided.
    """
    columns = spec.columns.model_dump()
    joined = modality.join_rows(source.splits, columns, spec)
    time, sources = columns["time"], dict[str, str]()
    if joined is not None:
        source = replace(source, splits=joined.splits, notes=(*source.notes, *joined.notes))
        columns = {**dict.fromkeys(columns), **joined.columns}
        time, sources = joined.time, dict(joined.sources)
    if spec.split.time is not None and (divides or joined is not None):
        source = divide_by_time(source, time, spec.split.time)
    return source, columns, sources
