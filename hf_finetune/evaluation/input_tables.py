"""Tables of examples to predict, read row by row in the same way as in training."""

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from hf_finetune.data.csv_files import open_rows
from hf_finetune.data.file_paths import FileFinder, is_encoded
from hf_finetune.data.input_columns import choose_columns, find_id_column, takes_pairs
from hf_finetune.data.json_files import is_lines, iterate_lines
from hf_finetune.data.table_files import read_file
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.example_reading import PredictionExample, PredictionInputs, read_row
from hf_finetune.files import is_valid_path
from hf_finetune.tasks import Modality

__all__ = ["open_table"]

logger = logging.getLogger(__name__)

Row = Mapping[str, Any] | str
"""Values of a row by column, or the reason why the row cannot be used."""


def open_table(
    file: Path,
    modality: Modality,
    named: Mapping[str, str],
    options: TableOptions = NO_OPTIONS,
    training_columns: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> PredictionInputs:
    """Open a csv, tsv, json, jsonl, parquet or xlsx file, and read its first row.

    Args:
        file: The table. Relative paths in it are resolved against its folder.
        modality: Kind of input of the model.
        named: Columns by role: those of the modality, and id. Missing roles default to the columns used in training, or
            are inferred.
        options: Encoding, separator and decimal mark; those that are None are detected.
        training_columns: Columns of the training data by role; None if they are not known.
        keep: Whether the examples contain the columns of the table.

    Returns:
        The examples. Their number is known for Parquet files only.

    Raises:
        InputError: If the file cannot be read, is empty, or lacks the columns.
    """
    kind = table_format(file)
    total = None
    try:
        if kind == "parquet":
            from pyarrow import parquet

            names, rows = _open_parquet(file)
            total = parquet.ParquetFile(file).metadata.num_rows
        else:
            names, rows = _open_text_rows(file, str(kind), options)
        first = next(rows, None)
    except InputError:
        raise
    except Exception as error:  # Each reader of datasets raises the exceptions of the library it uses.
        raise InputError(
            Problem(str(file), f"cannot be read as {kind}", "", f"{cause_of(error)}.")
        ) from error
    if first is None:
        raise InputError(Problem(str(file), "contains no rows"))
    present = names or list(first)
    if row_columns := _row_columns(modality, present, named, training_columns):
        joined = _join_rows(file, present, chain([first], rows), modality, row_columns, options)
        carried = dict.fromkeys(name for example in joined for name in example.row)
        return PredictionInputs(iter(joined), len(joined), tuple(carried))
    used, notes = choose_columns(str(file), present, modality, named, training_columns)
    for note in notes:
        logger.info("%s", note)
    id_column = named.get("id") or find_id_column(present, used.values())
    if id_column is None and modality.opens_files:
        id_column = used[modality.main_column]
    rows = chain([first], rows)
    if takes_pairs(training_columns):
        rows = _fill_second_texts(rows, used[modality.columns[1]])
    items = _read_rows(file, rows, modality, used, id_column, present if keep else None)
    return PredictionInputs(items, total, tuple(present) if keep else ())


def _open_parquet(file: Path) -> tuple[list[str], Iterator[Row]]:
    from datasets import load_dataset

    table = load_dataset("parquet", data_files=glob.escape(str(file)), split="train", streaming=True)
    for name, feature in (table.features or {}).items():
        if hasattr(feature, "decode_example"):
            table = table.cast_column(name, replace(feature, decode=False))
    return list(table.features or ()), iter(table)


def _open_text_rows(file: Path, kind: str, options: TableOptions) -> tuple[list[str], Iterator[Row]]:
    """Open a table other than Parquet in the same way as in training.

    Returns:
        Column names, empty if each row has its own (JSON lines), and the rows.
    """
    if kind == "csv":
        names, rows, notes = open_rows(file, options)
        for note in notes:
            logger.info("%s", note)
        return names, _rows_of_cells(names, rows)
    if kind == "json" and is_lines(file, options):
        return [], (row for _, row in iterate_lines(file, options))
    content = read_file(file, options)
    for note in content.notes:
        logger.info("%s", note)
    return content.table.column_names, (
        row for batch in content.table.to_batches(1000) for row in batch.to_pylist()
    )


def _rows_of_cells(names: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    for line, cells in rows:
        if len(cells) != len(names):
            yield f"Line {line} has {len(cells)} cells, but the header has {len(names)}."
        else:
            yield {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _row_columns(
    modality: Modality,
    present: Sequence[str],
    named: Mapping[str, str],
    training_columns: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Return the columns by role of a table in which an example has several rows; None if each row is an example."""
    columns = {**(training_columns or {}), **named}
    if not modality.row_roles or columns.get(modality.main_column) in present:
        return None
    return columns if columns.get(modality.row_roles[0].name) in present else None


def _join_rows(
    file: Path,
    names: Sequence[str],
    rows: Iterator[Row],
    modality: Modality,
    columns: Mapping[str, Any],
    options: TableOptions,
) -> list[PredictionExample]:
    """Return the examples of a table in which an example has several rows; the whole table is read."""
    cells: dict[str, list[Any]] = {name: [] for name in names}
    for values in rows:
        if isinstance(values, str):
            raise InputError(Problem(str(file), "must have a value for each column in each row", "", values))
        for name, column in cells.items():
            column.append(values.get(name))
    finder = FileFinder(file.parent, modality)
    examples: list[PredictionExample] = []
    for name, row in modality.join_prediction_rows(cells, columns, options.decimal):
        if isinstance(row, Problem):
            examples.append(PredictionExample(name, error=str(row)))
            continue
        further = {key: value for key, value in row.items() if key not in modality.columns}
        examples.append(replace(read_row(modality, name, row, finder), row=further))
    return examples


def _read_rows(
    file: Path,
    rows: Iterator[Row],
    modality: Modality,
    used: Mapping[str, str],
    id_column: str | None,
    columns: Sequence[str] | None,
) -> Iterator[PredictionExample]:
    """Yield the examples of a table.

    Args:
        file: The table.
        rows: Rows of the table.
        modality: Kind of input of the model.
        used: Columns by role.
        id_column: Column of the ids; None if there is none.
        columns: Columns that the examples contain; None for none.
    """
    row = -1
    finder = FileFinder(file.parent, modality)
    paths_are_ids = modality.opens_files and id_column == used[modality.main_column]
    try:
        for row, values in enumerate(rows):
            if isinstance(values, str):
                yield PredictionExample(f"{file}:{row}", error=values)
                continue
            name = _example_id(values.get(id_column) if id_column else None, f"{file}:{row}")
            if paths_are_ids and not _is_path(name):
                name = f"{file}:{row}"
            cells = {role: values.get(column) for role, column in used.items()}
            item = read_row(modality, name, cells, finder)
            yield item if columns is None else replace(item, row=_selected_cells(values, columns))
    except Exception as error:  # A damaged row ends its table: the rows after it cannot be located.
        yield PredictionExample(
            f"{file}:{row + 1}", error=f"The rest of {file} cannot be read. {cause_of(error)}."
        )


def _fill_second_texts(rows: Iterator[Row], second: str) -> Iterator[Row]:
    """Yield the rows with missing second texts replaced by empty ones, so that each row is tokenized as a pair.

    Args:
        rows: Rows of a table.
        second: Column of the second texts.
    """
    for row in rows:
        yield row if isinstance(row, str) else {**row, second: row.get(second) or ""}


def _example_id(value: Any, default: str) -> str:
    """Return the id of an example: the value in its row if that is a text or a number, else ``default``."""
    if isinstance(value, str | int | float) and str(value).strip():
        return str(value)
    return default


def _selected_cells(values: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the cells of a row, with files as paths. Columns that are missing in the first row come last."""
    names = dict.fromkeys([*columns, *values])
    return {name: _cell(values.get(name)) for name in names}


def _is_path(value: str) -> bool:
    return is_valid_path(value.replace("\\", "/")) and not is_encoded(value)


def _cell(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        return value["path"]
    return None if isinstance(value, bytes) else value
