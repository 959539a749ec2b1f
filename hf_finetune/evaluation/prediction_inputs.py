"""Inputs to predict (files, folders, tables, lines and texts), read one by one on demand."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from hf_finetune.data.file_paths import files_below
from hf_finetune.data.folder_tree import saved_link_target
from hf_finetune.data.input_columns import takes_pairs
from hf_finetune.data.table_options import NO_OPTIONS, TABLE_SUFFIXES, TableOptions, table_format
from hf_finetune.errors import InputError, Problem, quoted, shortened
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.example_reading import Inputs, Item, open_file, open_line
from hf_finetune.tasks import Modality

__all__ = ["open_inputs"]

STDIN = "-"
LINES = ".txt"
"""Suffix of files with one example in each line."""


def open_inputs(
    inputs: Sequence[str],
    modality: Modality,
    *,
    columns: Mapping[str, str | None] | None = None,
    stdin: Iterable[str] = (),
    options: TableOptions = NO_OPTIONS,
    memory: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> Inputs:
    """Open the inputs to predict. Only the first row of each table is read right away.

    A modality that opens files, as images do, takes files, folders with files at any depth, and tables with a column
    of files or of paths (relative to the table). Others take texts, ``.txt`` files with one text per line, folders of
    such files, and tables with a text column. All take ``-``, with one path or text per line of ``stdin``. Tables are
    csv, tsv, json, jsonl, parquet and xlsx files; their column ``id``, if any, holds the ids of the examples. Blank
    lines are skipped.

    Args:
        inputs: Paths, texts or ``-``.
        modality: Kind of input of the model.
        columns: Columns of the tables by role: those of the modality, and id. Roles left out take the columns used in
            training, or are inferred.
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
            sources.append(_open(argument, modality, named, stdin, options, memory, keep))
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
    return Problem("INPUT", "must be at least one file, folder or text, or - for standard input")


def _open(
    given: str,
    modality: Modality,
    named: Mapping[str, str],
    stdin: Iterable[str],
    options: TableOptions,
    memory: Mapping[str, Any] | None,
    keep: bool,
) -> Inputs:
    if not given.strip():
        raise InputError(_nothing())
    path = (saved_link_target(Path(given)) if modality.opens_files else None) or Path(given)
    ending = path.suffix.lower()
    is_table = table_format(path) is not None
    pairs = takes_pairs(memory)
    pairs = pairs or (pairs is None and any(column in named for column in modality.columns[1:]))
    if pairs and not (is_table and _is(path.is_file)):
        raise InputError(_no_pair(given, is_table, modality, {**(memory or {}), **named}))
    if given == STDIN:
        return Inputs(_read_lines("stdin", stdin, modality), None)
    if _is(path.is_dir):
        return _open_folder(path, modality)
    file_meant = (is_table or ending == LINES) and not any(letter.isspace() for letter in given)
    if not _is(path.is_file):
        if file_meant:
            raise InputError(Problem(given, "does not exist"))
        name = shortened(given) if modality.opens_files else given
        return Inputs(map(open_line, [modality], [name], [given]), 1)
    if is_table:
        from hf_finetune.evaluation.input_tables import open_table

        return open_table(path, modality, named, options, memory, keep)
    if modality.opens_files:
        return Inputs(map(open_file, [modality], [given], [path]), 1)
    if ending == LINES:
        return Inputs(_read_text_file(path, modality), None)
    rule = f"must be {modality.article}, or a file of {modality.plural} with a known extension"
    raise InputError(Problem(given, rule, "a file", f"Known: {quoted([LINES, *TABLE_SUFFIXES])}."))


def _no_pair(given: str, is_table: bool, modality: Modality, names: Mapping[str, Any]) -> Problem:
    """Return the problem of an input that is not an existing table, for a model that takes pairs of texts."""
    if is_table:
        return Problem(given, "does not exist")
    first, second = (names.get(key) or key for key in modality.columns)
    reason = f"because the model takes pairs of {modality.plural}"
    rule = f"must be a table with the columns {first!r} and {second!r}, {reason}"
    line = json.dumps({first: "...", second: "..."}, ensure_ascii=False)
    return Problem(given, rule, "", f"Write each pair into a file such as pairs.jsonl as a line {line}.")


def _is(check: Callable[[], bool]) -> bool:
    """Run a check on a path that may be a text; False if the path is too long or contains a NUL character."""
    try:
        return check()
    except (OSError, ValueError):
        return False


def _open_folder(folder: Path, modality: Modality) -> Inputs:
    endings = modality.suffixes if modality.opens_files else {LINES}
    files = sorted(
        files_below(folder, lambda file: file.suffix.lower() in endings or modality.is_unreadable(file.name))
    )
    if not files:
        kind = modality.plural if modality.opens_files else f"{LINES} files"
        raise InputError(Problem(str(folder), f"contains no {kind} at any depth"))
    if modality.opens_files:
        return Inputs(map(open_file, repeat(modality), map(str, files), files), len(files))
    return Inputs(chain.from_iterable(_read_text_file(file, modality) for file in files), None)


def _read_text_file(file: Path, modality: Modality) -> Iterator[Item]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from _read_lines(str(file), lines, modality)
    except (OSError, UnicodeDecodeError) as error:
        yield Item(str(file), error=f"The rest of {file} cannot be read. {cause_of(error)}.")


def _read_lines(name: str, lines: Iterable[str], modality: Modality) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        value = line.rstrip("\r\n")
        if value.strip():
            yield open_line(modality, f"{name}:{number}", value)
