"""Recipes that ship with the package."""

import logging
from collections.abc import Collection, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType

__all__ = ["RENAMED", "find_shipped", "shipped_candidates", "shipped_recipes"]

logger = logging.getLogger(__name__)

RENAMED = MappingProxyType(
    {
        "image/dishes-resnet50": "image/food101-resnet50",
        "image/dishes-vit": "image/food101-vit",
    }
)
"""New name of each renamed recipe by its old name, which can still be used."""
_CANDIDATES = "candidates"
"""Folder among the recipes with the lists of checkpoints, one file for each modality."""


def shipped_recipes() -> Mapping[str, Path]:
    """Return the file of each shipped recipe by its name (``text/imdb-bert``), sorted by name."""
    folder = _folder()
    if folder is None:
        return MappingProxyType({})
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: path.with_suffix(""))
    named = ((path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths)
    return MappingProxyType({name: path for name, path in named if not name.startswith(f"{_CANDIDATES}/")})


def shipped_candidates(modality: str) -> Path | None:
    """Return the file that lists checkpoints for a modality; None if there is none.

    Args:
        modality: Name of the modality.
    """
    folder = _folder()
    path = folder / _CANDIDATES / f"{modality}.yaml" if folder else None
    return path if path is not None and path.is_file() else None


def find_shipped(name: str) -> list[str]:
    """Return the shipped recipes that match by full name, or by the last component of their name (``imdb-bert``).

    If none matches, old names of renamed recipes are searched, and a warning names the new one.

    Args:
        name: Name, or last component of a name.
    """
    if matches := _matching(name, shipped_recipes()):
        return matches
    old_names = _matching(name, RENAMED)
    for old in old_names:
        logger.warning("The shipped recipe %s is now named %s.", old, RENAMED[old])
    return [RENAMED[old] for old in old_names]


def _matching(name: str, names: Collection[str]) -> list[str]:
    return [name] if name in names else [full for full in names if full.rpartition("/")[2] == name]


def _folder() -> Path | None:
    """Return the recipe folder of the installed package or of the source checkout; None if there is none."""
    package = files("hf_finetune")
    with as_file(package) as root:
        installed, checkout = root / "shipped_recipes", root.parent
    if installed.is_dir():
        return installed
    in_checkout = checkout / "recipes"
    return in_checkout if in_checkout.is_dir() and (checkout / "pyproject.toml").is_file() else None
