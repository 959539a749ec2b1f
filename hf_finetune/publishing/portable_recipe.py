"""Recipe of a run, as written and without local paths."""

from pathlib import Path

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.yaml_text import read_yaml

__all__ = [
    "LOCAL_PREFIX",
    "MULTI_TASK_RECIPE_FILE",
    "RECIPE_FILE",
    "is_local",
    "portable_recipe",
    "published_recipe",
    "run_recipe",
]

RECIPE_FILE = "recipe.yaml"
MULTI_TASK_RECIPE_FILE = "joint-recipe.yaml"
"""File with the multi-task recipe in the folder of each task of a multi-task run."""
LOCAL_PREFIX = "./"
"""Prefix of the local paths in a portable recipe."""


def published_recipe(run: Path) -> Recipe:
    """Return the portable recipe of a run; for the folder of one task, return the multi-task recipe."""
    return portable_recipe(
        run_recipe(run, MULTI_TASK_RECIPE_FILE if (run / MULTI_TASK_RECIPE_FILE).is_file() else RECIPE_FILE)
    )


def run_recipe(run: Path, name: str = RECIPE_FILE) -> Recipe:
    """Return the recipe of a run as written, without resolving its paths."""
    content, _ = read_yaml((run / name).read_text(encoding="utf-8"), str(run / name))
    return parse_recipe(content)


def portable_recipe(recipe: Recipe) -> Recipe:
    """Return a copy of the recipe without absolute paths and without its ``publish`` section.

    An absolute path becomes ``./`` and its last component, which users replace by their own path to repeat the run.
    """
    return recipe.with_paths(_last_part).model_copy(update={"publish": None})


def is_local(path: str) -> bool:
    """Return whether a path of a recipe is on a local disk, rather than a model or dataset of the Hub or timm."""
    return Path(path).is_absolute() or path.startswith(LOCAL_PREFIX)


def _last_part(path: str) -> str:
    return LOCAL_PREFIX + (Path(path).name or "local") if Path(path).is_absolute() else path
