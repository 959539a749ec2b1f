"""Split folders: detection of the subfolders that are splits, as opposed to classes with the name of a split."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hf_finetune.data.folder_tree import Folder
from hf_finetune.data.split_names import split_name, split_of_words
from hf_finetune.errors import Problem, join_quoted

__all__ = ["SplitFolders", "find_split_folders", "single_subfolder"]


@dataclass(frozen=True)
class SplitFolders:
    """Folder of each split.

    Attributes:
        parts: Folder with the examples or class folders of each split; ``train`` is the root if no folder is a split.
        notes: Messages to the user on the interpretation of names and on ignored folders.
        problems: Problems of ambiguous split folders.
    """

    parts: Mapping[str, Folder]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def single_subfolder(folder: Folder, is_table: Callable[[Path], bool], allow_examples: bool) -> Folder | None:
    """Return the only subfolder with data, as unpacked archives have; None if the data is in ``folder`` itself.

    Args:
        folder: Folder of the recipe's ``data.path``.
        is_table: Function that returns whether a file contains a table of examples.
        allow_examples: Whether files that look like examples, such as README.txt, are allowed next to the subfolder.
    """
    if (folder.examples and not allow_examples) or any(map(is_table, folder.other_files)):
        return None
    example_folders = [inner for inner in folder.folders if inner.contains_examples]
    example_folders = example_folders or list(folder.folders)
    if len(example_folders) != 1 or split_name(example_folders[0].name) is not None:
        return None
    inner = example_folders[0]
    has_structure = inner.has_example_folders and (allow_examples or not inner.examples)
    return inner if has_structure or any(map(is_table, inner.other_files)) else None


def find_split_folders(
    root: Folder, *, has_labels: Callable[[Folder], bool], nested: bool, classes: bool
) -> SplitFolders:
    """Return the folders that are splits, with notes and problems.

    A class may also be named ``train``. A folder with the name of a split is a split if at least one of these is true:

    - It contains folders of examples.
    - A table labels its examples.
    - Another folder is named after another split.
    - There is no other folder.

    Args:
        root: Folder with the split folders, or the train split itself.
        has_labels: Function that returns whether a table labels the examples directly in a folder.
        nested: Whether class folders may contain folders of examples.
        classes: Whether folders can be classes; if not, labels are in file names, or there are none.
    """
    example_folders = [folder for folder in root.folders if folder.contains_examples]
    splits = _named_splits(example_folders)
    others = [folder for folder in example_folders if folder not in splits]
    if not splits:
        return SplitFolders({"train": root})
    notes: list[str] = []
    if classes:
        deep = [folder for folder in splits if folder.has_example_folders]
        if others and len(set(splits.values())) == 1:
            neighbors = [folder for folder in others if folder.examples]
            as_class = all(folder.examples and not has_labels(folder) for folder in splits)
            if neighbors and as_class:
                shown = join_quoted(folder.name for folder in splits)
                return SplitFolders({"train": root}, (f"{shown} is read as a class, not as a split.",))
            if nested or len(neighbors) > 1:
                return SplitFolders({"train": root}, (), (_ambiguous_folders_problem(root, splits, others),))
        unlabeled = [folder for folder in splits if folder not in deep and not has_labels(folder)]
        if len(unlabeled) < len(splits):
            notes += [
                f"{folder.name}/ has no class folders, so the {splits[folder]} split counts as missing."
                for folder in unlabeled
            ]
            splits = {folder: split for folder, split in splits.items() if folder not in unlabeled}
    split_folders = _collect(splits, others, notes)
    return _remove_wrapper(split_folders) if classes else split_folders


def _named_splits(folders: list[Folder]) -> dict[Folder, str]:
    """Return the split of each folder named after one: by whole names, or by words in them if those fit better."""
    whole = {folder: split_name(folder.name) for folder in folders}
    words = {folder: split_of_words(folder.name) for folder in folders}
    by_words = {"train"} < {*words.values()} - {None} and (
        None not in words.values()
        or (not any(whole.values()) and any(folder.has_example_folders for folder in folders))
    )
    both_named = {"train"} < {*whole.values()} - {None}
    names = words if by_words and not both_named else whole
    return {folder: split for folder, split in names.items() if split is not None}


def _remove_wrapper(split_folders: SplitFolders) -> SplitFolders:
    """Replace each split folder by its only subfolder, if that contains the class folders in every split."""
    inner = {
        split: [below for below in folder.folders if below.contains_examples]
        for split, folder in split_folders.parts.items()
        if not folder.examples
    }
    if inner.keys() < split_folders.parts.keys() or not all(
        len(below) == 1 and below[0].has_example_folders and not below[0].examples for below in inner.values()
    ):
        return split_folders
    parts = {split: below[0] for split, below in inner.items()}
    shown = join_quoted(f"{split_folders.parts[split].name}/{folder.name}" for split, folder in parts.items())
    note = f"The class folders are read from {shown}, the only folders of their splits."
    return replace(split_folders, parts=parts, notes=(*split_folders.notes, note))


def _ambiguous_folders_problem(root: Folder, splits: Mapping[Folder, str], others: list[Folder]) -> Problem:
    split = join_quoted(folder.name for folder in splits)
    value = f"{split} (a split name) and {join_quoted(folder.name for folder in others)}"
    repair = f"If {split} is a class, rename it; if it is a split, move the other folders elsewhere."
    rule = "must contain either split folders or class folders"
    return Problem(str(root.path), rule, value, repair)


def _collect(splits: Mapping[Folder, str], others: list[Folder], notes: list[str]) -> SplitFolders:
    parts: dict[str, list[Folder]] = {}
    for folder, split in splits.items():
        parts.setdefault(split, []).append(folder)
    renamed = [
        f"{folder.name!r} as {split}" for folder, split in splits.items() if split_name(folder.name) is None
    ]
    if renamed:
        notes.append(f"Folders read as splits: {', '.join(renamed)}.")
    if others:
        shown = join_quoted(folder.name for folder in others)
        notes.append(f"Folders not named after a split were not read: {shown}.")
    problems = []
    for split, folders in parts.items():
        if len(folders) > 1:
            rule = f"must contain one folder for the {split} split"
            shown = join_quoted(folder.name for folder in folders)
            problems.append(Problem("data.path", rule, shown, "Keep one of them."))
    chosen = {split: folders[0] for split, folders in parts.items()}
    return SplitFolders(chosen, tuple(notes), tuple(problems))
