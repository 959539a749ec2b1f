"""Recipe fields for publishing the model on the Hub."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from hf_finetune.errors import InputError, Problem, short_repr
from hf_finetune.fields.base import Part
from hf_finetune.fields.types import NonEmptyText

__all__ = ["PublishSpec", "check_repository"]

REPOSITORY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$"


def check_repository(value: Any, place: str = "") -> str:
    """Return a repository name if it is valid on the Hub.

    Args:
        value: Value to check.
        place: Location of the value, for the error; empty for a recipe field, as ``problems_of`` adds it.

    Raises:
        InputError: If the value is not a valid ``NAMESPACE/NAME``.
    """
    if (
        isinstance(value, str)
        and re.fullmatch(REPOSITORY_PATTERN, value)
        and len(value) <= 96
        and not any(part in value for part in ("--", ".."))
        and not value.endswith(("-", ".", ".git"))
    ):
        return value
    repair = "For example me/dish-recognizer: letters, digits, '-', '_' and '.'."
    raise InputError(Problem(place, "must be a repository, NAMESPACE/NAME", short_repr(value), repair))


def _repository(value: Any) -> str:
    return check_repository(value)


Repository = Annotated[
    str, BeforeValidator(_repository), WithJsonSchema({"type": "string", "pattern": REPOSITORY_PATTERN})
]


class PublishSpec(Part):
    """Repository on the Hub to which the model is published at the end of the run."""

    shorthand = "to"

    to: Repository = Field(description="Repository on the Hub: NAMESPACE/NAME.")
    private: bool = Field(
        default=True,
        description="Whether the repository is private; if it already exists, it must have the same setting.",
    )
    revision: NonEmptyText | None = Field(
        default=None, description="Branch to which the model is published; null = the main branch."
    )
    tag: NonEmptyText | None = Field(default=None, description="Tag of the published model; null = none.")
