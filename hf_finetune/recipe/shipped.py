"""The recipes that come with the package."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType

__all__ = ["find_shipped", "shipped_recipes"]


def shipped_recipes() -> Mapping[str, Path]:
    """Give the file of each recipe that comes with the package, by name (``text/imdb-bert``), sorted."""
    folder = _folder()
    found = sorted(folder.rglob("*.yaml"), key=lambda path: path.with_suffix("")) if folder else []
    return MappingProxyType(
        {path.relative_to(folder).with_suffix("").as_posix(): path for path in found if folder}
    )


def find_shipped(name: str) -> list[str]:
    """Give the shipped recipes that a name means: itself, or all that end in it (``imdb-bert``)."""
    names = shipped_recipes()
    return [name] if name in names else [full for full in names if full.rpartition("/")[2] == name]


def _folder() -> Path | None:
    """Find the folder inside the installed package, else the one beside it in a source checkout."""
    package = files("hf_finetune")
    with as_file(package) as root:
        installed, checkout = root / "shipped_recipes", root.parent
    if installed.is_dir():
        return installed
    beside = checkout / "recipes"
    return beside if beside.is_dir() and (checkout / "pyproject.toml").is_file() else None
