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
from hf_finetune.errors import InputError, Problem, join_quoted, truncate
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.example_reading import PredictionExample, PredictionInputs, read_file, read_line
from hf_finetune.tasks import Modality

__all__ = ["open_inputs"]

STDIN = "-"
TEXT_SUFFIX = ".txt"
"""Suffix of files with one example in each line."""


def open_inputs(
    inputs: Sequence[str],
    modality: Modality,
    *,
    columns: Mapping[str, str | None] | None = None,
    stdin: Iterable[str] = (),
    options: TableOptions = NO_OPTIONS,
    training_columns: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> PredictionInputs:
    """Open the inputs to predict. Only the first row of each table is read right away.

    A modality that opens files, as images do, takes files, folders with files at any depth, and tables with a column
    of files or of paths (relative to the table). Others take texts, ``.txt`` files with one text per line, folders of
    such files, and tables with a text column. All take ``-``, with one path or text per line of ``stdin``. Tables are
    csv, tsv, json, jsonl, parquet and xlsx files; their column ``id``, if any, contains the ids of the examples. Blank
    lines are skipped.

    Args:
        inputs: Paths, texts or ``-``.
        modality: Kind of input of the model.
        columns: Columns of the tables by role: those of the modality, and id. Missing roles default to the columns
            used in training, or are inferred.
        stdin: Lines to read for ``-``.
        options: Encoding, separator and decimal mark of text tables; those that are None are detected.
        training_columns: Columns of the training data by role; None if they are not known.
        keep: Whether the examples contain the columns of the tables.

    Returns:
        The examples of all inputs in order.

    Raises:
        InputError: If there is nothing to predict, or if a table or folder contains no example.
    """
    named = {key: name for key, name in (columns or {}).items() if name is not None}
    sources: list[PredictionInputs] = []
    problems: list[Problem] = []
    for argument in inputs:
        try:
            sources.append(_open_source(argument, modality, named, stdin, options, training_columns, keep))
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
    return PredictionInputs(items, sum(known) if len(known) == len(totals) else None, carried)


def _nothing() -> Problem:
    return Problem("INPUT", "must be at least one file, folder or text, or - for standard input")


def _open_source(
    source: str,
    modality: Modality,
    named: Mapping[str, str],
    stdin: Iterable[str],
    options: TableOptions,
    training_columns: Mapping[str, Any] | None,
    keep: bool,
) -> PredictionInputs:
    if not source.strip():
        raise InputError(_nothing())
    path = (saved_link_target(Path(source)) if modality.opens_files else None) or Path(source)
    suffix = path.suffix.lower()
    is_table = table_format(path) is not None
    pairs = takes_pairs(training_columns)
    pairs = pairs or (pairs is None and any(column in named for column in modality.columns[1:]))
    if pairs and not (is_table and _safe_check(path.is_file)):
        raise InputError(_no_pair(source, is_table, modality, {**(training_columns or {}), **named}))
    if source == STDIN:
        return PredictionInputs(_read_lines("stdin", stdin, modality), None)
    if _safe_check(path.is_dir):
        return _open_folder(path, modality)
    looks_like_file = (is_table or suffix == TEXT_SUFFIX) and not any(letter.isspace() for letter in source)
    if not _safe_check(path.is_file):
        if looks_like_file:
            raise InputError(Problem(source, "does not exist"))
        name = truncate(source) if modality.opens_files else source
        return PredictionInputs(map(read_line, [modality], [name], [source]), 1)
    if is_table:
        from hf_finetune.evaluation.input_tables import open_table

        return open_table(path, modality, named, options, training_columns, keep)
    if modality.opens_files:
        return PredictionInputs(map(read_file, [modality], [source], [path]), 1)
    if suffix == TEXT_SUFFIX:
        return PredictionInputs(_read_text_file(path, modality), None)
    rule = f"must be {modality.article}, or a file of {modality.plural} with a known extension"
    raise InputError(
        Problem(source, rule, "a file", f"Known: {join_quoted([TEXT_SUFFIX, *TABLE_SUFFIXES])}.")
    )


def _no_pair(source: str, is_table: bool, modality: Modality, names: Mapping[str, Any]) -> Problem:
    """Return the problem of an input that is not an existing table, for a model that takes pairs of texts."""
    if is_table:
        return Problem(source, "does not exist")
    first, second = (names.get(key) or key for key in modality.columns)
    reason = f"because the model takes pairs of {modality.plural}"
    rule = f"must be a table with the columns {first!r} and {second!r}, {reason}"
    line = json.dumps({first: "...", second: "..."}, ensure_ascii=False)
    return Problem(source, rule, "", f"Write each pair into a file such as pairs.jsonl as a line {line}.")


def _safe_check(check: Callable[[], bool]) -> bool:
    """Run a check on a path that may be a text; False if the path is too long or contains a NUL character."""
    try:
        return check()
    except (OSError, ValueError):
        return False


def _open_folder(folder: Path, modality: Modality) -> PredictionInputs:
    suffixes = modality.suffixes if modality.opens_files else {TEXT_SUFFIX}
    files = sorted(
        files_below(
            folder, lambda file: file.suffix.lower() in suffixes or modality.has_unsupported_format(file.name)
        )
    )
    if not files:
        kind = modality.plural if modality.opens_files else f"{TEXT_SUFFIX} files"
        raise InputError(Problem(str(folder), f"contains no {kind} at any depth"))
    if modality.opens_files:
        return PredictionInputs(map(read_file, repeat(modality), map(str, files), files), len(files))
    return PredictionInputs(chain.from_iterable(_read_text_file(file, modality) for file in files), None)


def _read_text_file(file: Path, modality: Modality) -> Iterator[PredictionExample]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from _read_lines(str(file), lines, modality)
    except (OSError, UnicodeDecodeError) as error:
        yield PredictionExample(str(file), error=f"The rest of {file} cannot be read. {cause_of(error)}.")


def _read_lines(name: str, lines: Iterable[str], modality: Modality) -> Iterator[PredictionExample]:
    for number, line in enumerate(lines, start=1):
        value = line.rstrip("\r\n")
        if value.strip():
            yield read_line(modality, f"{name}:{number}", value)
