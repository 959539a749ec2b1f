"""Examples of loaded data before their columns are chosen: joined from several rows, and divided by time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_finetune.data.load import Source
from hf_finetune.data.split_time import divide_by_time
from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.tasks import Modality
from hf_finetune.tasks.examples import JoinedRows

__all__ = ["examples_of_rows"]


def examples_of_rows(
    source: Source,
    modality: Modality,
    spec: DataFields,
    *,
    named: Mapping[str, str] | None = None,
    divides: bool = True,
) -> tuple[Source, dict[str, Any], Mapping[str, str]]:
    """Join rows to examples, where the modality does that, and divide the examples by time, if the recipe does.

    Args:
        source: Loaded data.
        modality: Kind of input.
        spec: Data of a recipe.
        named: Columns of the rows that take precedence over those of the recipe, by role.
        divides: Whether rows that are examples are divided by time; joined ones always are.

    Returns:
        The examples; their column names by role, as in a recipe; and the columns of the rows by role, empty if each row
        is an example.

    Raises:
        InputError: If the rows cannot be joined or divided.
    """
    columns = spec.columns.model_dump()
    joined = modality.join_rows(source.splits, {**columns, **(named or {})}, spec)
    time, sources = columns["time"], dict[str, str]()
    divides = spec.split.time is not None and (divides or joined is not None)
    if joined is not None:
        _check_group(joined, modality, spec)
        source = replace(
            source,
            splits=joined.splits,
            notes=(*source.notes, *joined.notes),
            groups_recur=joined.groups_recur,
        )
        columns = {**dict.fromkeys(columns), **joined.columns}
        time, sources = joined.time, dict(joined.sources)
        divides = divides and not joined.is_divided
    if divides:
        source = divide_by_time(source, time, str(spec.split.time))
    return source, columns, sources


def _check_group(joined: JoinedRows, modality: Modality, spec: DataFields) -> None:
    """Raise an error if the column of the groups is gone after joining."""
    group = spec.split.group or spec.columns.group
    names = joined.splits["train"].column_names
    if group is not None and group not in names:
        known = join_quoted(name for name in names if name not in modality.columns)
        fix = f"After rows are joined, only these columns can be named: {known}."
        raise InputError(Problem("data.split.group", "must be a column of the joined rows", repr(group), fix))
