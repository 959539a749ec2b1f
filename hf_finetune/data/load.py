"""Load labeled data of any supported layout as one ``datasets.Dataset`` per split."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from hf_finetune.data.class_folders import LabelSource
from hf_finetune.data.column_types import convert_numeric_columns
from hf_finetune.data.load_folders import check_tables, load_files, load_texts
from hf_finetune.data.locate import Location, locate
from hf_finetune.data.split_column import AUTO, divide_by_column, taken_columns
from hf_finetune.data.split_names import split_name
from hf_finetune.data.table_files import SplitTable, read_error, read_split
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions
from hf_finetune.errors import (
    DataNotFoundError,
    HubUnreachableError,
    InputError,
    Problem,
    join_quoted,
    join_words,
)
from hf_finetune.recipe.paths import similar_path_hint
from hf_finetune.tasks import Modality

__all__ = ["Source", "load_source"]


@dataclass(frozen=True)
class Source:
    """Labeled data as loaded, before its columns are interpreted.

    Attributes:
        splits: Datasets by split: those of train, validation and test that the source has.
        root: Folder that relative paths are resolved against. None for Hub data.
        notes: Messages to the user, mostly about ignored files and splits.
        files: Paths relative to ``root`` of texts that are stored as one file each, by split.
        untyped_splits: Splits read from files without column types, so that all their columns are strings.
        column_problems: Problems of single columns, by column name; reported only if the column is used.
        header_problems: Problems of headers that look like rows of data; reported only if columns are not found.
        split_column: Column that divided the examples into splits; None if there is none.
        groups_recur: Whether a group may be in several splits.
    """

    splits: Mapping[str, Dataset]
    root: Path | None
    notes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    untyped_splits: frozenset[str] = frozenset()
    column_problems: Mapping[str, Problem] = field(default_factory=dict)
    header_problems: tuple[Problem, ...] = ()
    split_column: str | None = None
    groups_recur: bool = False


def load_source(
    path: str,
    *,
    modality: Modality,
    config: str | None = None,
    revision: str | None = None,
    metadata: bool = False,
    columns: Mapping[str, Any] | None = None,
    nested: Literal["join", "top"] | None = None,
    labeled: bool = True,
    options: TableOptions = NO_OPTIONS,
    values: Collection[str] = (),
) -> Source:
    """Load every split of a dataset.

    Args:
        path: A folder of class folders, a folder of data files, a csv, tsv, json, jsonl, parquet or xlsx file, a
            folder written by ``save_to_disk``, or a Hub id.
        modality: Kind of input.
        config: Configuration of a Hub dataset that has several.
        revision: Branch, tag or commit of a Hub dataset.
        metadata: Whether files in class folders get the columns of the metadata files next to them.
        columns: Column names by role, as in a recipe; ``label`` may also be a mapping with a file name pattern.
        nested: Class of a file in nested class folders: all folder names joined, or the top folder's name. None
            makes nested class folders an error.
        labeled: Whether each file needs a label.
        options: How to parse text files.
        values: Columns used by their values, such as slices; converted to numbers if all values in a text file are.

    Returns:
        The splits as loaded, and how to interpret them.

    Raises:
        InputError: If there is no data at ``path``, or if it cannot be read.
    """
    columns = columns or {}
    label = columns.get("label")
    pattern = label.get("pattern") if isinstance(label, Mapping) else None
    location = locate(path, modality, LabelSource(nested, pattern, labeled))
    notes = list(location.notes)
    if location.kind != "hub" and (config is not None or revision is not None):
        notes.append(
            "data.config and data.revision apply to datasets on the Hub; this data is local, so they were "
            "ignored."
        )
    ignored: list[str] = []
    if location.kind == "hub":
        splits, ignored = _load_from_hub(path, config, revision)
        loaded = Source(splits, location.root, ())
    elif location.kind == "saved" and location.root is not None:
        splits, ignored = _load_saved(location.root)
        loaded = Source(splits, location.root, tuple(_unlisted_in_saved(location.root)))
    elif location.examples is not None and location.root is not None:
        if modality.opens_files:
            name = label.get("name") if isinstance(label, Mapping) else label
            read = load_files(location.examples, modality, label=name, metadata=metadata, options=options)
            check_tables(location.examples, location.tables, modality)
        else:
            read = load_texts(location.examples, location.root, modality, options)
        loaded = Source(read.splits, location.root, read.notes, read.files, read.untyped)
    else:
        loaded = _load_tables(location, options)
    notes += loaded.notes
    if ignored:
        notes.append(f"Splits that were not used: {join_quoted(ignored)}.")
    if not loaded.splits:
        value = join_quoted(ignored)
        raise InputError(Problem("data.path", "must have a train, validation or test split", value))
    return _divide(replace(loaded, notes=tuple(notes)), columns, values, options)


def _divide(
    source: Source, columns: Mapping[str, Any], values: Collection[str], options: TableOptions
) -> Source:
    """Divide the examples by the split column, if there is one, and convert columns of texts that are numbers."""
    # A dataset saved with a format (numpy, torch, ...) must still return plain Python values.
    plain = {split: dataset.with_format(None) for split, dataset in source.splits.items()}
    column = columns.get("split", AUTO)
    # options that were set for the training data name a column that other data need not have
    division = divide_by_column(plain, column, taken_columns(columns), optional=options.fallback)
    untyped_splits = {new for new, old in division.origins.items() if old in source.untyped_splits}
    return replace(
        source,
        splits=convert_numeric_columns(division.splits, untyped_splits, values, options.decimal),
        notes=(*source.notes, *division.notes),
        untyped_splits=frozenset(untyped_splits),
        split_column=division.column,
    )


def _load_tables(location: Location, options: TableOptions) -> Source:
    tables = _read_tables(location, options)
    problems = (table.header_problem for table in tables.values())
    return Source(
        {split: table.dataset for split, table in tables.items()},
        location.root,
        tuple(note for table in tables.values() for note in table.notes),
        untyped_splits=frozenset(split for split, table in tables.items() if table.is_text),
        column_problems=dict(item for table in tables.values() for item in table.column_problems.items()),
        header_problems=tuple(problem for problem in problems if problem is not None),
    )


def _read_tables(location: Location, options: TableOptions) -> dict[str, SplitTable]:
    """Read each split separately, so that an unlabeled test file may lack the label column."""
    tables: dict[str, SplitTable] = {}
    problems: list[Problem] = []
    for split, files in location.sources.items():
        empty = [file.name for file in files if file.stat().st_size == 0]
        if empty:
            problems.append(Problem(join_words(empty), "must not be empty"))
            continue
        try:
            tables[split] = read_split(split, files, options)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tables


def _load_saved(root: Path) -> tuple[dict[str, Dataset], list[str]]:
    _check_saved_folder(root)
    try:
        loaded = load_from_disk(str(root))
    except (DatasetsError, OSError, ValueError) as error:
        raise read_error(error, str(root), "must be readable as a saved dataset") from error
    return _known_splits({"train": loaded} if isinstance(loaded, Dataset) else loaded)


def _check_saved_folder(root: Path) -> None:
    """Raise an InputError if a saved dataset refers to a path outside its folder, before a data file is read."""
    splits = _read_json(root / "dataset_dict.json").get("splits")
    names = [str(name) for name in splits] if isinstance(splits, list) else []
    problems = _outside(root / "dataset_dict.json", names)
    for folder in [root, *(root / name for name in names if _is_inside(name))]:
        problems += _outside(folder / "state.json", _file_names(_read_json(folder / "state.json")))
    if problems:
        raise InputError(problems)


def _read_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if it is missing or damaged, which loading the dataset reports."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _file_names(state: Mapping[str, Any]) -> Iterator[str]:
    for key in ("_data_files", "_indices_data_files"):
        entries = state.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "filename" in entry:
                yield str(entry["filename"])


def _is_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _outside(file: Path, names: Iterable[str]) -> list[Problem]:
    rule, repair = "must refer only to files in its own folder", "Save the dataset again."
    return [Problem(str(file), rule, repr(name), repair) for name in names if not _is_inside(name)]


def _unlisted_in_saved(root: Path) -> list[str]:
    """Return a note on Arrow files and datasets in a ``save_to_disk`` folder that its JSON files do not list."""
    splits = root / "dataset_dict.json"
    names = json.loads(splits.read_text(encoding="utf-8"))["splits"] if splits.is_file() else [""]
    state_files = {splits.parent / name / "state.json" for name in names}
    on_disk = {*root.glob("*/state.json"), *root.glob("state.json")}
    unlisted = [path.parent for path in on_disk - state_files]
    for state in state_files:
        files = {entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]}
        arrow_files = [path for path in state.parent.glob("*.arrow") if path.name not in files]
        # Dataset.map writes files with these names
        unlisted += [path for path in arrow_files if not path.name.startswith(("cache-", "tmp"))]
    shown = join_quoted(sorted(path.relative_to(root).as_posix() for path in unlisted))
    return (
        [f"Parts of the saved dataset that its JSON files do not list were not read: {shown}."]
        if unlisted
        else []
    )


def _load_from_hub(
    path: str, config: str | None, revision: str | None
) -> tuple[dict[str, Dataset], list[str]]:
    local_hint = similar_path_hint(path) or f"It does not exist in {str(Path.cwd())!r} either."
    try:
        loaded = load_dataset(path, name=config, revision=revision)
    except DatasetNotFoundError as error:
        repair = (
            f"{local_hint} Check the name and the revision, or log in with `hf auth login` if it is private."
        )
        problem = Problem("data.path", "must be a dataset on the Hub", repr(path), repair)
        raise DataNotFoundError(problem) from error
    except ConnectionError as error:
        repair = f"{local_hint} Check the path, or connect to the Hub and try again."
        problem = Problem("data.path", "must be local if the Hub cannot be reached", repr(path), repair)
        raise HubUnreachableError(problem) from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        # A missing or unknown configuration is a ValueError whose text lists the configurations there are.
        repair = "Check data.config and data.revision."
        raise read_error(error, f"The Hub dataset {path!r}", "must be loadable", repair) from error
    return _known_splits(loaded)


def _known_splits(loaded: Mapping[Any, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """Return the recognized splits, and the names of the splits that are ignored.

    If several names mean the same split, the first one is used. The only split of a dataset is the train split if
    its name (such as ``full``) is not recognized.
    """
    if len(loaded) == 1 and all(split_name(str(name)) is None for name in loaded):
        return {"train": next(iter(loaded.values()))}, []
    splits: dict[str, Dataset] = {}
    ignored: list[str] = []
    for name, dataset in loaded.items():
        split = split_name(str(name))
        if split is None or split in splits:
            ignored.append(str(name))
        else:
            splits[split] = dataset
    return splits, ignored
