"""Paths in a recipe: which of them can only be local, and what is said of one that is not there."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hf_finetune.errors import Problem
from hf_finetune.files import can_be_path

__all__ = ["is_local", "missing_checkpoint", "missing_data", "no_data", "path_problems", "similar_here"]

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
TIMM = "timm/"
DATA_ENDINGS = (
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".gz", ".zip", ".arrow",
)  # fmt: skip
ALMOST = 0.8
"""Similarity of two names, from 0 to 1, from which one is taken for the other, misspelt."""
MADE_BY = {"assets": "Run `make assets` in the checkout of hf-finetune."}
"""Folders that a command makes, by their name."""


def is_local(path: str, folders: Sequence[Path] = ()) -> bool:
    """Return whether a path can only mean a local file or folder, and so the Hub need not be asked.

    That holds for a path without the form of a Hub id (``NAME`` or ``OWNER/NAME``), one that no file can have, one that
    ends like a data file or is almost the name of one that is here, and one whose first folder is here or is made by a
    command of this project.

    Args:
        path: As a recipe has it.
        folders: Where relative paths are looked up besides the current folder.
    """
    if not HUB_ID.fullmatch(path) or not can_be_path(path) or path.lower().endswith(DATA_ENDINGS):
        return True
    owner, slash, _ = path.partition("/")
    if not slash:
        return _is_misspelt(path, folders)
    if path.startswith(TIMM):
        return False
    return owner in MADE_BY or any((folder / owner).is_dir() for folder in (Path.cwd(), *folders))


def _is_misspelt(name: str, folders: Sequence[Path]) -> bool:
    """Return whether a name with an ending is almost that of a data file that is here."""
    if "." not in name:
        return False
    here = [folder for folder in (Path.cwd(), *folders) if folder.is_dir()]
    files = [entry.name for folder in here for entry in folder.iterdir()]
    data = [file for file in files if file.lower().endswith(DATA_ENDINGS)]
    return bool(get_close_matches(name, data, n=1, cutoff=ALMOST))


def path_problems(content: Any, folders: Sequence[Path] = ()) -> list[Problem]:
    """Return a problem for each local path of a recipe at which there is nothing; reads no file.

    Args:
        content: A recipe's fields as plain mappings and lists, as valid or as wrong as they are.
        folders: Where relative paths are looked up besides the current folder.
    """
    found = []
    for place, path, is_model in _paths(content):
        missing = (missing_checkpoint if is_model else missing_data)(path, folders)
        if missing is not None:
            found.append(Problem(place, missing.rule, missing.value, missing.repair))
    return found


def _paths(content: Any) -> Iterator[tuple[str, str, bool]]:
    """Yield place and path of each model and data set, and whether it is a model."""
    if not isinstance(content, dict):
        return
    sources: list[tuple[str, Any, str, bool]] = [("data", content.get("data"), "path", False)]
    tasks = content.get("tasks")
    for name, task in (tasks if isinstance(tasks, dict) else {}).items():
        sources.append(
            (f"tasks.{name}.data", task.get("data") if isinstance(task, dict) else None, "path", False)
        )
    sources.append(("domain_adaptation", content.get("domain_adaptation"), "target", False))
    sources.append(("model", content.get("model"), "path", True))
    for place, value, field, is_model in sources:
        path = value.get(field) if isinstance(value, dict) else value
        if isinstance(path, str) and path.strip() and not (field == "target" and path is value):
            yield f"{place}.{field}", path, is_model


def missing_checkpoint(path: str, folders: Sequence[Path] = ()) -> Problem | None:
    """Return the problem of a local checkpoint that is not there; None if it is, or is not meant to be local."""
    if not _is_missing(path, folders):
        return None
    close = _close(path, folders)
    if close:
        repair = f"Nearest: {path.rstrip('/').removesuffix(Path(path).name) + close!r}."
    else:
        repair = _made_by(path) or "There is no such folder."
    rule = "must be a checkpoint: a folder with config.json, or a name on the Hub"
    return Problem("model.path", rule, repr(path), repair)


def missing_data(path: str, folders: Sequence[Path] = ()) -> Problem | None:
    """Return the problem of local data that is not there; None if it is, or is not meant to be local."""
    return no_data(path) if _is_missing(path, folders) else None


def no_data(path: str) -> Problem:
    """Return the problem of data at a path where there is nothing."""
    rule = "must be a folder, a data file or a Hub id"
    if not can_be_path(path):
        return Problem("data.path", rule, repr(path), "No file can have this name.")
    nearest = _nearest_path(Path(path).expanduser().absolute())
    repair = nearest if nearest.startswith("Nearest") else _made_by(path) or nearest
    return Problem("data.path", rule, repr(path), repair)


def similar_here(path: str) -> str:
    """Return a sentence with the entry whose name a path probably misspells; empty if there is none.

    Args:
        path: That of nothing here.
    """
    missing = Path(path).absolute()
    here = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    close = get_close_matches(missing.name, here, n=1, cutoff=ALMOST)
    return f"Nearest: '{missing.parent / close[0]}'." if close else ""


def _nearest_path(missing: Path) -> str:
    """Return a sentence with the entry most like the first part of an absolute path that does not exist."""
    while not missing.parent.is_dir():
        missing = missing.parent
    close = get_close_matches(missing.name, [entry.name for entry in missing.parent.iterdir()], n=1)
    if close:
        return f"Nearest: '{missing.parent / close[0]}'."
    return f"'{missing.parent}' holds nothing of that name."


def _is_missing(path: str, folders: Sequence[Path]) -> bool:
    try:
        there = any((folder / Path(path).expanduser()).exists() for folder in (Path.cwd(), *folders))
    except (OSError, RuntimeError):  # longer than file names can be, or ~somebody who has no home here
        there = False
    return not there and is_local(path, folders)


def _close(path: str, folders: Sequence[Path]) -> str:
    """Return the entry most like the last part of a path, in the folder that should hold it; else an empty text."""
    for folder in (Path.cwd(), *folders):
        try:
            target = (folder / Path(path).expanduser()).absolute()
            names = [entry.name for entry in target.parent.iterdir()]
        except (OSError, RuntimeError):
            continue
        if close := get_close_matches(target.name, names, n=1):
            return close[0]
    return ""


def _made_by(path: str) -> str:
    """Return how to make a folder that a command of this project makes; empty for any other path."""
    first = Path(path).parts[:1]
    return MADE_BY.get(first[0], "") if first else ""
