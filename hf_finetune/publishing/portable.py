"""A run's recipe, as it can be given to others."""

from pathlib import Path

from hf_finetune.recipe import Recipe, StageSpec, parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml

__all__ = ["LOCAL", "RECIPE", "is_local", "portable_recipe", "run_recipe"]

RECIPE = "recipe.yaml"
LOCAL = "./"
"""What the paths of a portable recipe begin with that lay on a local disk."""


def run_recipe(run: Path) -> Recipe:
    """Read a run's recipe as it stands: its paths are looked up nowhere."""
    content, _ = read_yaml((run / RECIPE).read_text(encoding="utf-8"), str(run / RECIPE))
    return parse_recipe(content)


def portable_recipe(recipe: Recipe) -> Recipe:
    """Give a recipe without the folders of this machine, and without where it is published.

    Of an absolute path its last part stays, behind ``./``: whoever repeats the run puts theirs there.
    """
    domain = recipe.domain_adaptation
    if domain is not None:
        domain = domain.model_copy(update={"target": _last_part(domain.target)})
    return recipe.model_copy(
        update={
            "domain_adaptation": domain,
            "model": recipe.model.model_copy(update={"path": _last_part(recipe.model.path)}),
            "data": recipe.data.model_copy(update={"path": _last_part(recipe.data.path)}),
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
    teacher = stage.teacher.model_copy(update={"path": _last_part(stage.teacher.path)})
    return stage.model_copy(update={"teacher": teacher})


def _last_part(path: str) -> str:
    return LOCAL + (Path(path).name or "local") if Path(path).is_absolute() else path
