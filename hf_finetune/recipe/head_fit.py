"""Stages that fit the head with a solver (logistic regression, ridge) instead of gradient steps: fields and rules."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from hf_finetune.errors import Problem, shown
from hf_finetune.targets import TARGETS

__all__ = [
    "AUTO",
    "BALANCES",
    "GRADIENT",
    "KEPT",
    "Classifier",
    "Fit",
    "chooses_pooling",
    "fit_problems",
    "fitted_by",
    "head_fit_problems",
    "leaves_pooling",
]

Fit = Literal["gradient", "auto", "logistic_regression", "ridge"]
Classifier = Literal["sgd", "logistic_regression", "ridge"]
GRADIENT = "gradient"
AUTO = "auto"
SGD = "sgd"
KEPT = ("name", "train", "compress", "fit", "batch_size", "balance", "classifier")
"""Stage fields that apply without gradient steps. All others, future ones included, need gradient steps."""
WITHOUT_EFFECT = {"layer_decay": 1.0}
"""Values other than the default that the saved recipe of a run can hold, and that have no effect without steps."""
BALANCES = ("none", "class_weights", "effective_number", "logit_adjustment")
AT_ONCE = "The head is fitted directly, without optimizer steps."


def fitted_by(part: Any) -> str:
    """Return the solver that fits the head of a stage, or of the stage that a strategy writes.

    Args:
        part: ``StageSpec`` or ``StrategySpec``.

    Returns:
        ``logistic_regression`` or ``ridge``; empty for training by gradients, and for ``auto`` until it is resolved.
    """
    how = getattr(part, "fit", getattr(part, "classifier", GRADIENT))
    return "" if how in (GRADIENT, AUTO, SGD) else str(how)


def chooses_pooling(model: Any, stages: Sequence[Any], strategy: str | None) -> bool:
    """Return whether a run on texts chooses the token pooling of its head by cross-validation.

    It does if the backbone stays frozen, the head is linear without a pooling in the recipe, and there is no adapter.

    Args:
        model: ``ModelSpec`` of the recipe.
        stages: Stages of the recipe, or those that the strategy wrote.
        strategy: Name of the strategy that wrote the stages; None if the recipe lists them itself.
    """
    is_frozen = strategy == "features" or (len(stages) > 0 and all(fitted_by(stage) for stage in stages))
    return is_frozen and _leaves_pooling_open(model)


def leaves_pooling(recipe: Any) -> bool:
    """Return whether the checkpoint decides the token pooling of the head, because the recipe sets no pooling or rate.

    The head must also be linear, with no adapter and no strategy, and a stage must take gradient steps.

    Args:
        recipe: Single-task recipe, with its stages as the user wrote them.
    """
    takes_steps = any(stage.fit == GRADIENT for stage in recipe.stages)
    states_rate = any(stage.lr is not None for stage in recipe.stages)
    return _leaves_pooling_open(recipe.model) and recipe.strategy is None and takes_steps and not states_rate


def _leaves_pooling_open(model: Any) -> bool:
    return model.head.pool is None and model.head.is_plain and model.adapter is None


def fit_problems(stages: Sequence[Any], strategy: Any) -> list[Problem]:
    """Return the problems of stages that fit their head with a solver, and of a strategy that writes such a stage.

    Args:
        stages: Stages of the recipe.
        strategy: ``StrategySpec`` of the recipe, or None.
    """
    problems: list[Problem] = []
    for index, stage in enumerate(stages):
        place = f"stages[{index}]"
        how = fitted_by(stage)
        if how or stage.fit == AUTO:
            problems += _without_steps(stage, place, f"fit is {how}") if how else ()
            if stage.train not in ("head", ("head",)):
                rule = f"must be head when fit is {stage.fit}"
                problems.append(Problem(f"{place}.train", rule, shown(stage.train)))
        if index and stage.carry_optimizer and fitted_by(stages[index - 1]):
            rule = "must be left out after a stage without an optimizer"
            problems.append(Problem(f"{place}.carry_optimizer", rule, "True"))
    if strategy is not None and (how := fitted_by(strategy)):
        problems += _without_steps(strategy, "strategy", f"classifier is {how}")
    return problems


def _without_steps(part: Any, place: str, why: str) -> Iterator[Problem]:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if name not in KEPT and value not in (field.default, WITHOUT_EFFECT.get(name, field.default)):
            short_form = getattr(value, getattr(value, "shorthand", None) or "", value)
            yield Problem(f"{place}.{name}", f"must be left out when {why}", shown(short_form), AT_ONCE)
    if part.balance.method not in BALANCES:
        rule = f"must be {', '.join(BALANCES[:-1])} or {BALANCES[-1]} when {why}"
        yield Problem(f"{place}.balance", rule, shown(part.balance.method), AT_ONCE)


def head_fit_problems(how: str, target: str, place: str) -> list[Problem]:
    """Return the problem of a solver that does not suit the type of the labels.

    Args:
        how: ``logistic_regression`` or ``ridge``; empty if the head is not fitted with a solver.
        target: Type of the labels: ``single_label``, ``multi_label`` or ``regression``.
        place: Place of the solver in the recipe.
    """
    wanted = "ridge" if not TARGETS[target].has_classes else "logistic_regression"
    if how and not TARGETS[target].has_standard_loss:
        return [
            Problem(
                place, f"must be {GRADIENT} for {target} labels, whose loss no solver supports", repr(how)
            )
        ]
    if how in ("", wanted):
        return []
    return [Problem(place, f"must be {wanted} for {target} labels", repr(how))]
