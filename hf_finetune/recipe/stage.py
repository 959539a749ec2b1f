"""A stage in Python: ``Stage("head", epochs=1, lr=1e-3)``."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

from hf_finetune.errors import InputError
from hf_finetune.recipe.messages import problems_of
from hf_finetune.recipe.stage_fields import StageSpec

__all__ = ["Stage"]


class Stage(StageSpec):
    """Training stage: the parameters to train, the duration, the learning rates and other settings.

    A stage is immutable, and has an attribute for each field, such as ``stage.epochs``. ``StagedTrainer`` and
    ``build_plan`` take a list of them; a recipe contains them in ``stages``.

    Args:
        train: Selector of the parameters to train, as in a recipe: ``head``, ``all``, ``last:3``, ``layers[2:5]``,
            ``norms``, ``biases``, ``/regex/``, or a list of selectors.
        fields: The other fields of a stage, as docs/recipe.md lists them under "The fields of a stage": ``epochs`` or
            ``max_steps``; ``lr``, a number or ``{"head": 1e-3, "backbone": 1e-5}``; ``schedule``, ``warmup``,
            ``optimizer``, ``weight_decay``, ``layer_decay``, ``batch_size``, ``regularize`` and others.

    Raises:
        InputError: If a field is unknown, or its value is invalid; with all problems.

    Example:
        >>> from hf_finetune import Stage
        >>> stage = Stage("last:3", epochs=2, lr={"head": 1e-3, "backbone": 1e-5})
        >>> stage.train, stage.lr.backbone
        ('last:3', 1e-05)
        >>> Stage("head", epoch=2)
        Traceback (most recent call last):
        hf_finetune.errors.InputError: epoch must be a known field. Nearest: 'epochs'.
    """

    in_recipes: ClassVar[bool] = False

    def __init__(self, train: str | Sequence[str], **fields: Any):
        try:
            super().__init__(train=train if isinstance(train, str) else tuple(train), **fields)
        except ValidationError as error:
            raise InputError(problems_of(error, StageSpec)) from error
