"""Examples stored as one file each, loaded as one Dataset per split."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow import parquet

from hf_finetune.data.class_folders import FolderExamples, LabeledFile
from hf_finetune.data.file_paths import FileFinder
from hf_finetune.data.metadata import Metadata, add_metadata, metadata_examples, read_metadata
from hf_finetune.data.table_files import read_file
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format
from hf_finetune.data.text_files import open_text_file
from hf_finetune.errors import MAX_LISTED_PROBLEMS, InputError, Problem, join_quoted
from hf_finetune.targets.names import class_order
from hf_finetune.tasks import Modality

__all__ = ["LoadedFolders", "check_tables", "load_files", "load_texts"]

_LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
"""Columns of metadata files that may contain labels, which could contradict the class folders."""
_NAME_COLUMNS = ("file", "file_name", "filename", "path", "file_path", "filepath", "id")
"""Columns of other tables that may contain file names, besides that of the modality and its id."""


@dataclass(frozen=True)
class LoadedFolders:
    """Examples of each split.

    Attributes:
        splits: Datasets with the main column of the modality, and ``label`` if folder or file names are the labels.
        files: Path of each text relative to the root, by split. Empty for files that are opened later, whose column
            contains the paths.
        untyped: Splits with columns from metadata files that state no types for their values.
        notes: Messages to the user, for example about ignored files and the class order.
    """

    splits: Mapping[str, Dataset]
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    untyped: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _MetadataLabel:
    """Label of an image in a class folder according to a metadata file."""

    file: LabeledFile
    column: str
    value: str


def load_files(
    folder_examples: FolderExamples,
    modality: Modality,
    *,
    label: str | Sequence[str] | None,
    metadata: bool,
    options: TableOptions = NO_OPTIONS,
) -> LoadedFolders:
    """Build a dataset with one row per file, sorted by file suffix and path, without reading the files.

    Args:
        folder_examples: Image files of each split.
        modality: Kind of input.
        label: Label column or columns, possibly columns of metadata files; None if the recipe names none.
        metadata: Whether the columns of metadata files are needed even if folder or file names are the labels.
        options: How to parse metadata files that are text.

    Returns:
        Dataset of each split, and notes.

    Raises:
        InputError: If required metadata files cannot be used, or if they contradict the class folders.
    """
    splits: dict[str, Dataset] = {}
    notes: list[str] = []
    metadata_labels: list[_MetadataLabel] = []
    untyped = set()
    for split, files in folder_examples.files.items():
        needed = metadata or label is not None or split in folder_examples.listed
        split_metadata = _read_if_needed(folder_examples.metadata[split], modality, needed, options)
        if split_metadata.is_text:
            untyped.add(split)
        if split in folder_examples.listed:
            paths = [file.path for file in files]
            paths, unlisted_notes = metadata_examples(split_metadata, folder_examples.folders[split], paths)
            notes += unlisted_notes
            files = tuple(LabeledFile(path, None) for path in paths)
        elif label not in split_metadata.fields:
            metadata_labels += _labels_of(split_metadata, files)
        splits[split] = _rows(files, modality)
        if needed:
            notes += split_metadata.notes
            splits[split] = add_metadata(splits[split], split_metadata, modality, replaced=str(label))
    notes += _note_order(file for files in folder_examples.files.values() for file in files)
    notes += _note_contradictions(metadata_labels, sum(map(len, folder_examples.files.values())))
    return LoadedFolders(splits, {}, frozenset(untyped), tuple(dict.fromkeys(notes)))


def load_texts(
    folder_examples: FolderExamples, root: Path, modality: Modality, options: TableOptions = NO_OPTIONS
) -> LoadedFolders:
    """Read each file as one text.

    Args:
        folder_examples: Text files of each split.
        root: Folder that the returned paths are relative to.
        modality: Kind of input.
        options: How to parse text files, including their encoding if known.

    Returns:
        Dataset and file paths of each split, and notes.

    Raises:
        InputError: If a file cannot be read.
    """
    splits, names = {}, {}
    problems: list[Problem] = []
    encodings: dict[str, list[str]] = {}
    for split, files in folder_examples.files.items():
        texts: list[str] = []
        for file in files:
            try:
                with open_text_file(file.path, options) as (lines, encoding, _):
                    texts.append(lines.read().replace("\r\n", "\n"))
                encodings.setdefault(encoding, []).append(str(file.path))
            except OSError as error:
                problems.append(Problem(str(file.path), "must be readable", str(error.strerror)))
            except InputError as error:
                problems += [replace(problem, place=str(file.path)) for problem in error.problems]
        if not problems:
            columns, features = _label_column(files)
            name = modality.main_column
            features = Features({name: Value("string"), **features})
            splits[split] = Dataset.from_dict({name: texts, **columns}, features=features)
            names[split] = tuple(Path(os.path.relpath(file.path, root)).as_posix() for file in files)
    if len(problems) > MAX_LISTED_PROBLEMS:
        more = Problem(f"{len(problems) - MAX_LISTED_PROBLEMS} more files", "must be readable")
        problems = [*problems[:MAX_LISTED_PROBLEMS], more]
    if problems:
        raise InputError(problems)
    notes = [
        f"Texts read as {encoding}: {len(paths)}, for example {paths[0]!r}."
        for encoding, paths in encodings.items()
        if encoding not in ("utf-8", "utf-8-sig")
    ]
    notes += _note_order(file for files in folder_examples.files.values() for file in files)
    return LoadedFolders(splits, names, notes=tuple(notes))


def _rows(files: Sequence[LabeledFile], modality: Modality) -> Dataset:
    # Same order as in earlier versions, so that the same seed makes the same splits.
    files = sorted(files, key=lambda file: (file.path.suffix, str(file.path)))
    columns, features = _label_column(files)
    paths = [str(file.path) for file in files]
    name = modality.main_column
    types = Features({name: modality.features()[name], **features})
    return Dataset.from_dict({name: paths, **columns}, features=types)


def _label_column(files: Sequence[LabeledFile]) -> tuple[dict[str, list[int]], dict[str, Any]]:
    labels = [file.label for file in files if file.label is not None]
    if not labels:
        return {}, {}
    names = sorted(set(labels), key=class_order)
    index = {name: number for number, name in enumerate(names)}
    return {"label": [index[label] for label in labels]}, {"label": ClassLabel(names=names)}


def _note_order(files: Iterable[LabeledFile]) -> list[str]:
    """Return a note if the numeric order of the classes differs from the text order of torchvision and datasets."""
    names = sorted({file.label for file in files if file.label is not None})
    ordered = sorted(names, key=class_order)
    if names == ordered:
        return []
    as_text, as_number = next(pair for pair in zip(names, ordered, strict=True) if pair[0] != pair[1])
    return [
        f"Classes are sorted by their numbers: {join_quoted(ordered, most=4)}. As strings, as in torchvision's "
        f"ImageFolder, {as_text!r} would come before {as_number!r}. The order of a trained model is in its "
        "config.json."
    ]


def _read_if_needed(
    files: Sequence[Path], modality: Modality, needed: bool, options: TableOptions
) -> Metadata:
    try:
        return read_metadata(files, modality, options)
    except InputError:
        if needed:
            raise
        return Metadata()  # files that are named metadata but contain something else


def _labels_of(metadata: Metadata, files: Sequence[LabeledFile]) -> list[_MetadataLabel]:
    """Return the labels of images in class folders according to metadata files."""
    columns = [name for name in metadata.fields if name.lower() in _LABEL_COLUMNS]
    labels = []
    for file in files if columns else ():
        row = metadata.row(file.path)
        known = [column for column in columns if row.get(column) is not None]
        labels += [_MetadataLabel(file, column, str(row[column])) for column in known]
    return labels


def _are_one_to_one(labels: Sequence[_MetadataLabel]) -> bool:
    """Return whether the labels map one-to-one to the class folders, as class numbers would."""
    pairs = {(label.column, label.value, label.file.label) for label in labels}
    return len({pair[:2] for pair in pairs}) == len(pairs) == len({pair[::2] for pair in pairs})


def check_tables(folder_examples: FolderExamples, tables: Sequence[Path], modality: Modality) -> None:
    """Check that tables next to class folders do not contradict the labels of the folders.

    Args:
        folder_examples: Image files of each split.
        tables: Tables to check; they are not used otherwise.
        modality: Kind of input.

    Raises:
        InputError: If a table lists at least half of the images, none of them with the label of its folder.
    """
    by_path = {file.path: file for files in folder_examples.files.values() for file in files}
    for path in tables:
        try:
            table = read_file(path).table if table_format(path) != "parquet" else parquet.read_table(path)
        except (InputError, OSError, pa.ArrowInvalid):
            continue  # not readable as a table
        known = (modality.name, f"{modality.name}_id", *_NAME_COLUMNS)
        names = [name for name in table.column_names if name.lower() in known]
        columns = [name for name in table.column_names if name.lower() in _LABEL_COLUMNS]
        if not names or not columns:
            continue
        finder = FileFinder(path.parent, modality)
        labels = [
            _MetadataLabel(by_path[file], column, str(row[column]))
            for row in table.select([names[0], *columns]).to_pylist()
            if row[names[0]] is not None and (file := finder.find(str(row[names[0]]))) in by_path
            for column in columns
            if row[column] is not None
        ]
        differing = [label for label in labels if label.value != label.file.label]
        if labels and len(differing) == len(labels) >= len(by_path) / 2 and not _are_one_to_one(labels):
            first = differing[0]
            rule = f"must not contradict the labels of the class folders, as its column {first.column!r} does"
            shown = f"{first.value!r} for {first.file.path.name!r} in {first.file.label!r}"
            repair = (
                "If the folders are not classes, set data.path to the table; otherwise move the table "
                "elsewhere."
            )
            raise InputError(Problem(str(path), rule, shown, repair))


def _note_contradictions(labels: Sequence[_MetadataLabel], count: int) -> list[str]:
    """Return a note if metadata files contradict the labels of the class folders.

    If every label differs from its folder and at least half of the ``count`` images have one, an InputError is raised:
    then the folders are probably not classes.
    """
    differing = [label for label in labels if label.value != label.file.label]
    if not differing or _are_one_to_one(labels):
        return []
    first = differing[0]
    shown = f"{str(first.file.path)!r} is {first.value!r} in the column"
    if len(differing) == len(labels) >= count / 2:
        rule = (
            f"must have the same labels in its folders and in the column {first.column!r} of its metadata "
            "files"
        )
        repair = (
            f"Set data.columns.label: {first.column} if the folders are not classes; otherwise remove the "
            "column."
        )
        raise InputError(Problem("The data", rule, f"{len(differing)} differences: {shown}", repair))
    return [
        f"Labels are the names of the class folders; the column {first.column!r} of metadata files, which differs for "
        f"{len(differing)} images, is not used: {shown}."
    ]
