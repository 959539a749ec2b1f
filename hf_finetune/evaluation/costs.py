"""What it costs to take one class for another: ``evaluation.costs`` of a recipe as a matrix."""

from collections.abc import Mapping, Sequence

import numpy as np

from hf_finetune.data.labels import Target
from hf_finetune.errors import Problem, nearest

__all__ = ["DEFAULT", "CostTable", "cost_matrix", "cost_problems"]

CostTable = Mapping[str, Mapping[str, float]]
"""Cost of a decision (inner key) for a true class (outer key)."""

DEFAULT = "default"
"""Key of a row: the cost of every other wrong decision; in place of a class: the row of all other classes."""
_UNIT = 1.0


def cost_matrix(costs: CostTable, label_names: Sequence[str]) -> np.ndarray:
    """Return the costs [true class, decision].

    A right decision costs nothing unless its row says so; a wrong one that is not listed costs the row's ``default``,
    else 1. Classes without a row have that of ``default``. A class that is itself called ``default`` is meant by the
    key.

    Args:
        costs: As in a recipe.
        label_names: The classes in their order.
    """
    index = {name: column for column, name in enumerate(label_names)}
    reserved = DEFAULT not in index
    common = costs.get(DEFAULT, {}) if reserved else {}
    matrix = np.full((len(index), len(index)), _UNIT)
    for row, name in enumerate(label_names):
        listed = costs.get(name, common)
        if reserved:
            matrix[row] = listed.get(DEFAULT, common.get(DEFAULT, _UNIT))
        matrix[row, row] = 0.0
        for decision, cost in listed.items():
            if decision in index:
                matrix[row, index[decision]] = cost
    return matrix


def cost_problems(
    costs: CostTable, target: Target, label_names: Sequence[str], place: str = "evaluation.costs"
) -> list[Problem]:
    """Return what is wrong with costs for these classes: labels of another kind, unknown classes.

    Args:
        costs: As in a recipe; empty if it has none.
        target: What the labels are.
        label_names: The classes in their order.
        place: Where the costs stand.
    """
    if not costs:
        return []
    if target != "single_label":
        return [Problem(place, "must be left out unless every example has one class", f"{target} labels")]
    known = [*label_names, DEFAULT]
    return [
        Problem(where, "must be a class of the data, or default", repr(name), nearest(name, known))
        for where, name in (
            *((place, true) for true in costs),
            *((f"{place}.{true}", decision) for true, row in costs.items() for decision in row),
        )
        if name not in known
    ]
