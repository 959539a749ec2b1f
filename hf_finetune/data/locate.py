"""Where data lies: what a recipe's ``data.path`` points at, found without reading any example."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

from hf_finetune.data.image_formats import PICTURE_SUFFIXES, unreadable_problems
from hf_finetune.data.metadata import METADATA
from hf_finetune.data.wording import quoted
from hf_finetune.errors import InputError, Problem

__all__ = ["FORMATS", "PICTURE_SUFFIXES", "SPLITS", "Location", "Modality", "locate", "split_name"]

Modality = Literal["image", "text"]

SPLITS = ("train", "validation", "test")
FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"} | {name: name for name in SPLITS}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class Location:
    """What a path points at.

    Attributes:
        kind: Class folders, data files, a folder written by ``save_to_disk``, or a Hub id.
        root: The folder that relative paths start from. None on the Hub.
        parts: For each split, its data files, or the one folder that holds its class folders.
        notes: What was left aside.
    """

    kind: Literal["class_folders", "files", "saved", "hub"]
    root: Path | None = None
    parts: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def split_name(name: str) -> str | None:
    """Give the split that a name stands for, or None: ``val``, ``valid`` and ``dev`` are ``validation``."""
    return _ALIASES.get(name.lower())


def locate(path: str, modality: Modality) -> Location:
    """Tell what ``path`` points at.

    Args:
        path: A folder, a csv, json, jsonl or parquet file, or a Hub id.
        modality: What an example is. Class folders hold images only.

    Raises:
        InputError: If nothing is there, or if what is there has no layout that can be read.
    """
    local = Path(path).expanduser().absolute()
    if local.is_dir():
        return _locate_folder(local, modality)
    if local.is_file():
        return _locate_file(local)
    if _may_be_hub_id(path):
        return Location("hub")
    raise InputError(
        Problem("data.path", "must be a folder, a data file or a Hub id", repr(path), _nearest_path(local))
    )


def _may_be_hub_id(path: str) -> bool:
    """A first part that is a folder here, or a data file's ending, means that a local path was meant."""
    if (
        not _HUB_ID.fullmatch(path)
        or Path(path).suffix.lower() in FORMATS
        or path in _PACKAGED_DATASETS_MODULES
    ):
        return False
    return "/" not in path or not Path(path).parent.is_dir()


def _nearest_path(missing: Path) -> str:
    """Name the entry most like the first part of the path that does not exist."""
    while not missing.parent.is_dir():
        missing = missing.parent
    close = get_close_matches(missing.name, [entry.name for entry in missing.parent.iterdir()], n=1)
    if close:
        return f"Nearest: '{missing.parent / close[0]}'."
    return f"'{missing.parent}' holds nothing of that name."


def _locate_file(file: Path) -> Location:
    if file.suffix.lower() not in FORMATS:
        known = "Known: csv, json, jsonl, parquet."
        raise InputError(Problem("data.path", "must be a file of a known format", repr(str(file)), known))
    return Location("files", file.parent, {"train": (file,)})


def _locate_folder(folder: Path, modality: Modality) -> Location:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return Location("saved", folder)
    files = _data_files(folder) or _data_files(folder / "data")
    named = any(_split_of_file(file) for file in files)
    # A single folder beside a data file is what that file's path column points into.
    beside = bool(files) and len(_folders(folder)) <= 1
    if modality == "image" and not named and not beside:
        pictures = _locate_class_folders(folder)
        others = [file.name for file in files if file.stem != METADATA]
        if pictures is not None and others:
            note = f"Files beside the class folders were not read: {quoted(others)}."
            return replace(pictures, notes=(*pictures.notes, note))
        if pictures is not None:
            return pictures
    if files:
        return _locate_files(folder, files)
    wanted = "hold class folders of images, or " if modality == "image" else "hold "
    raise InputError(
        Problem(
            "data.path",
            f"must {wanted}csv, json, jsonl or parquet files, or a dataset saved by save_to_disk",
            repr(str(folder)),
        )
    )


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [entry for entry in _entries(folder) if entry.is_file() and entry.suffix.lower() in FORMATS]


def _split_of_file(file: Path) -> str | None:
    """``train-00000-of-00002.parquet`` and ``dishes_val.csv`` name their split. Two names are none."""
    found = {split_name(word) for word in re.split(r"[^a-z]+", file.stem.lower())} - {None}
    return found.pop() if len(found) == 1 else None


