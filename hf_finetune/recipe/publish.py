"""Recipe fields for publishing the model on the Hub."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from hf_finetune.errors import InputError, Problem, shown
from hf_finetune.fields.base import Part
from hf_finetune.fields.types import NonEmptyText

__all__ = ["PublishSpec", "check_repository"]

PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$"


def check_repository(value: Any, place: str = "") -> str:
    """Return a repository name if it is valid on the Hub.

    Args:
        value: Value to check.
        place: Place of the value, for the error; left empty in a recipe, where it is filled in later.

    Raises:
        InputError: If the value is not a valid ``NAMESPACE/NAME``.
    """
    if (
        isinstance(value, str)
        and re.fullmatch(PATTERN, value)
        and len(value) <= 96
        and not any(part in value for part in ("--", ".."))
        and not value.endswith(("-", ".", ".git"))
    ):
        return value
    repair = "For example me/dish-recognizer: letters, digits, '-', '_' and '.'."
    raise InputError(Problem(place, "must be NAMESPACE/NAME of a repository", shown(value), repair))


def _repository(value: Any) -> str:
    return check_repository(value)


Repository = Annotated[
    str, BeforeValidator(_repository), WithJsonSchema({"type": "string", "pattern": PATTERN})
]


class PublishSpec(Part):
    """Repository that the model is published to at the end of the run."""

    shorthand = "to"

    to: Repository = Field(description="Repository on the Hub: NAMESPACE/NAME.")
    private: bool = Field(
        default=True,
        description="Whether the repository is private; if it already exists, it must have the same setting.",
    )
    revision: NonEmptyText | None = Field(
        default=None, description="Branch that the model is published to; null = the main branch."
    )
    tag: NonEmptyText | None = Field(default=None, description="Tag of the published model; null = none.")
