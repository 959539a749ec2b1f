"""A run's recipe, as it can be given to others."""

from pathlib import Path
from typing import Any

from hf_finetune.recipe import MultiTaskRecipe, Recipe, StageSpec, parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml

__all__ = ["JOINT", "LOCAL", "RECIPE", "is_local", "portable_recipe", "published_recipe", "run_recipe"]

RECIPE = "recipe.yaml"
JOINT = "joint-recipe.yaml"
"""In the folder of one of several tasks: the recipe of all of them, by which its model was made."""
LOCAL = "./"
"""What the paths of a portable recipe begin with that lay on a local disk."""


def published_recipe(run: Path) -> Recipe:
    """Give the recipe by which a run's model was made, as it can be given to others."""
    return portable_recipe(run_recipe(run, JOINT if (run / JOINT).is_file() else RECIPE))


def run_recipe(run: Path, name: str = RECIPE) -> Recipe:
    """Read a run's recipe as it stands: its paths are looked up nowhere."""
    content, _ = read_yaml((run / name).read_text(encoding="utf-8"), str(run / name))
    return parse_recipe(content)


def portable_recipe(recipe: Recipe) -> Recipe:
    """Give a recipe without the folders of this machine, and without where it is published.

    Of an absolute path its last part stays, behind ``./``: whoever repeats the run puts theirs there.
    """
    if isinstance(recipe, MultiTaskRecipe):
        datas = {name: _portable_path(task.data) for name, task in recipe.tasks.items()}
        tasks = {name: task.model_copy(update={"data": datas[name]}) for name, task in recipe.tasks.items()}
        update: dict[str, Any] = {"tasks": tasks}
    else:
        update = {"data": _portable_path(recipe.data)}
    domain = recipe.domain_adaptation
    if domain is not None:
        update["domain_adaptation"] = domain.model_copy(update={"target": _last_part(domain.target)})
    return recipe.model_copy(
        update={
            **update,
            "model": _portable_path(recipe.model),
            "stages": tuple(_portable_stage(stage) for stage in recipe.stages),
            "publish": None,
        }
    )


def is_local(path: str) -> bool:
    """Say whether a path of a recipe is none of the Hub, nor of timm."""
    return Path(path).is_absolute() or path.startswith(LOCAL)


def _portable_stage(stage: StageSpec) -> StageSpec:
    if stage.teacher is None:
        return stage
    return stage.model_copy(update={"teacher": _portable_path(stage.teacher)})


def _portable_path(part: Any) -> Any:
    return part.model_copy(update={"path": _last_part(part.path)})


def _last_part(path: str) -> str:
    return LOCAL + (Path(path).name or "local") if Path(path).is_absolute() else path
