"""Base class of the parts of a recipe: a frozen pydantic model in strict mode, without unknown fields."""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["PER_GROUP", "PLAIN", "Part", "leaf_parts", "per_group_discriminator"]

PLAIN, PER_GROUP = "(plain)", "(per group)"
"""Internal tags of the two forms of a field: a single value, or separate values for head and backbone."""


class Part(BaseModel):
    """Part of a recipe: unknown fields are errors, types are not converted, and instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    shorthand: ClassVar[str | None] = None
    """Field that a bare value sets: ``model: NAME`` means ``model: {path: NAME}``."""

    broadcasts_value: ClassVar[bool] = False
    """Whether a bare value sets every field: ``lr: 0.1`` means ``lr: {head: 0.1, backbone: 0.1}``."""

    in_recipes: ClassVar[bool] = True
    """Whether recipe files contain the part; False for another way to write a part in Python."""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:
        if cls.shorthand and isinstance(value, str | int | float | PurePath):
            return {cls.shorthand: value}
        return value


def leaf_parts() -> list[type[Part]]:
    """Return all leaf subclasses of ``Part`` that recipe files contain."""

    def leaves(part: type[Part]) -> list[type[Part]]:
        descendants = [leaf for child in part.__subclasses__() if child.in_recipes for leaf in leaves(child)]
        return descendants or [part]

    return list(dict.fromkeys(leaves(Part)))


def per_group_discriminator(per_group: type[Part], plain: type[Part] | None = None) -> Callable[[Any], str]:
    """Return a discriminator between a single value and separate values for head and backbone.

    Without it, pydantic would report the errors of both forms; only those of the intended form help the user.

    Args:
        per_group: Class of the form with one value each for head and backbone.
        plain: Class of the form with a single value, if that can be a mapping too.

    Returns:
        Function that returns the tag of a value's form, ``PLAIN`` or ``PER_GROUP``.
    """

    def tag(value: Any) -> str:
        is_per_group = isinstance(value, per_group) or (
            isinstance(value, Mapping)
            and (plain is None or not per_group.model_fields.keys().isdisjoint(value))
        )
        return PER_GROUP if is_per_group else PLAIN

    return tag
