"""Reader of JSON and JSON Lines files, in the layouts of pandas, datasets and databases, as typed columns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_finetune.data.file_table import FileTable
from hf_finetune.data.split_names import split_name
from hf_finetune.data.table_options import TableOptions
from hf_finetune.data.text_files import open_text_file
from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.targets.reading import flat_labels

__all__ = ["contains_no_table", "is_lines", "iterate_lines", "read_json"]

_SCALARS = (str, int, float, bool)
_LARGEST_CHECKED = 10_000_000
"""Largest size, in bytes, of a file that is read to find out whether it contains a table."""
_CLASSES = ("classes", "class_names", "categories", "label_names", "labels", "names")
"""Keys next to the rows that may contain the list of class names."""
_LABELS = (
    "label",
    "labels",
    "gt_label",
    "img_label",
    "class",
    "category",
    "target",
    "class_id",
    "category_id",
)
"""Names of columns whose numbers may be indices into that list."""
_FORMS = "Write a list of objects, an object of columns, or one object on each line."


class _RepeatedKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKeyError(f"the key {repeated!r} occurs twice in an object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _decode(text: str) -> Any:
    """Decode JSON; raise a ValueError also for a repeated key in an object and for too many nested levels."""
    try:
        return _DECODER.decode(text.strip())
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


def read_json(file: Path, options: TableOptions) -> FileTable:
    """Read a file of JSON or JSON Lines, whatever its suffix.

    Args:
        file: The file, optionally compressed with gzip.
        options: Encoding of the file, if it is known.

    Returns:
        Table of typed columns.

    Raises:
        InputError: If the file is not valid JSON, or contains no table.
    """
    notes: tuple[str, ...] = ()
    if is_lines(file, options):
        rows = [row for _, row in iterate_lines(file, options)]
        columns = _columns_of_records(rows)
    else:
        document, notes = _load(file, options)
        table_columns = _columns(file, document)
        if table_columns is None:
            raise InputError(Problem(file.name, "must contain a table", _kind(document), _FORMS))
        columns, extra_notes = _named_classes(file, table_columns, _extra_fields(document))
        notes = (*notes, *extra_notes)
    notes_of_types: list[str] = []
    arrays = {name: _array(file, name, values, notes_of_types) for name, values in columns.items()}
    return FileTable(pa.table(arrays), False, (*notes, *notes_of_types))


def is_lines(file: Path, options: TableOptions) -> bool:
    """Return whether a file is in JSON Lines format, with one object on each line.

    Args:
        file: File to inspect, optionally compressed with gzip.
        options: Encoding of the file, if it is known.

    Raises:
        InputError: If the file is empty.
    """
    with open_text_file(file, options) as (text, _, _):
        filled = (line for line in text if line.strip())
        first, second = next(filled, ""), next(filled, None)
    if not first:
        raise InputError(Problem(file.name, "must not be empty"))
    try:
        whole = isinstance(_decode(first), dict)
    except _RepeatedKeyError:
        return True
    except ValueError:
        # An incomplete line is an error in JSON Lines, and the start of a document in other files.
        return ".jsonl" in file.name.lower() and first.lstrip().startswith("{") and len(first.strip()) > 1
    return whole and (second is not None or ".json" not in [s.lower() for s in file.suffixes])


def iterate_lines(file: Path, options: TableOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a JSON Lines file line by line.

    Args:
        file: File to read, optionally compressed with gzip.
        options: Encoding of the file, if it is known.

    Yields:
        Line number, counted from 1, and object of each non-empty line.

    Raises:
        InputError: If a line is not a JSON object.
    """
    with open_text_file(file, options) as (text, _, _):
        for number, line in enumerate(text, start=1):
            if line.strip():
                try:
                    row = _decode(line)
                except ValueError as error:
                    raise InputError(_invalid_json_problem(file, f"line {number}", error)) from error
                if not isinstance(row, dict):
                    rule = "must contain a JSON object on each line"
                    raise InputError(Problem(file.name, rule, f"{_kind(row)} in line {number}"))
                yield number, row


def contains_no_table(file: Path) -> bool:
    """Return whether a file of at most 10 MB is valid JSON but not a table, such as settings or class names."""
    if file.stat().st_size > _LARGEST_CHECKED:
        return False
    try:
        if is_lines(file, TableOptions()):
            return False
        document, _ = _load(file, TableOptions())
        return _columns(file, document) is None
    except InputError:
        return False


def _load(file: Path, options: TableOptions) -> tuple[Any, tuple[str, ...]]:
    with open_text_file(file, options) as (text, _, notes):
        try:
            return _decode(text.read()), notes
        except _RepeatedKeyError as error:
            rule = "must have unique keys in each object"
            raise InputError(Problem(file.name, rule, str(error))) from error
        except InputError:
            raise
        except ValueError as error:
            place = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "the file"
            raise InputError(_invalid_json_problem(file, place, error)) from error


def _invalid_json_problem(file: Path, place: str, error: ValueError) -> Problem:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    repair = "Write a JSON object on each line of a jsonl file, or a list of objects in a json file."
    return Problem(file.name, "must be readable as json", f"{reason} in {place}", repair)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    kind = names.get(type(value), "a number")
    if isinstance(value, dict) and value:
        return f"{kind} with the keys {join_quoted(value, most=5)}"
    if isinstance(value, list) and value:
        return f"{kind} of {'strings' if isinstance(value[0], str) else 'values that are not objects'}"
    return kind


