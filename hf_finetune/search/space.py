"""Search space: recipe fields, each with the values that a search tries."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from hf_finetune.errors import InputError, Problem, short_repr
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.recipe.overrides import Override, apply_override, read_override
from hf_finetune.recipe.schema import Recipe, SingleTaskRecipe
from hf_finetune.recipe.yaml_text import read_yaml

__all__ = ["Choices", "Dimension", "Range", "SearchSpace", "read_space", "split_arguments"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?:(?P<scale>\w+):)?(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})")
_INTEGER = re.compile(r"[-+]?\d+")
_VARIABLE_DATA = {*DataFields.model_fields, "augment", "workers", "group_by_length"}
"""Fields of ``data`` that do not change which examples there are."""
_FIXED = ("task", "seed", "metrics", "evaluation")
"""Other fields that must be the same for all trials, so that their scores can be compared."""
FORMS = "log:LOW..HIGH, LOW..HIGH or VALUE,VALUE"


@dataclass(frozen=True)
class Range:
    """Interval of numbers.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether values are drawn on a logarithmic scale.
        integer: Whether only integers are drawn: both ends are written as integers.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @property
    def examples(self) -> tuple[Any, ...]:
        """Both ends, as values of the field."""
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Return whether a value is in the range.

        Args:
            value: Value of a field.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and not (self.integer and value != int(value))

    def encode(self, value: Any) -> Any:
        """Return a value of the field as the distribution draws it.

        Args:
            value: Value of a field.
        """
        return int(value) if self.integer else float(value)

    def distribution(self) -> Any:
        """Return the distribution of optuna that draws from the range."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def decode(self, drawn: Any) -> Any:
        """Return a drawn value as a value of the field.

        Args:
            drawn: Value that the distribution has drawn.
        """
        return drawn


@dataclass(frozen=True)
class Choices:
    """Listed values.

    Attributes:
        values: The values, of any YAML type.
    """

    values: tuple[Any, ...]

    @property
    def examples(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    def contains(self, value: Any) -> bool:
        """Return whether a value is listed.

        Args:
            value: Value of a field.
        """
        return value in self.values

    def encode(self, value: Any) -> Any:
        """Return a value of the field as the distribution draws it.

        Args:
            value: Value of a field.
        """
        return json.dumps(self.values[self.values.index(value)])

    def distribution(self) -> Any:
        """Return the distribution of optuna that draws one of the values, as JSON text."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([json.dumps(value) for value in self.values])

    def decode(self, drawn: Any) -> Any:
        """Return a drawn value as a value of the field.

        Args:
            drawn: Value that the distribution has drawn.
        """
        return json.loads(drawn)


@dataclass(frozen=True)
class Dimension:
    """A field of the recipe with its values.

    Attributes:
        field: Dotted path of the field.
        values: Values that are tried.
    """

    field: str
    values: Range | Choices

    def override(self, value: Any) -> Override:
        """Return the override that gives the field a value.

        Args:
            value: New value of the field.
        """
        return Override(f"{self.field}={json.dumps(value)}", read_override(f"{self.field}=").path, value)


