"""Columns of files: resolution of paths to files, and detection of files that no row lists."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from hf_finetune.data.file_paths import FileFinder, check_paths, files_below, is_file
from hf_finetune.errors import InputError, Problem, join_quoted, truncate
from hf_finetune.files import is_valid_path
from hf_finetune.tasks import Modality

__all__ = ["contains_paths", "note_unlisted", "open_files"]


def contains_paths(dataset: Dataset, column: str) -> bool:
    """Return whether a column contains file paths as strings."""
    feature = dataset.features[column]
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def open_files(
    dataset: Dataset, modality: Modality, root: Path | None, split: str | None = None
) -> tuple[Dataset, list[str | None], list[str]]:
    """Convert the column of the examples to the type in which they are opened when they are accessed.

    Args:
        dataset: Dataset whose column contains examples, their bytes, or paths of files.
        modality: Kind of input.
        root: Folder to which relative paths refer. None for data from the Hub.
        split: Name of the split, used to resolve ambiguous paths.

    Returns:
        The dataset; the file of each row as a path relative to the root, None for an embedded example or for a text
        that is not a valid path; and notes.

    Raises:
        InputError: If paths are URLs or base64, match several files, or none of them exists; or if data from the Hub
            contains paths instead of examples.
    """
    notes: list[str] = []
    name, place = modality.main_column, f"data.columns.{modality.main_column}"
    if hasattr(dataset.features[name], "decode_example"):
        column = dataset.with_format("arrow")[:][name]
        embedded = pc.is_valid(pc.struct_field(column, "bytes"))
        paths = pc.if_else(embedded, None, pc.struct_field(column, "path")).to_pylist()
        if root is not None:
            paths = [None if path is None else str(root / path) for path in paths]
    elif contains_paths(dataset, name):
        paths = dataset[name][:]
        check_paths(paths, place)
        if root is None:
            rule = f"must contain {modality.plural}, not paths, in data from the Hub"
            value = join_quoted(truncate(path) for path in paths[:1] if path is not None)
            raise InputError(Problem(place, rule, value))
        paths, notes = _find_files(paths, modality, root, split)
        dataset = Dataset.from_dict({name: paths}, features=Features({name: Value("string")}))
    else:
        paths = []
    dataset = dataset.cast_column(name, modality.features()[name])
    if root is None or all(path is None for path in paths):
        return dataset, [None] * len(dataset), notes
    names = [
        Path(os.path.relpath(path, root)).as_posix() if path is not None and is_valid_path(path) else None
        for path in paths
    ]
    return dataset, names, notes


def _find_files(
    paths: list[str | None], modality: Modality, root: Path, split: str | None
) -> tuple[list[str | None], list[str]]:
    finder = FileFinder(root, modality, split)
    resolved_paths = [None if path is None or not path.strip() else finder.find(path) for path in paths]
    finder.raise_problems()
    files = [path for path in resolved_paths if path is not None]
    if len(files) > 1 and not any(map(is_file, files)):
        rule = f"must contain paths of existing {modality.plural_files}"
        shown = join_quoted(truncate(path) for path in paths if path is not None)
        repair = (
            f"These files do not exist in {str(root)!r}. Write paths relative to the folder of the table."
        )
        raise InputError(Problem(f"data.columns.{modality.main_column}", rule, shown, repair))
    return [None if path is None else str(path) for path in resolved_paths], finder.notes()


def note_unlisted(ids: Iterable[str], root: Path, check_all_folders: bool, modality: Modality) -> list[str]:
    """Return a note on files that no row of the tables lists.

    Args:
        ids: Files listed in rows, as paths relative to the root.
        root: Folder of the tables.
        check_all_folders: Whether to search all folders below the root, or only those that contain listed files.
        modality: Kind of input.

    Returns:
        List with one note; empty if all files are listed.
    """

    def is_example(path: Path) -> bool:
        return path.suffix.lower() in modality.suffixes

    listed = {os.path.normpath(root / name) for name in ids}
    if check_all_folders:
        on_disk = [str(path) for path in files_below(root, is_example)]
    else:
        folders = sorted({Path(name).parent for name in listed})
        on_disk = [
            str(path)
            for folder in folders
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if is_example(path) and not path.name.startswith(".")
        ]
    unlisted = [Path(os.path.relpath(path, root)).as_posix() for path in on_disk if path not in listed]
    if not unlisted:
        return []
    kind, shown = modality.plural_files.capitalize(), join_quoted(unlisted)
    return [
        f"{kind} that are not listed in any row were not read ({len(unlisted)} of {len(on_disk)}): {shown}."
    ]