def _columns(file: Path, document: Any) -> dict[str, list[Any]] | None:
    """Return the columns of a document; None if it is not a table.

    Source: the values of ``orient`` in ``pandas.DataFrame.to_json``.
    """
    if isinstance(document, list):
        return _columns_of_records(document) if _are_rows(document) else None
    if not isinstance(document, dict) or not document:
        return None
    values = list(document.values())
    if set(document) == {"columns", "index", "data"} and all(isinstance(value, list) for value in values):
        return _columns_of_rows(file, document["columns"], document["data"])  # split
    if "schema" in document and isinstance(document.get("data"), list):
        return _columns(file, document["data"])  # table
    if all(isinstance(value, dict) for value in values):
        return _columns_of_mappings(document)
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    tables = [value for value in lists.values() if _are_rows(value)]
    classes = [name for name, value in lists.items() if name.lower() in _CLASSES and _are_names(value)]
    if len(tables) == 1 and len(lists) == 1 + len(classes):
        return _columns_of_records(tables[0])
    if len(lists) == len(document) and len({len(value) for value in values}) == 1 and len(lists) > 1:
        return lists  # DataFrame.to_dict("list")
    if len(tables) == len(lists) > 1 and all(split_name(name) for name in lists):
        rows = [{**row, "split": name} for name, rows in lists.items() for row in rows]
        return _columns_of_records(rows)
    return None


def _extra_fields(document: Any) -> dict[str, Any]:
    """Return the other entries of an object with one list of rows; empty for other layouts."""
    if not isinstance(document, dict) or "schema" in document:
        return {}
    tables = [name for name, value in document.items() if _are_rows(value)]
    if len(tables) != 1:
        return {}
    return {name: value for name, value in document.items() if name != tables[0]}


def _named_classes(
    file: Path, columns: dict[str, list[Any]], extra_fields: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Replace class indices by the class names that a file lists next to its rows, as files of MMPretrain do."""
    if not extra_fields:
        return columns, []
    nested = [inner for value in extra_fields.values() if isinstance(value, dict) for inner in value.items()]
    lists = [value for name, value in (*extra_fields.items(), *nested) if name.lower() in _CLASSES]
    names = next(filter(_are_names, lists), ())
    numbered = [
        name
        for name, values in columns.items()
        if name.lower() in _LABELS and _are_indices(values, len(names))
    ]
    if len(numbered) != 1:
        return columns, [f"{file.name}: keys next to the rows were ignored: {join_quoted(extra_fields)}."]
    label = numbered[0]
    named = [
        [names[item] for item in v] if isinstance(v, list) else None if v is None else names[v]
        for v in columns[label]
    ]
    note = (
        f"{file.name}: the numbers in {label!r} are read as indices into the list of classes in the file: "
        f"{join_quoted(names)}."
    )
    return {**columns, label: named}, [note]


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _are_names(value: Any) -> bool:
    """Return whether a value is a list of at least two distinct texts."""
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len({*value}) == len(value) > 1
    )


def _are_indices(values: Sequence[Any], count: int) -> bool:
    """Return whether all non-null values are indices into a list of ``count`` entries, or lists of such indices."""
    items = [item for item in flat_labels(values) if item is not None]
    return bool(items) and all(type(item) is int and 0 <= item < count for item in items)


def _columns_of_records(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _columns_of_rows(file: Path, names: Sequence[Any], rows: Sequence[Any]) -> dict[str, list[Any]]:
    wrong = [index for index, row in enumerate(rows) if not isinstance(row, list) or len(row) != len(names)]
    if wrong:
        rule = f"must have {len(names)} values in each row of data, as in columns"
        raise InputError(Problem(file.name, rule, f"other lengths in rows {join_quoted(map(str, wrong))}"))
    return {str(name): [row[place] for row in rows] for place, name in enumerate(names)}


def _columns_of_mappings(document: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]] | None:
    """Return the columns of an object of columns (index to value) or of rows (column to value); None for others."""
    keys = list(document.values())
    if not all(isinstance(value, _SCALARS) or value is None for inner in keys for value in inner.values()):
        return None
    same = all(list(inner) == list(keys[0]) for inner in keys)
    if not same or not keys[0]:
        return None
    # {"row": {"column": value}} is orient="index", {"column": {"row": value}} is orient="columns"; rows are numbers
    outer_are_numbers = all(map(str.isdecimal, document))
    inner_are_numbers = all(map(str.isdecimal, keys[0]))
    is_index_orient = len(document) > len(keys[0])
    if outer_are_numbers != inner_are_numbers:
        is_index_orient = outer_are_numbers
    if is_index_orient:
        return {name: [inner[name] for inner in keys] for name in keys[0]}
    return {name: list(inner.values()) for name, inner in document.items()}


def _array(file: Path, name: str, values: Sequence[Any], notes: list[str]) -> pa.Array | pa.ChunkedArray:
    """Convert values to a column of one type: texts where scalar types are mixed, with a note."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        present = [value for value in values if value is not None]
        if all(isinstance(value, _SCALARS) for value in present):
            try:
                column = pa.array([None if value is None else str(value) for value in values], pa.string())
            except UnicodeEncodeError:
                row = next(index for index, value in enumerate(values) if _has_surrogate(value))
                value = f"an unpaired surrogate in {name!r}, example {row}"
                raise InputError(Problem(file.name, "must contain valid Unicode text", value)) from error
            notes.append(
                f"{file.name}: the values of {name!r} are of several types, so they are read as strings."
            )
            return column
        rows = {type(value): row for row, value in reversed(list(enumerate(values))) if value is not None}
        examples = " and ".join(map(str, sorted(rows.values())))
        value = f"different types in examples {examples}" if len(rows) > 1 else str(error).rstrip(".")
        rule = f"must contain values of one type in {name!r}"
        raise InputError(Problem(file.name, rule, value)) from error


def _has_surrogate(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
