"""Datasets with one file per example: in class folders, or flat with labels from file names or metadata files."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hf_finetune.data.folder_tree import Folder
from hf_finetune.data.label_patterns import labels_from_names, suggested_pattern
from hf_finetune.data.metadata import is_metadata
from hf_finetune.data.split_folders import find_split_folders
from hf_finetune.data.split_names import split_name
from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.tasks import Modality

__all__ = ["ARCHIVES", "FolderExamples", "LabelSource", "LabeledFile", "find_folder_examples"]

_UNLABELED = frozenset({"unsup", "unsupervised", "unlabelled", "unlabeled"})
"""Names of folders with unlabeled examples next to class folders."""

ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".rar", ".7z"})


@dataclass(frozen=True)
class LabelSource:
    """Source of the labels of files.

    Attributes:
        nested: Class of a file in nested class folders: the joined names of all folders (``join``), or the name of the
            outermost one (``top``). None rejects nested class folders.
        pattern: Regular expression that extracts the label from a file name. None uses class folders.
        enabled: Whether labels are read.
    """

    nested: Literal["join", "top"] | None = None
    pattern: str | None = None
    enabled: bool = True


@dataclass(frozen=True)
class LabeledFile:
    """Example file and its label; the label is None if it is in a metadata file, or if no labels are needed."""

    path: Path
    label: str | None


@dataclass(frozen=True)
class FolderExamples:
    """Files of each split.

    Attributes:
        folders: Folder of each split.
        files: Example files of each split.
        metadata: Metadata files that may list the examples of each split; those inside class folders come last.
        listed: Splits whose examples and labels are taken from metadata files.
        notes: Messages for the user about skipped files and about the interpretation of folder names.
    """

    folders: Mapping[str, Path]
    files: Mapping[str, tuple[LabeledFile, ...]]
    metadata: Mapping[str, tuple[Path, ...]]
    listed: frozenset[str]
    notes: tuple[str, ...]


def find_folder_examples(
    root: Folder, label_source: LabelSource, *, modality: Modality, has_label_table: bool = False
) -> FolderExamples | None:
    """Find the example files below a folder and their labels.

    Args:
        root: Folder with class folders, or with split folders. A split folder contains class folders, or examples
            whose labels are in their file names or in a metadata file in the split folder or in the root.
        label_source: Source of the labels.
        modality: Kind of input.
        has_label_table: Whether a table in the root may contain the labels of examples without class folders.

    Returns:
        The examples; None if there are none, or if their labels can only be in a table.

    Raises:
        InputError: If an example has no label or several, if the folder layout is ambiguous, or if images are in
            formats that cannot be read.
    """
    if not root.contains_examples:
        if not has_label_table and (problems := _unreadable(root, root, modality)):
            raise InputError(problems)
        return None
    at_root = _has_metadata(root, modality)
    classes = label_source.enabled and label_source.pattern is None
    splits = find_split_folders(
        root,
        has_labels=lambda folder: at_root or _has_metadata(folder, modality),
        nested=label_source.nested is not None,
        classes=classes,
    )
    if splits.problems:
        raise InputError(splits.problems)
    notes = list(splits.notes)
    problems = _unreadable_splits(root, modality)
    files: dict[str, tuple[LabeledFile, ...]] = {}
    metadata: dict[str, tuple[Path, ...]] = {}
    listed = set()
    for split, folder in splits.parts.items():
        metadata[split] = _metadata_of(folder, root)
        pattern = label_source.pattern
        if split != "train" and pattern is not None and not _any_matches(folder, pattern):
            reason = "has no labels in its file names"
            notes.append(f"{folder.name}/ {reason}, so the {split} split counts as missing.")
        elif not classes:
            files[split] = _label_by_name(folder, label_source)
        elif _is_listed(folder, at_root or _has_metadata(folder, modality)):
            files[split] = _label_by_name(folder, LabelSource(enabled=False))
            listed.add(split)
        elif folder.has_example_folders:
            files[split], class_notes, class_problems = _read_class_folders(
                folder, root, label_source, modality
            )
            notes += class_notes
            problems += class_problems
        elif has_label_table or (not modality.opens_files and folder is root and not _suggested(folder)):
            return None
        else:
            problems.append(_no_labels(folder, modality))
    if problems:
        raise InputError(problems)
    notes += _note_skipped_files(root, splits.parts.values(), modality)
    folders = {split: folder.path for split, folder in splits.parts.items()}
    return FolderExamples(folders, files, metadata, frozenset(listed), tuple(notes))


def _has_metadata(folder: Folder, modality: Modality) -> bool:
    return modality.opens_files and any(map(is_metadata, folder.other_files))


def _is_listed(folder: Folder, metadata: bool) -> bool:
    """Return whether metadata files list the examples of a split, because its folders cannot be class folders."""
    example_folders = [inner for inner in folder.folders if inner.contains_examples]
    return metadata and (bool(folder.examples) or len(example_folders) == 1)


def _metadata_of(folder: Folder, root: Folder) -> tuple[Path, ...]:
    root_metadata = [] if folder is root else [path for path in root.other_files if is_metadata(path)]
    in_folder = [path for path in folder.other_files if is_metadata(path)]
    nested_files = [path for inner in folder.walk() if inner is not folder for path in inner.other_files]
    return (*in_folder, *root_metadata, *filter(is_metadata, nested_files))


def _label_by_name(folder: Folder, label_source: LabelSource) -> tuple[LabeledFile, ...]:
    paths = [path for inner in folder.walk() for path in inner.examples]
    if label_source.pattern is None:
        return tuple(LabeledFile(path, None) for path in paths)
    labels = labels_from_names([path.name for path in paths], label_source.pattern)
    return tuple(map(LabeledFile, paths, labels))


def _any_matches(folder: Folder, pattern: str) -> bool:
    return any(re.search(pattern, path.name) for inner in folder.walk() for path in inner.examples)


def _read_class_folders(
    folder: Folder, root: Folder, label_source: LabelSource, modality: Modality
) -> tuple[tuple[LabeledFile, ...], list[str], list[Problem]]:
    """Label the files below a folder by their class folders; return them, notes, and problems."""
    files: list[LabeledFile] = []
    problems: list[Problem] = []
    empty: list[str] = []
    unlabeled: list[str] = []
    for class_folder in folder.folders:
        place = _relative(class_folder.shown, root)
        inner = [below for below in class_folder.walk() if below.examples]
        problems += _unreadable(class_folder, root, modality)
        if inner and class_folder.name.lower() in _UNLABELED:
            unlabeled.append(place)
        elif not inner:
            empty.append(place)
        elif inner == [class_folder] or label_source.nested is not None:
            problems += _splits_within(inner, class_folder, root) if label_source.nested == "join" else []
            for below in inner:
                named = class_folder if label_source.nested == "top" else below
                label = unicodedata.normalize("NFC", named.shown.relative_to(folder.shown).as_posix())
                files += [LabeledFile(path, label) for path in below.examples]
        else:
            too_deep = _nested_class_problem(class_folder, inner, root, modality)
            problems += _splits_within(inner, class_folder, root) or [too_deep]
    notes = []
    if empty:
        notes.append(
            f"Folders without {modality.plural_files} are not used as classes: {join_quoted(empty)}."
        )
    if unlabeled:
        shown = join_quoted(unlabeled)
        repair = "Rename a folder to use it as a class."
        notes.append(f"Folders named as unlabeled data were not read: {shown}. {repair}")
    if folder.examples and modality.opens_files:
        rule = f"must not contain {modality.plural_files} outside of the class folders"
        repair = "Move them into the folder of their class."
        shown = join_quoted(path.name for path in folder.examples)
        problems.append(Problem(_relative(folder.shown, root), rule, shown, repair))
    elif folder.examples:
        shown = join_quoted(_relative(path, root) for path in folder.examples)
        notes.append(f"Files next to the class folders were not read: {shown}.")
    return tuple(files), notes, problems


def _nested_class_problem(
    class_folder: Folder, inner: list[Folder], root: Folder, modality: Modality
) -> Problem:
    below = [folder for folder in inner if folder is not class_folder]
    joined = _relative(below[0].shown, root)
    repair = (
        f"Set data.nested: join to make each folder a class of its own ({joined!r}), data.nested: top to make the "
        f"outer folder the class ({_relative(class_folder.shown, root)!r}), or move the files up."
    )
    shown = join_quoted(_relative(path, root) for folder in below for path in folder.examples)
    place = _relative(class_folder.shown, root)
    return Problem(place, f"must not contain subfolders with {modality.plural_files}", shown, repair)


def _splits_within(inner: list[Folder], class_folder: Folder, root: Folder) -> list[Problem]:
    """Return a problem if a class folder contains split folders, which would be read as classes."""
    below = [folder for folder in inner if folder is not class_folder]
    if len({split_name(folder.name) for folder in below} - {None}) < 2:
        return []
    rule = "must be inside the split folders, not contain them"
    shown = join_quoted(_relative(folder.shown, root) for folder in below)
    repair = f"Move them, for example to '{below[0].name}/{class_folder.name}'."
    return [Problem(_relative(class_folder.shown, root), rule, shown, repair)]


def _unreadable(folder: Folder, root: Folder, modality: Modality) -> list[Problem]:
    """Return problems for files below a folder, at any depth, whose formats cannot be read."""
    problems: list[Problem] = []
    for below in folder.walk():
        place = _relative(below.shown, root)
        problems += modality.unreadable_files(place, [*below.examples, *below.other_files])
    return problems


def _unreadable_splits(root: Folder, modality: Modality) -> list[Problem]:
    """Return the problems of split folders that contain only files whose formats cannot be read."""
    return [
        problem
        for folder in root.folders
        if split_name(folder.name) is not None and not folder.contains_examples
        for problem in _unreadable(folder, root, modality)
    ]


def _no_labels(folder: Folder, modality: Modality) -> Problem:
    rule = f"must contain one folder of {modality.plural_files} per class"
    repair = "Create a folder for each class."
    if modality.opens_files:
        rule += ", or a file metadata.csv with the labels"
        repair = "Create a folder for each class, or add metadata.csv with the columns file_name and label."
    if pattern := _suggested(folder):
        field = f"data.columns.label: {{from: name, pattern: '{pattern}'}}"
        repair = f"If their names contain the class, set {field}."
    shown = join_quoted(path.name for path in folder.examples)
    return Problem(str(folder.path), rule, f"only files without labels: {shown}", repair)


def _suggested(folder: Folder) -> str | None:
    return suggested_pattern([path.name for path in folder.examples])


def _note_skipped_files(root: Folder, split_folders: Iterable[Folder], modality: Modality) -> list[str]:
    """Return notes on skipped files and on links that lead out of the root or were saved as text files."""
    skipped: list[Path] = []
    hidden: list[Path] = []
    for split_folder in split_folders:
        for folder in split_folder.walk():
            hidden += folder.hidden
            if folder is root:
                skipped += [path for path in folder.other_files if path.suffix.lower() in ARCHIVES]
            else:
                skipped += [path for path in folder.other_files if not is_metadata(path)]
    if root not in split_folders:
        skipped += [path for path in root.other_files if path.suffix.lower() in ARCHIVES]
    notes = []
    if skipped:
        shown = join_quoted(sorted(_relative(path, root) for path in skipped))
        notes.append(f"Files other than {modality.plural_files} were not read: {shown}.")
    if hidden:
        shown = join_quoted(_relative(path, root) for path in hidden)
        notes.append(
            f"Hidden files and folders were not read: {shown}. Rename them without the dot to use them."
        )
    for rule, links in (
        (f"Links to targets outside {str(root.path)!r}", root.links.outside),
        ("Links that were saved as text files (by git without support for symbolic links)", root.links.saved),
    ):
        if links:
            link, target = min(links.items())
            more = f" and {len(links) - 1} more" if len(links) > 1 else ""
            notes.append(f"{rule} were followed: {_relative(link, root)!r} to {str(target)!r}{more}.")
    return notes


def _relative(path: Path, root: Folder) -> str:
    return Path(os.path.relpath(path, root.path)).as_posix() if path != root.path else str(root.path)
