"""Result of reading one table file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from hf_finetune.errors import Problem

__all__ = ["FileTable"]


@dataclass(frozen=True)
class FileTable:
    """Content of one file as a table.

    Attributes:
        table: Rows of the file. All columns are strings if ``is_text``.
        is_text: Whether the file states no types for its values.
        notes: Messages to the user on what was detected and ignored, one sentence each.
        column_problems: Problems of single columns, by column name; reported only if the column is used.
        header_problem: Problem of a header that looks like a row of data; None if it does not.
    """

    table: pa.Table
    is_text: bool
    notes: tuple[str, ...] = ()
    column_problems: Mapping[str, Problem] = field(default_factory=dict)
    header_problem: Problem | None = None
