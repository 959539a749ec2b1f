"""Fields and rules of stages that fit the head with a solver (logistic regression, ridge), without gradient steps."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from hf_finetune.errors import Problem, short_repr
from hf_finetune.targets import TARGETS

__all__ = [
    "AUTO",
    "BALANCES",
    "FIELDS_WITHOUT_STEPS",
    "GRADIENT",
    "Classifier",
    "Fit",
    "fit_problems",
    "head_fit_problems",
    "selects_pooling_by_cv",
    "solver_of",
    "uses_checkpoint_pooling",
]

Fit = Literal["gradient", "auto", "logistic_regression", "ridge"]
Classifier = Literal["sgd", "logistic_regression", "ridge"]
GRADIENT = "gradient"
AUTO = "auto"
SGD = "sgd"
FIELDS_WITHOUT_STEPS = ("name", "train", "compress", "fit", "batch_size", "balance", "classifier")
"""Stage fields that apply without gradient steps; all other fields require gradient steps."""
IGNORED_VALUES = {"layer_decay": 1.0}
"""Non-default values that are accepted for solver stages, because saved recipes contain them."""
BALANCES = ("none", "class_weights", "effective_number", "logit_adjustment")
"""Methods of class balance that solvers support."""
NO_STEPS_REPAIR = "A solver fits the head, without optimizer steps."


def solver_of(part: Any) -> str:
    """Return the solver that fits the head of a stage, or of the stage that a strategy generates.

    Args:
        part: ``StageSpec`` or ``StrategySpec``.

    Returns:
        ``logistic_regression`` or ``ridge``; empty for training by gradients, and for ``auto`` until it is resolved.
    """
    solver = getattr(part, "fit", getattr(part, "classifier", GRADIENT))
    return "" if solver in (GRADIENT, AUTO, SGD) else str(solver)


def selects_pooling_by_cv(model: Any, stages: Sequence[Any], strategy: str | None) -> bool:
    """Return whether a run on texts selects the token pooling of its head by cross-validation.

    This is so if the backbone stays frozen, the head is linear without a pooling in the recipe, and there is no
    adapter.

    Args:
        model: ``ModelSpec`` of the recipe.
        stages: Stages of the recipe, or those that the strategy generated.
        strategy: Name of the strategy; None if the recipe lists its stages.
    """
    is_frozen = strategy == "features" or (len(stages) > 0 and all(solver_of(stage) for stage in stages))
    return is_frozen and _pooling_unset(model)


def uses_checkpoint_pooling(recipe: Any) -> bool:
    """Return whether the checkpoint determines the token pooling, because the recipe sets no pooling and no rate.

    The head must also be linear, without adapter and strategy, and at least one stage must take gradient steps.

    Args:
        recipe: Single-task recipe, with its stages as the user wrote them.
    """
    takes_steps = any(spec.fit == GRADIENT for spec in recipe.stages)
    sets_rate = any(spec.lr is not None for spec in recipe.stages)
    return _pooling_unset(recipe.model) and recipe.strategy is None and takes_steps and not sets_rate


def _pooling_unset(model: Any) -> bool:
    head = model.head
    return head.pool is None and head.layers is None and head.is_plain and model.adapter is None


def fit_problems(stages: Sequence[Any], strategy: Any) -> list[Problem]:
    """Return the problems of stages that fit their head with a solver, and of a strategy with such a stage.

    Args:
        stages: Stages of the recipe.
        strategy: ``StrategySpec`` of the recipe, or None.
    """
    problems: list[Problem] = []
    for index, stage in enumerate(stages):
        place = f"stages[{index}]"
        solver = solver_of(stage)
        if solver or stage.fit == AUTO:
            problems += _solver_field_problems(stage, place, f"fit is {solver}") if solver else ()
            if stage.train not in ("head", ("head",)):
                rule = f"must be head when fit is {stage.fit}"
                problems.append(Problem(f"{place}.train", rule, short_repr(stage.train)))
        if index and stage.carry_optimizer and solver_of(stages[index - 1]):
            rule = "must not be set after a stage without an optimizer"
            problems.append(Problem(f"{place}.carry_optimizer", rule, "true"))
    if strategy is not None and (solver := solver_of(strategy)):
        problems += _solver_field_problems(strategy, "strategy", f"classifier is {solver}")
    return problems


def _solver_field_problems(part: Any, place: str, reason: str) -> Iterator[Problem]:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if name not in FIELDS_WITHOUT_STEPS and value not in (
            field.default,
            IGNORED_VALUES.get(name, field.default),
        ):
            short_form = getattr(value, getattr(value, "shorthand", None) or "", value)
            rule = f"must not be set when {reason}"
            yield Problem(f"{place}.{name}", rule, short_repr(short_form), NO_STEPS_REPAIR)
    if part.balance.method not in BALANCES:
        rule = f"must be {', '.join(BALANCES[:-1])} or {BALANCES[-1]} when {reason}"
        yield Problem(f"{place}.balance", rule, short_repr(part.balance.method), NO_STEPS_REPAIR)


def head_fit_problems(solver: str, target: str, place: str) -> list[Problem]:
    """Return the problem of a solver that does not support the label type.

    Args:
        solver: ``logistic_regression`` or ``ridge``; empty if the head is not fitted with a solver.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        place: Place of the solver in the recipe.
    """
    suitable = TARGETS[target].linear_solver
    if solver and suitable is None:
        rule = f"must be {GRADIENT} for the label type {target}"
        return [Problem(place, rule, repr(solver), "No solver supports their loss.")]
    if solver in ("", suitable):
        return []
    return [Problem(place, f"must be {suitable} for the label type {target}", repr(solver))]
