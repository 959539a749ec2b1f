"""Quick check of the fields and local paths of a recipe, before any large library is imported."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_finetune.errors import InputError, Problem
from hf_finetune.recipe.load import RecipeError, find_recipe, load_recipe, parse_recipe, resolve_paths
from hf_finetune.recipe.paths import path_problems
from hf_finetune.recipe.schema import Recipe

__all__ = ["check_fields_and_paths"]

ESSENTIAL_FIELDS = ("task", "model", "data", "domain_adaptation", "recipe")
"""Fields on which all other checks depend: if one of them is invalid, the recipe is not checked further."""
PLACEHOLDER_STAGE = {"train": "all", "epochs": 1.0, "lr": 1e-3}
"""Valid values of the required fields of a stage, which replace invalid ones."""
STAGE = re.compile(r"stages\[(\d+)\]")


def check_fields_and_paths(
    source: str | Path, overrides: Sequence[str] = ()
) -> tuple[Recipe | None, list[Problem]]:
    """Load a recipe and check its fields and paths.

    Args:
        source: Path of a recipe file, or name of a shipped recipe, as for ``load_recipe``.
        overrides: Fields to change, as ``KEY=VALUE``.

    Returns:
        Recipe without its invalid fields, or None if it cannot be checked further; and all problems.
    """
    content: Any = None
    problems: list[Problem] = []
    recipe: Recipe | None = None
    try:
        recipe = load_recipe(source, overrides)
        content = recipe.model_dump(mode="json")
    except RecipeError as error:
        problems, content = list(error.problems), error.content
        recipe = _without_invalid_fields(content, problems)
    except InputError as error:
        return None, list(error.problems)
    folder = find_recipe(source).parent
    if recipe is not None and problems:
        recipe = resolve_paths(recipe, [Path.cwd(), folder])
    return recipe, [*problems, *path_problems(content, [folder])]


def _without_invalid_fields(content: Mapping[str, Any], problems: Sequence[Problem]) -> Recipe | None:
    """Return a recipe without its invalid fields; None if it cannot be checked further."""
    if any(problem.place.startswith(ESSENTIAL_FIELDS) for problem in problems):
        return None
    pruned = copy.deepcopy(dict(content))
    for problem in problems:
        _remove(pruned, problem.place)
    try:
        return parse_recipe(pruned)
    except InputError:
        return None


def _remove(content: dict[str, Any], place: str) -> None:
    """Remove the field at a place such as ``stages[0].lr``; a required field of a stage gets a valid value instead."""
    if "=" in place:  # an override that could not be parsed, and so was not applied
        return
    stage = STAGE.match(place)
    if stage is not None:
        stages = content.get("stages")
        stages = [stages] if isinstance(stages, dict) else stages
        index = int(stage[1])
        if not isinstance(stages, list) or index >= len(stages):
            return
        content["stages"] = stages
        field_path = place[stage.end() + 1 :]
        field = re.split(r"[.\[]", field_path)[0]
        if not isinstance(stages[index], dict) or not field:
            stages[index] = dict(PLACEHOLDER_STAGE)
            return
        stages[index].pop(field, None)
        for needed, value in PLACEHOLDER_STAGE.items():
            if needed not in stages[index] and not (needed == "epochs" and "max_steps" in stages[index]):
                stages[index][needed] = value
        return
    root = re.split(r"[.\[]", place)[0]
    content.pop(root, None)
    if root in ("stages", "strategy") and not content.get("stages"):
        content["stages"] = [dict(PLACEHOLDER_STAGE)]