@dataclass(frozen=True)
class SearchSpace:
    """Recipes that a search tries.

    Attributes:
        base: Fields of the recipe in which the others are set, as plain mappings and lists.
        dimensions: Fields that vary.
    """

    base: Mapping[str, Any]
    dimensions: tuple[Dimension, ...]

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with a value for some or all of the dimensions.

        Args:
            values: Value by dotted path of the field.

        Raises:
            InputError: If the recipe is invalid.
        """
        content = dict(self.base)
        for dimension in self.dimensions:
            if dimension.field in values:
                content = apply_override(content, dimension.override(values[dimension.field]))
        return parse_recipe(content)

    def distributions(self) -> dict[str, Any]:
        """Return the distribution of optuna of each dimension, by dotted path."""
        return {dimension.field: dimension.values.distribution() for dimension in self.dimensions}

    def first_values(self, recipe: Recipe) -> dict[str, Any]:
        """Return the values of a recipe as the distributions draw them, for the fields that contain them.

        Args:
            recipe: Base recipe, in which the defaults of the checkpoint are filled in.
        """
        content = recipe.model_dump(mode="json", by_alias=True)
        values = {dimension: _value_at(content, dimension.field.split(".")) for dimension in self.dimensions}
        return {
            dimension.field: dimension.values.encode(value)
            for dimension, value in values.items()
            if dimension.values.contains(value)
        }

    def decode(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return drawn values as values of the fields, by dotted path.

        Args:
            drawn: Values that the distributions have drawn, by dotted path.
        """
        return {
            dimension.field: dimension.values.decode(drawn[dimension.field]) for dimension in self.dimensions
        }


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides and the dimensions among arguments: a dimension is a range, or has several values.

    Args:
        arguments: ``KEY=VALUE`` or ``KEY=VALUES``.
    """
    overrides: list[str] = []
    dimensions: list[str] = []
    for text in arguments:
        value = text.partition("=")[2].strip()
        several = _RANGE.fullmatch(value) or len(_listed(value)) > 1
        (dimensions if several else overrides).append(text)
    return overrides, dimensions


def _listed(text: str) -> list[Any]:
    """Return the values of a text with commas; empty if it is not valid."""
    try:
        content, problems = read_yaml(f"[{text}]", "values")
    except InputError:
        return []
    return [] if problems or not isinstance(content, list) else content


def read_space(recipe: Recipe, arguments: Sequence[str] = ()) -> SearchSpace:
    """Read the search space of a recipe with a ``search`` block, of arguments, or of both.

    Args:
        recipe: Recipe of a single task. An argument replaces the values of the same field in its ``search`` block.
        arguments: ``KEY=log:LOW..HIGH``, ``KEY=LOW..HIGH`` or ``KEY=VALUE,VALUE``.

    Returns:
        The search space.

    Raises:
        InputError: If there is no dimension, a field is unknown, or a value is invalid; with all problems.
    """
    if not isinstance(recipe, SingleTaskRecipe):
        raise InputError(Problem("tune", "supports only recipes of a single task", repr(recipe.task)))
    problems: list[Problem] = []
    dimensions: dict[str, Dimension] = {}
    for place, field, value in _entries(recipe, arguments, problems):
        try:
            path = read_override(f"{field}=").path
            dimension = Dimension(".".join(path), _read_values(place, value))
        except InputError as error:
            problems += [Problem(place, found.rule, found.value, found.repair) for found in error.problems]
        else:
            dimensions[dimension.field] = dimension
    problems += [
        Problem(field, "must not vary in a search: trials are compared on the same examples")
        for field in dimensions
        if _is_fixed(field.split("."))
    ]
    if recipe.domain_adaptation is not None:
        problems.append(Problem("domain_adaptation", "must not be set in a search"))
    base = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"search"})
    space = SearchSpace(base, tuple(dimensions.values()))
    problems += _invalid_values(space)
    if not dimensions and not problems:
        repair = f"Add a field with its values, such as stages.0.lr=log:1e-5..1e-2. Forms: {FORMS}."
        problems.append(Problem("The search space", "must not be empty", repair=repair))
    if problems:
        raise InputError(dict.fromkeys(problems))
    return space


def _is_fixed(path: Sequence[str]) -> bool:
    if path[0] == "data":
        return len(path) < 2 or path[1] not in _VARIABLE_DATA
    return path[0] in _FIXED


def _entries(
    recipe: SingleTaskRecipe, arguments: Sequence[str], problems: list[Problem]
) -> Iterable[tuple[str, str, Any]]:
    """Yield place, field and values of each entry of the ``search`` block and of the arguments."""
    for field, value in (recipe.search or {}).items():
        yield f"search.{field}", field, value
    for text in arguments:
        field, equals, value = text.partition("=")
        if not equals or not field.strip():
            repair = "For example stages.0.lr=log:1e-5..1e-2."
            problems.append(Problem(text, "must have the form KEY=VALUES", repair=repair))
        else:
            yield text, field.strip(), value.strip()


def _read_values(place: str, value: Any) -> Range | Choices:
    """Return the values that a text or a list stands for.

    Raises:
        InputError: If it is neither a range nor several values.
    """
    if isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        return _read_range(place, value, match)
    if isinstance(value, str):
        try:
            content, problems = read_yaml(f"[{value}]", place)
        except InputError as error:
            raise InputError(Problem(place, f"must have the form {FORMS}", short_repr(value))) from error
        if problems:
            raise InputError(problems)
        value = content
    if not isinstance(value, list | tuple) or len(value) < 2:
        repair = "A range needs two ends, as in 1e-5..1e-2. A single value is set in the recipe."
        raise InputError(Problem(place, f"must have the form {FORMS}", short_repr(value), repair))
    texts = [json.dumps(item) for item in value]
    repeated = next((text for text in texts if texts.count(text) > 1), None)
    if repeated is not None:
        raise InputError(Problem(place, "must not repeat a value", repeated))
    return Choices(tuple(value))


def _read_range(place: str, text: str, match: re.Match[str]) -> Range:
    scale, low, high = match["scale"], float(match["low"]), float(match["high"])
    if scale not in (None, "log"):
        raise InputError(Problem(place, "must have the scale log or none", repr(scale), f"Forms: {FORMS}."))
    if not (isfinite(low) and isfinite(high)) or low >= high:
        raise InputError(Problem(place, "must have a lower end that is below the upper end", text))
    if scale == "log" and low <= 0:
        raise InputError(Problem(place, "must have ends above 0 on a logarithmic scale", text))
    integer = all(_INTEGER.fullmatch(match[end]) for end in ("low", "high"))
    return Range(low, high, scale == "log", integer)


def _invalid_values(space: SearchSpace) -> list[Problem]:
    """Return a problem for each value, or end of a range, with which the recipe is invalid."""
    problems = []
    for dimension in space.dimensions:
        for value in dimension.values.examples:
            try:
                space.recipe({dimension.field: value})
            except InputError as error:
                problems += [
                    Problem(dimension.override(value).text, _clause(problem), problem.value, problem.repair)
                    for problem in error.problems
                ]
    return problems


def _value_at(content: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of a recipe; None if there is none."""
    for step in path:
        if isinstance(content, list) and step.isdecimal() and int(step) < len(content):
            content = content[int(step)]
        elif isinstance(content, Mapping) and step in content:
            content = content[step]
        else:
            return None
    return content


def _clause(problem: Problem) -> str:
    """Return the rule of a problem as a clause that keeps its place."""
    return f"must be valid in the recipe: {problem.place} {problem.rule}"
