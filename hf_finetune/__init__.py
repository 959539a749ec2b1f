"""Staged fine-tuning of image and text classifiers: what a stage says is trained is trained, and nothing else moves.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

import sys
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_finetune.errors import InputError, Problem
    from hf_finetune.models.groups import parameter_groups
    from hf_finetune.models.layout import read_layout
    from hf_finetune.plan.stages import build_plan
    from hf_finetune.recipe import Recipe, load_recipe
    from hf_finetune.run import plan, run
    from hf_finetune.staging.callbacks import FreezingCallback
    from hf_finetune.staging.trainer import StagedTrainer

__version__ = "0.1.0"

__all__ = [
    "FreezingCallback",
    "InputError",
    "Problem",
    "Recipe",
    "StagedTrainer",
    "build_plan",
    "load_recipe",
    "parameter_groups",
    "plan",
    "read_layout",
    "run",
]

_HOME = {
    "FreezingCallback": "hf_finetune.staging.callbacks",
    "InputError": "hf_finetune.errors",
    "Problem": "hf_finetune.errors",
    "Recipe": "hf_finetune.recipe",
    "StagedTrainer": "hf_finetune.staging.trainer",
    "build_plan": "hf_finetune.plan.stages",
    "load_recipe": "hf_finetune.recipe",
    "parameter_groups": "hf_finetune.models.groups",
    "plan": "hf_finetune.run",
    "read_layout": "hf_finetune.models.layout",
    "run": "hf_finetune.run",
}


# Rooms that share their name with a public function.
_CALLABLE = ("plan", "run")


class _CallableRoom(ModuleType):
    """A room that can be called as the public function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(_HOME[name]), name)

    @property
    def __signature__(self) -> Signature:
        return signature(self._function)


class _Package(ModuleType):
    """The import system binds ``hf_finetune.plan`` to the room, whenever anything in it is first imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLABLE and type(value) is ModuleType:
            value.__class__ = _CallableRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
