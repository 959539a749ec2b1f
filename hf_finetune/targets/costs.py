"""Misclassification costs: ``evaluation.costs`` of a recipe as a matrix."""

from collections.abc import Mapping, Sequence

import numpy as np

from hf_finetune.errors import Problem, suggestion
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName

__all__ = ["DEFAULT", "CostTable", "cost_matrix", "cost_problems"]

CostTable = Mapping[str, Mapping[str, float]]
"""Cost of a decision (inner key) for a true class (outer key)."""

DEFAULT = "default"
"""Inner key: cost of every wrong decision that its row does not list. Outer key: row of every class without a row."""
_UNIT = 1.0


def cost_matrix(costs: CostTable, label_names: Sequence[str]) -> np.ndarray:
    """Return the cost matrix.

    A correct decision costs 0 unless its row lists it; a wrong one that is not listed costs the row's ``default``,
    or 1 without one. Classes without a row take the row ``default``. If a class is itself called ``default``, the key
    means that class.

    Args:
        costs: Costs as in a recipe.
        label_names: Class names in the order of the model.

    Returns:
        Costs [classes, classes], indexed by true class and decision.
    """
    index = {name: column for column, name in enumerate(label_names)}
    has_default_key = DEFAULT not in index
    default_row = costs.get(DEFAULT, {}) if has_default_key else {}
    matrix = np.full((len(index), len(index)), _UNIT)
    for true, name in enumerate(label_names):
        row = costs.get(name, default_row)
        if has_default_key:
            matrix[true] = row.get(DEFAULT, default_row.get(DEFAULT, _UNIT))
        matrix[true, true] = 0.0
        for decision, cost in row.items():
            if decision in index:
                matrix[true, index[decision]] = cost
    return matrix


def cost_problems(
    costs: CostTable, target: TargetName, label_names: Sequence[str], place: str = "evaluation.costs"
) -> list[Problem]:
    """Return the problems of misclassification costs: a label type other than single-label, or unknown classes.

    Args:
        costs: Costs as in a recipe; empty if it has none.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        label_names: Class names of the data.
        place: Location of the costs in the recipe, for the error texts.

    Returns:
        All problems; empty if the costs are valid.
    """
    if not costs:
        return []
    if not TARGETS[target].is_exclusive:
        return [Problem(place, "is only supported for single-label data", f"{target} labels")]
    keys = [(place, true) for true in costs]
    keys += [(f"{place}.{true}", decision) for true, row in costs.items() for decision in row]
    known = [*label_names, DEFAULT]
    return [
        Problem(location, "must be a class of the data, or default", repr(name), suggestion(name, known))
        for location, name in keys
        if name not in known
    ]
