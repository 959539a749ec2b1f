"""Paths in a recipe: distinction of local paths from Hub ids, and problems of local paths that do not exist."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hf_finetune.errors import Problem
from hf_finetune.files import is_valid_path

__all__ = [
    "data_path_problem",
    "is_local",
    "missing_checkpoint",
    "missing_data",
    "path_problems",
    "similar_path_hint",
]

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
TIMM = "timm/"
DATA_SUFFIXES = (
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".gz", ".zip", ".arrow",
)  # fmt: skip
"""Suffixes of data files."""
SIMILARITY_CUTOFF = 0.8
"""Minimum similarity of two names, in [0, 1], at which one is considered a misspelling of the other."""
CREATED_BY = {"assets": "Run `make assets` in the checkout of hf-finetune."}
"""Instruction for creating a folder of this project, by the name of the folder."""


def is_local(path: str, folders: Sequence[Path] = ()) -> bool:
    """Return whether a path is local and not a Hub id, so that no request to the Hub is needed.

    A path is local if it does not have the form of a Hub id (``NAME`` or ``OWNER/NAME``), if it has the suffix of a
    data file or is a misspelled name of an existing one, or if its first folder exists or is created by a command of
    this project. ``timm/NAME`` is a Hub id even if a folder ``timm`` exists.

    Args:
        path: Path as in the recipe.
        folders: Folders in which relative paths are looked up in addition to the working directory.
    """
    if not HUB_ID.fullmatch(path) or not is_valid_path(path) or path.lower().endswith(DATA_SUFFIXES):
        return True
    owner, slash, _ = path.partition("/")
    if not slash:
        return _is_misspelled(path, folders)
    if path.startswith(TIMM):
        return False
    return owner in CREATED_BY or any((folder / owner).is_dir() for folder in (Path.cwd(), *folders))


def _is_misspelled(name: str, folders: Sequence[Path]) -> bool:
    """Return whether a name with an extension is almost the name of an existing data file."""
    if "." not in name:
        return False
    existing = [folder for folder in (Path.cwd(), *folders) if folder.is_dir()]
    names = [entry.name for folder in existing for entry in folder.iterdir()]
    data_files = [name for name in names if name.lower().endswith(DATA_SUFFIXES)]
    return bool(get_close_matches(name, data_files, n=1, cutoff=SIMILARITY_CUTOFF))


def path_problems(content: Any, folders: Sequence[Path] = ()) -> list[Problem]:
    """Return a problem for each local path of a recipe that does not exist; no file is read.

    Args:
        content: Fields of the recipe as plain mappings and lists, which may be invalid.
        folders: Folders in which relative paths are looked up in addition to the working directory.
    """
    problems = []
    for place, path, is_model in _paths(content):
        missing = (missing_checkpoint if is_model else missing_data)(path, folders)
        if missing is not None:
            problems.append(Problem(place, missing.rule, missing.value, missing.repair))
    return problems


def _paths(content: Any) -> Iterator[tuple[str, str, bool]]:
    """Yield the place and the path of each model and dataset, and whether it is a model."""
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
    """Return the problem of a local checkpoint that does not exist; None if it exists or may be on the Hub."""
    if not _is_missing(path, folders):
        return None
    close = _similar_name(path, folders)
    if close:
        repair = f"Nearest: {path.rstrip('/').removesuffix(Path(path).name) + close!r}."
    else:
        repair = _creation_hint(path) or "There is no such folder."
    rule = "must be a checkpoint: a folder with config.json, or a name on the Hub"
    return Problem("model.path", rule, repr(path), repair)


def missing_data(path: str, folders: Sequence[Path] = ()) -> Problem | None:
    """Return the problem of local data that does not exist; None if it exists or may be on the Hub."""
    return data_path_problem(path) if _is_missing(path, folders) else None


def data_path_problem(path: str) -> Problem:
    """Return the problem of a data path that does not exist."""
    rule = "must be a folder, a data file or a Hub id"
    if not is_valid_path(path):
        return Problem("data.path", rule, repr(path), "It is not a valid file name.")
    nearest = _nearest_path(Path(path).expanduser().absolute())
    repair = nearest if nearest.startswith("Nearest") else _creation_hint(path) or nearest
    return Problem("data.path", rule, repr(path), repair)


def similar_path_hint(path: str) -> str:
    """Return a hint at the existing path that was probably meant; empty if there is none.

    Args:
        path: Path that does not exist.
    """
    missing = Path(path).absolute()
    names = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    close = get_close_matches(missing.name, names, n=1, cutoff=SIMILARITY_CUTOFF)
    return f"Nearest: '{missing.parent / close[0]}'." if close else ""


def _nearest_path(missing: Path) -> str:
    """Return a hint at the existing path that is most similar, up to the first component that does not exist."""
    while not missing.parent.is_dir():
        missing = missing.parent
    close = get_close_matches(missing.name, [entry.name for entry in missing.parent.iterdir()], n=1)
    if close:
        return f"Nearest: '{missing.parent / close[0]}'."
    return f"'{missing.parent}' contains no file or folder with this name."


def _is_missing(path: str, folders: Sequence[Path]) -> bool:
    try:
        exists = any((folder / Path(path).expanduser()).exists() for folder in (Path.cwd(), *folders))
    except (OSError, RuntimeError):  # the path is too long, or ~user has no home directory on this machine
        exists = False
    return not exists and is_local(path, folders)


def _similar_name(path: str, folders: Sequence[Path]) -> str:
    """Return the most similar name in the parent folder of a path; empty if there is none."""
    for folder in (Path.cwd(), *folders):
        try:
            target = (folder / Path(path).expanduser()).absolute()
            names = [entry.name for entry in target.parent.iterdir()]
        except (OSError, RuntimeError):
            continue
        if close := get_close_matches(target.name, names, n=1):
            return close[0]
    return ""


def _creation_hint(path: str) -> str:
    """Return the instruction for creating a folder of this project; empty for any other path."""
    first = Path(path).parts[:1]
    return CREATED_BY.get(first[0], "") if first else ""
