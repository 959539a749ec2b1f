"""Base class of the parts of a recipe: a frozen pydantic model in strict mode, without unknown fields."""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["PER_GROUP", "PLAIN", "Part", "form_of", "parts"]

PLAIN, PER_GROUP = "(plain)", "(per group)"
"""Internal tags of the two forms of a field: a single value, or one for the head and one for the backbone."""


class Part(BaseModel):
    """Part of a recipe: unknown fields are errors, types are not converted, and instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    shorthand: ClassVar[str | None] = None
    """Field that a bare value sets: ``model: NAME`` means ``model: {path: NAME}``."""

    spreads: ClassVar[bool] = False
    """Whether a bare value sets every field: ``lr: 0.1`` means ``lr: {head: 0.1, backbone: 0.1}``."""

    in_recipes: ClassVar[bool] = True
    """Whether recipe files hold the part; False for another way to write a part in Python."""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:
        if cls.shorthand and isinstance(value, str | int | float | PurePath):
            return {cls.shorthand: value}
        return value


def parts() -> list[type[Part]]:
    """Return the classes of the parts of a recipe, without the classes that others are derived from."""

    def leaves(part: type[Part]) -> list[type[Part]]:
        below = [leaf for child in part.__subclasses__() if child.in_recipes for leaf in leaves(child)]
        return below or [part]

    return list(dict.fromkeys(leaves(Part)))


def form_of(per_group: type[Part], plain: type[Part] | None = None) -> Callable[[Any], str]:
    """Return a discriminator for a field with a single value, or one for the head and one for the backbone.

    Without it, pydantic would report the errors of both forms; only those of the intended form help the user.

    Args:
        per_group: Class of the form with one value each for head and backbone.
        plain: Class of the form with a single value, if that can be a mapping too.

    Returns:
        Function that returns the tag of a value's form, ``PLAIN`` or ``PER_GROUP``.
    """

    def form(value: Any) -> str:
        meant = isinstance(value, per_group) or (
            isinstance(value, Mapping)
            and (plain is None or not per_group.model_fields.keys().isdisjoint(value))
        )
        return PER_GROUP if meant else PLAIN

    return form