def _locate_files(folder: Path, files: list[Path]) -> Location:
    parts: dict[str, tuple[Path, ...]] = {}
    for file in files:
        split = _split_of_file(file)
        if split is not None:
            parts[split] = (*parts.get(split, ()), file)
    if not parts and len(files) == 1:
        return Location("files", folder, {"train": (files[0],)})
    if not parts:
        shown = quoted(file.name for file in files)
        repair = "Name one file train (train.csv, train-00000.parquet), or give the path of a single file."
        raise InputError(Problem("data.path", "must hold files named after their split", shown, repair))
    problems = [
        Problem(
            "data.path",
            f"must hold the {split} split in one format",
            quoted(file.name for file in found),
            "Remove the files of the other formats.",
        )
        for split, found in parts.items()
        if len({FORMATS[file.suffix.lower()] for file in found}) > 1
    ]
    if problems:
        raise InputError(problems)
    others = [file.name for file in files if _split_of_file(file) is None]
    notes = (f"Files that name no split were not read: {quoted(others)}.",) if others else ()
    return Location("files", folder, parts, notes)


def _locate_class_folders(root: Path) -> Location | None:
    """Find class folders below the root or below its split folders. None if they hold no pictures."""
    # A class may be called train: a folder of a split's name is a split only if it holds folders.
    below_splits = any(
        split_name(folder.name) is not None and _folders(folder) and not _pictures(folder)
        for folder in _folders(root)
    )
    parts: dict[str, tuple[Path, ...]] = {}
    notes: list[str] = []
    problems: list[Problem] = []
    if below_splits:
        others = []
        for folder in _folders(root):
            split = split_name(folder.name)
            if split is None:
                others.append(folder.name)
            elif not _folders(folder):
                notes.append(f"{folder.name}/ has no class folders, so the {split} split counts as missing.")
            else:
                parts[split] = (*parts.get(split, ()), folder)
        if others:
            notes.append(f"Folders that name no split were not read: {quoted(others)}.")
        for split, found in parts.items():
            if len(found) > 1:
                names = quoted(folder.name for folder in found)
                rule = f"must hold one folder for the {split} split"
                problems.append(Problem("data.path", rule, names, "Keep one of them."))
    else:
        parts["train"] = (root,)
    pictures_found = False
    for folders in parts.values():
        for class_folder in _folders(folders[0]):
            has_pictures, folder_notes, folder_problems = _check_class_folder(class_folder, root)
            pictures_found = pictures_found or has_pictures
            notes += folder_notes
            problems += folder_problems
        stray = _pictures(folders[0])
        if stray:
            place, shown = _relative(folders[0], root), quoted(file.name for file in stray)
            repair = "Move them into the folder of their class."
            problems.append(Problem(place, "must hold its pictures in one folder per class", shown, repair))
    if not pictures_found:
        return None
    if problems:
        raise InputError(problems)
    return Location("class_folders", root, parts, tuple(notes))


def _check_class_folder(folder: Path, root: Path) -> tuple[bool, list[str], list[Problem]]:
    """Say whether a class folder holds pictures, which files are none, and which lie too deep."""
    place = _relative(folder, root)
    pictures = _pictures(folder)
    others = [
        entry
        for entry in _entries(folder)
        if entry.is_file() and entry.suffix.lower() not in PICTURE_SUFFIXES and entry.stem != METADATA
    ]
    deeper = [file for below in _folders(folder) for file in _pictures(below)]
    notes = (
        [f"{place}: files that are no pictures were not read: {quoted(f.name for f in others)}."]
        if others
        else []
    )
    problems = unreadable_problems(place, [*pictures, *others])
    if not pictures and not deeper:
        return bool(problems), [f"{place} holds no pictures."], problems
    if deeper:
        repair = "Move them up into the folder of their class."
        shown = quoted(_relative(file, root) for file in deeper)
        problems.append(Problem(place, "must hold its pictures itself, not in folders below", shown, repair))
    return True, notes, problems


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()] if folder.is_dir() else []


def _pictures(folder: Path) -> list[Path]:
    return [
        entry for entry in _entries(folder) if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file()
    ]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else str(root)
