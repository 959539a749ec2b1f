"""Inputs to predict (files, folders, tables, lines and texts), read one by one on demand."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hf_finetune.data.folder_tree import saved_link_target
from hf_finetune.data.formatting import quoted, shortened
from hf_finetune.data.image_formats import PICTURE_SUFFIXES, is_unreadable_picture
from hf_finetune.data.image_paths import files_below, is_encoded
from hf_finetune.data.input_columns import takes_pairs
from hf_finetune.data.table_options import NO_OPTIONS, TABLE_SUFFIXES, TableOptions, table_format
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.example_reading import Inputs, Item, no_file, open_image, open_text
from hf_finetune.evaluation.input_tables import open_table
from hf_finetune.evaluation.predictor import Task
from hf_finetune.files import can_be_path

__all__ = ["open_inputs"]

STDIN = "-"


def open_inputs(
    inputs: Sequence[str],
    task: Task,
    *,
    columns: Mapping[str, str | None] | None = None,
    stdin: Iterable[str] = (),
    options: TableOptions = NO_OPTIONS,
    memory: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> Inputs:
    """Open the inputs to predict. Only the first row of each table is read right away.

    Image models take image files, folders with images at any depth, and tables with a column of images or of paths
    (relative to the table). Text models take texts, ``.txt`` files with one text per line, folders of such files, and
    tables with a text column. Both take ``-``, with one path or text per line of ``stdin``. Tables are csv, tsv, json,
    jsonl, parquet and xlsx files; their column ``id``, if any, holds the ids of the examples. Blank lines are skipped.

    Args:
        inputs: Paths, texts or ``-``.
        task: Pipeline task of the model.
        columns: Columns of the tables by role: image, or text and perhaps text_pair, and id. Roles left out take the
            columns used in training, or are inferred.
        stdin: Lines to read for ``-``.
        options: Encoding, separator and decimal mark of text tables, where they are not recognized.
        memory: Columns of the model's training data by role; None if they are not known.
        keep: Whether items carry the columns of the tables.

    Returns:
        The examples of all inputs in order.

    Raises:
        InputError: If there is nothing to predict, or if a table or folder contains no example.
    """
    named = {key: name for key, name in (columns or {}).items() if name is not None}
    sources: list[Inputs] = []
    problems: list[Problem] = []
    for argument in inputs:
        try:
            sources.append(_open(argument, task, named, stdin, options, memory, keep))
        except InputError as error:
            problems += error.problems
    if not inputs:
        problems.append(_nothing())
    if problems:
        raise InputError(problems)
    totals = [source.total for source in sources]
    known = [total for total in totals if total is not None]
    items = chain.from_iterable(source.items for source in sources)
    carried = tuple(dict.fromkeys(name for source in sources for name in source.columns))
    return Inputs(items, sum(known) if len(known) == len(totals) else None, carried)


def _nothing() -> Problem:
    return Problem("INPUT", "must name at least one file, folder or text, or - for standard input")


def _open(
    given: str,
    task: Task,
    named: Mapping[str, str],
    stdin: Iterable[str],
    options: TableOptions,
    memory: Mapping[str, Any] | None,
    keep: bool,
) -> Inputs:
    if not given.strip():
        raise InputError(_nothing())
    image = task == "image-classification"
    path = (saved_link_target(Path(given)) if image else None) or Path(given)
    ending = path.suffix.lower()
    is_table = table_format(path) is not None
    pairs = takes_pairs(memory)
    pairs = pairs or (pairs is None and "text_pair" in named)
    if pairs and not (is_table and _is(path.is_file)):
        raise InputError(_no_pair(given, is_table, {**(memory or {}), **named}))
    if given == STDIN:
        return Inputs(_read_lines("stdin", stdin, image), None)
    if _is(path.is_dir):
        return _open_folder(path, image)
    file_meant = (is_table or ending == ".txt") and not any(letter.isspace() for letter in given)
    if not _is(path.is_file):
        if file_meant:
            raise InputError(Problem(given, "must exist"))
        if image:
            return Inputs(map(_open_named, [shortened(given)], [given]), 1)
        return Inputs(map(open_text, [given], [given]), 1)
    if is_table:
        return open_table(path, image, named, options, memory, keep)
    if image:
        return Inputs(map(open_image, [given], [path]), 1)
    if ending == ".txt":
        return Inputs(_read_text_file(path), None)
    known = quoted([".txt", *TABLE_SUFFIXES])
    raise InputError(
        Problem(given, "must be a text, or a file of texts of a known ending", "a file", f"Known: {known}.")
    )


def _no_pair(given: str, is_table: bool, names: Mapping[str, Any]) -> Problem:
    """Return the problem of an input that is not an existing table, for a model that takes pairs of texts."""
    if is_table:
        return Problem(given, "must exist")
    first, second = (names.get(key) or key for key in ("text", "text_pair"))
    rule = (
        f"must be a table with the columns {first!r} and {second!r}, because the model takes pairs of texts"
    )
    line = json.dumps({first: "...", second: "..."}, ensure_ascii=False)
    return Problem(given, rule, "", f"Write each pair into a file such as pairs.jsonl as a line {line}.")


def _is(check: Callable[[], bool]) -> bool:
    """Run a check on a path that may be a text; False if the path is too long or contains a NUL character."""
    try:
        return check()
    except (OSError, ValueError):
        return False


def _open_folder(folder: Path, image: bool) -> Inputs:
    endings = PICTURE_SUFFIXES if image else {".txt"}
    files = sorted(
        files_below(
            folder,
            lambda file: file.suffix.lower() in endings or (image and is_unreadable_picture(file.name)),
        )
    )
    if not files:
        raise InputError(
            Problem(str(folder), f"must hold {'images' if image else '.txt files'} at any depth")
        )
    if image:
        return Inputs(map(open_image, map(str, files), files), len(files))
    return Inputs(chain.from_iterable(map(_read_text_file, files)), None)


def _read_text_file(file: Path) -> Iterator[Item]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from _read_lines(str(file), lines, image=False)
    except (OSError, UnicodeDecodeError) as error:
        yield Item(str(file), error=f"The rest of {file} cannot be read. {cause_of(error)}.")


def _read_lines(name: str, lines: Iterable[str], image: bool) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        value = line.rstrip("\r\n")
        if value.strip():
            place = f"{name}:{number}"
            yield _open_named(place, value) if image else open_text(place, value)


def _open_named(otherwise: str, value: str) -> Item:
    """Decode the image at a path, which becomes its id; an image whose path is invalid takes the other id."""
    if is_encoded(value) or not can_be_path(value):
        return Item(otherwise, error=no_file(value))
    return open_image(value, Path(value))
