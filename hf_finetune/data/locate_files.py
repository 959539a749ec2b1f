"""Selection of the data files of a folder, and the split of each file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hf_finetune.data.json_files import contains_no_table
from hf_finetune.data.split_names import split_name, split_of_words
from hf_finetune.data.table_options import table_format, table_stem
from hf_finetune.errors import InputError, Problem, join_quoted

__all__ = ["split_files", "split_in_file_name", "usable_files"]

_SHARD = re.compile(r"[-_. ]?(part|shard|chunk)?[-_. ]?\d+([-_. ]of[-_. ]\d+)?(-[0-9a-f]{16})?$")
"""End of a file name that marks one of several files of a split: ``-00000-of-00002``, ``_1``, ``-part3``."""
_COUNTED = re.compile(r"\d+-of-(\d+)")
"""Number of a shard and total number of shards; group 1 is the total."""


def split_in_file_name(file: Path) -> str | None:
    """Return the split in a file name such as ``train-00000-of-00002`` or ``dishes_val``; None unless it is unique."""
    return split_of_words(table_stem(file))


def usable_files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Separate files that may be data from those without a table: empty files, and JSON files that contain none.

    An empty file whose name contains a split counts as data, so that reading it raises an error.

    Args:
        files: Files of known formats.

    Returns:
        Usable files, and files without a table.
    """
    without_table = [file for file in files if _has_no_table(file)]
    return [file for file in files if file not in without_table], without_table


def _has_no_table(file: Path) -> bool:
    if file.stat().st_size == 0:
        return split_in_file_name(file) is None
    return table_format(file) == "json" and contains_no_table(file)


def split_files(files: Sequence[Path]) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """Choose the files of each split.

    A file named exactly after its split (``train.csv``), or its shards (``train-00000-of-00002.csv``), have priority
    over files whose names contain the split; among those, the naming pattern that most splits share has priority.

    Args:
        files: Files of known formats.

    Returns:
        Files of each split, and notes on files that are ignored.

    Raises:
        InputError: If no file name contains a split, or if the files of a split are ambiguous.
    """
    candidates: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        split = split_in_file_name(file)
        if split is not None:
            candidates.setdefault(split, {}).setdefault(_template(file), []).append(file)
    if not candidates:
        if len(files) == 1:
            return {"train": (files[0],)}, []
        shown = join_quoted(file.name for file in files)
        repair = (
            "Rename one file to train (train.csv, train-00000.parquet), or set data.path to a single file."
        )
        raise InputError(Problem("data.path", "must contain files named after their split", shown, repair))
    parts: dict[str, tuple[Path, ...]] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for split, by_template in candidates.items():
        template = _chosen_template(split, candidates)
        matching = [file for matches in by_template.values() for file in matches]
        if template is None:
            rule = f"must contain one file for the {split} split, or its numbered parts"
            repair = (
                f"Rename the file to use to {split}{matching[0].suffix}, or move the other files elsewhere."
            )
            problems.append(Problem("data.path", rule, join_quoted(file.name for file in matching), repair))
            continue
        plain = [file for file in by_template[template] if split_name(table_stem(file))]
        chosen = plain or by_template[template]
        formats, stems = set(map(table_format, chosen)), set(map(table_stem, chosen))
        if len(formats) > 1 or len(stems) < len(chosen):
            rule = f"must contain the {split} split in one format"
            shown = join_quoted(file.name for file in chosen)
            problems.append(Problem("data.path", rule, shown, "Remove the files of the other formats."))
        parts[split] = tuple(chosen)
        notes += _note_parts(split, chosen)
        unused = [file.name for file in matching if file not in chosen]
        if unused:
            notes.append(
                f"Files that could also be the {split} split were not read: {join_quoted(unused)}. "
                f"It is read from {join_quoted(file.name for file in chosen)}."
            )
    if problems:
        raise InputError(problems)
    if unassigned := [file.name for file in files if split_in_file_name(file) is None]:
        notes.append(f"Files not named after a split were not read: {join_quoted(unassigned)}.")
    return parts, notes


def _note_parts(split: str, files: Sequence[Path]) -> list[str]:
    """Return notes on a split of several files, and on missing shards."""
    counts = {int(match[1]) for file in files if (match := _COUNTED.search(table_stem(file)))}
    shown = join_quoted(file.name for file in files)
    if counts and counts != {len(files)}:
        expected = " or ".join(map(str, sorted(counts)))
        return [f"The {split} split has {len(files)} of {expected} parts: {shown}."]
    if len(files) > 1 and not counts:
        return [f"The {split} split is read from several files: {shown}."]
    return []


def _template(file: Path) -> str:
    """Return a file name with its shard number removed and its split replaced by ``{}``."""
    stem = _SHARD.sub("", table_stem(file).lower()) or table_stem(file).lower()
    return re.sub(r"[a-z]+", lambda word: "{}" if split_name(word[0]) else word[0], stem)


def _chosen_template(split: str, candidates: Mapping[str, Mapping[str, Sequence[Path]]]) -> str | None:
    """Return the file name template of a split: the plain one, the only one, or the one that most splits share.

    None if several templates are equally common.
    """
    templates = list(candidates[split])
    if "{}" in templates or len(templates) == 1:
        return "{}" if "{}" in templates else templates[0]
    shared = {template: sum(template in names for names in candidates.values()) for template in templates}
    most = max(shared.values())
    best = [template for template, count in shared.items() if count == most]
    return best[0] if len(best) == 1 and most > 1 else None
