"""Safety check of ``save_to_disk`` folders: their JSON must not refer to files outside the folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_finetune.errors import InputError, Problem

__all__ = ["check_saved_folder"]

FILE_LISTS = ("_data_files", "_indices_data_files")


def check_saved_folder(folder: Path) -> None:
    """Check that a saved dataset refers only to files and splits inside its folder.

    Args:
        folder: Folder with ``state.json``, or with ``dataset_dict.json`` and a folder for each split.

    Raises:
        InputError: If it refers to a path outside. No data file is read before that.
    """
    splits = _read(folder / "dataset_dict.json").get("splits")
    names = [str(name) for name in splits] if isinstance(splits, list) else []
    problems = [_outside(folder / "dataset_dict.json", name) for name in names if not _is_inside(name)]
    for place in [folder, *(folder / name for name in names if _is_inside(name))]:
        named = _file_names(_read(place / "state.json"))
        problems += [_outside(place / "state.json", name) for name in named if not _is_inside(name)]
    if problems:
        raise InputError(problems)


def _file_names(state: dict[str, Any]) -> Iterator[str]:
    for key in FILE_LISTS:
        entries = state.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "filename" in entry:
                yield str(entry["filename"])


def _is_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _outside(file: Path, name: str) -> Problem:
    return Problem(str(file), "must name files of its own folder", repr(name), "Save the dataset again.")


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if it is missing or damaged, which loading the dataset reports."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
