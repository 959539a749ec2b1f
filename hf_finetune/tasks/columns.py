"""Columns of an example: their roles, and their choice by name and type."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import MAX_LISTED_PROBLEMS, Problem, join_quoted

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["NOT_FOUND", "ColumnRole", "choose_only_candidate", "find_columns_by_name", "is_string"]

NOT_FOUND = "must be set, because"
"""Begin of the rule of a problem with a column that is neither named nor found."""

_STRINGS = ("string", "large_string")


@dataclass(frozen=True)
class ColumnRole:
    """Column of an example's content, such as the image or the second text of a pair.

    Attributes:
        name: Name of the role in ``data.columns``, and of the column in loaded data.
        plural: Noun for the content of the column, for messages: ``images``.
        rule: Rule for its type, for messages: ``must contain strings``.
        usual_names: Lower-case column names by which the column is recognized.
        accepts: Function that returns whether the feature type of a column fits.
        description: Description of the recipe field ``data.columns.NAME``.
        optional: Whether examples may lack it.
    """

    name: str
    plural: str
    rule: str
    usual_names: tuple[str, ...]
    accepts: Callable[[Any], bool]
    description: str
    optional: bool = False


def choose_only_candidate(
    role: str, plural: str, candidates: Sequence[str], features: "Features"
) -> tuple[str | None, list[Problem]]:
    """Return the candidate with the name of the role, or the only candidate; else a problem.

    Args:
        role: Role of the column, as in ``data.columns``.
        plural: Noun for the content of the column, for messages.
        candidates: Columns that may have the role.
        features: All columns of the data and their types.
    """
    if role in candidates:
        return role, []
    if len(candidates) == 1:
        return candidates[0], []
    place, repair = f"data.columns.{role}", f"Set data.columns.{role} to one of them."
    if candidates:
        rule = f"{NOT_FOUND} several columns look like {plural}"
        return None, [Problem(place, rule, join_quoted(candidates, MAX_LISTED_PROBLEMS), repair)]
    if role == "label" and len(features) == 1:
        repair = "If the columns are not separated by commas, set data.separator."
    column_list = f"columns {join_quoted(features, MAX_LISTED_PROBLEMS)}" if features else "no columns"
    return None, [Problem(place, f"{NOT_FOUND} no column looks like {plural}", column_list, repair)]


def find_columns_by_name(
    roles: Sequence[ColumnRole],
    features: "Features",
    named: Mapping[str, str],
    taken: Sequence[str | None],
) -> tuple[dict[str, str | None], list[Problem]]:
    """Find the main column: named, of a usual name, or the only one that fits; optional ones must be named.

    Args:
        roles: Columns of an example.
        features: Columns of the data and their types.
        named: Columns that the user named, by role.
        taken: Columns with another role, such as label or group.

    Returns:
        Column of each role, and problems.
    """
    main, *optional = roles
    columns: dict[str, str | None] = {role.name: named.get(role.name) for role in optional}
    if main.name in named:
        return {main.name: named[main.name], **columns}, []
    usable = [name for name in features if main.accepts(features[name]) and name not in taken]
    candidates = [name for name in usable if name.lower() in main.usual_names]
    column, problems = choose_only_candidate(main.name, main.plural, candidates or usable, features)
    return {main.name: column, **columns}, problems


def is_string(feature: Any) -> bool:
    """Return whether a column contains strings."""
    return getattr(feature, "dtype", None) in _STRINGS and type(feature).__name__ == "Value"
