"""Tables of examples to predict, read row by row as training reads them."""

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Image as ImageFeature
from datasets import load_dataset
from pyarrow import parquet

from hf_finetune.data.csv_files import open_rows
from hf_finetune.data.json_files import is_lines, iterate_lines
from hf_finetune.data.table_files import read_file
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format
from hf_finetune.data.wording import quoted
from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.evaluation.items import Inputs, Item, open_stored_image, open_text
from hf_finetune.evaluation.wording import cause_of

__all__ = ["open_table"]

logger = logging.getLogger(__name__)

Row = Mapping[str, Any] | str
"""The values of a row by column, or why it cannot be used."""

_NAMES = {
    "image": ("image", "img", "picture", "photo", "file", "file_name", "filename", "path", "image_path"),
    "text": ("text", "sentence", "review", "content", "comment", "message", "document", "body"),
}


def open_table(
    file: Path, image: bool, named: Mapping[str, str], options: TableOptions = NO_OPTIONS
) -> Inputs:
    """Open a csv, tsv, json, jsonl, parquet or xlsx file, and read its first row.

    Args:
        file: The table. Paths in it start from its folder.
        image: Whether an example is an image, else one text or a pair.
        named: Columns by what they hold: image, text, text_pair. What is not named is inferred.
        options: How text is to be read where that is not recognized.

    Raises:
        InputError: If it cannot be read, is empty, or has no such columns.
    """
    kind = table_format(file)
    total = None
    try:
        if kind == "parquet":
            names, rows = _open_parquet(file)
            total = parquet.ParquetFile(file).metadata.num_rows
        else:
            names, rows = _open_text_rows(file, str(kind), options)
        first = next(rows, None)
    except InputError:
        raise
    except Exception as error:  # Each reader of datasets raises errors of its own library.
        raise InputError(Problem(str(file), f"must be readable as {kind}", cause_of(error))) from error
    if first is None:
        raise InputError(Problem(str(file), "must hold at least one row"))
    wanted = ("image",) if image else ("text", "text_pair")
    used = _find_columns(str(file), names or list(first), wanted, named)
    return Inputs(_read_rows(file, chain([first], rows), used, image), total)


def _open_parquet(file: Path) -> tuple[list[str], Iterator[Row]]:
    table = load_dataset("parquet", data_files=glob.escape(str(file)), split="train", streaming=True)
    for name, feature in (table.features or {}).items():
        if isinstance(feature, ImageFeature):
            table = table.cast_column(name, ImageFeature(decode=False))
    return list(table.features or ()), iter(table)


def _open_text_rows(file: Path, kind: str, options: TableOptions) -> tuple[list[str], Iterator[Row]]:
    """Open a table that is no Parquet file as training reads it. Names are left empty where each row has its own."""
    if kind == "csv":
        names, rows, notes = open_rows(file, options)
        for note in notes:
            logger.info("%s", note)
        return names, _rows_of_cells(names, rows)
    if kind == "json" and is_lines(file, options):
        return [], (row for _, row in iterate_lines(file, options))
    read = read_file(file, options)
    for note in read.notes:
        logger.info("%s", note)
    return read.table.column_names, (
        row for batch in read.table.to_batches(1000) for row in batch.to_pylist()
    )


def _rows_of_cells(names: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    for line, cells in rows:
        if len(cells) != len(names):
            yield f"Line {line} has {len(cells)} cells, and the header {len(names)}."
        else:
            yield {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _find_columns(
    place: str, present: Sequence[str], wanted: Sequence[str], named: Mapping[str, str]
) -> dict[str, str]:
    used = {key: named[key] for key in wanted if key in named}
    problems = [
        Problem(place, f"must have the column that was named for {key}", repr(name), nearest(name, present))
        for key, name in used.items()
        if name not in present
    ]
    main = wanted[0]
    if main not in used:
        likely = [name for name in present if name.lower() in _NAMES[main]]
        found = main if main in present else likely[0] if len(likely) == 1 else None
        if found is None and len(present) == 1:
            found = present[0]
        if found is None:
            rule = f"must have one column that is plainly the {main}"
            problems.append(
                Problem(
                    place, rule, f"columns {quoted(present)}", f"Rename the one with the {main}s to {main!r}."
                )
            )
        else:
            used[main] = found
        if found == "text" and "text_pair" in present:
            used.setdefault("text_pair", "text_pair")
    if problems:
        raise InputError(problems)
    return used


def _read_rows(file: Path, rows: Iterator[Row], used: Mapping[str, str], image: bool) -> Iterator[Item]:
    row = -1
    try:
        for row, values in enumerate(rows):
            if isinstance(values, str):
                yield Item(f"{file}:{row}", error=values)
                continue
            name = values.get("id")
            name = f"{file}:{row}" if name is None else str(name)
            if image:
                yield open_stored_image(name, values.get(used["image"]), file.parent)
            else:
                yield open_text(
                    name, *(values.get(used[key]) for key in ("text", "text_pair") if key in used)
                )
    except Exception as error:  # A damaged row ends its table: what follows it cannot be told apart.
        yield Item(f"{file}:{row + 1}", error=f"The rest of {file} cannot be read. {cause_of(error)}.")
