"""Staged fine-tuning of image and text classifiers: each stage trains exactly the parameters that it declares.

The public names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_finetune.errors import InputError, Problem
    from hf_finetune.evaluation.evaluate_run import evaluate
    from hf_finetune.evaluation.predict import Predictor
    from hf_finetune.models.groups import parameter_groups
    from hf_finetune.models.layout import read_layout
    from hf_finetune.planning.stages import build_plan
    from hf_finetune.recipe.load import load_recipe, parse_recipe
    from hf_finetune.recipe.schema import Recipe
    from hf_finetune.recipe.stage import Stage
    from hf_finetune.runs.planner import plan
    from hf_finetune.runs.run import RunResult, run
    from hf_finetune.training.freezing_callback import FreezingCallback
    from hf_finetune.training.staged_trainer import StagedTrainer

__version__ = "0.1.0"

__all__ = [
    "FreezingCallback",
    "InputError",
    "Predictor",
    "Problem",
    "Recipe",
    "RunResult",
    "Stage",
    "StagedTrainer",
    "build_plan",
    "evaluate",
    "load_recipe",
    "parameter_groups",
    "parse_recipe",
    "plan",
    "read_layout",
    "run",
]

_HOME = {
    "FreezingCallback": "hf_finetune.training.freezing_callback",
    "InputError": "hf_finetune.errors",
    "Predictor": "hf_finetune.evaluation.predict",
    "Problem": "hf_finetune.errors",
    "Recipe": "hf_finetune.recipe.schema",
    "RunResult": "hf_finetune.runs.run",
    "Stage": "hf_finetune.recipe.stage",
    "StagedTrainer": "hf_finetune.training.staged_trainer",
    "build_plan": "hf_finetune.planning.stages",
    "evaluate": "hf_finetune.evaluation.evaluate_run",
    "load_recipe": "hf_finetune.recipe.load",
    "parameter_groups": "hf_finetune.models.groups",
    "parse_recipe": "hf_finetune.recipe.load",
    "plan": "hf_finetune.runs.planner",
    "read_layout": "hf_finetune.models.layout",
    "run": "hf_finetune.runs.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
