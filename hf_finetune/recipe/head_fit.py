"""Stages whose head is fitted at once and not trained step by step: their fields, and which others they have not."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from hf_finetune.errors import Problem
from hf_finetune.recipe.rules import shown

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
KEPT = ("name", "train", "compress", "fit", "batch_size", "balance", "classifier", "groups_per_stage")
"""Fields that have a meaning without steps. All others, those to come included, belong to training by gradients."""
WITHOUT_EFFECT = {"layer_decay": 1.0}
"""Values besides the default with which recipes of runs are written out, and which mean nothing without steps."""
BALANCES = ("none", "class_weights", "effective_number", "logit_adjustment")
AT_ONCE = "The head is fitted at once, without steps."


def fitted_by(part: Any) -> str:
    """Return how a stage, or the stage that a strategy writes, fits its head at once.

    Empty if it trains by gradients, and as long as ``auto`` leaves that to the model.
    """
    if hasattr(part, "fit"):
        return "" if part.fit in (GRADIENT, AUTO) else str(part.fit)
    return "" if part.name != "features" or part.classifier == "sgd" else str(part.classifier)


def chooses_pooling(model: Any, stages: Sequence[Any], strategy: str | None) -> bool:
    """Return whether a run on texts chooses how the head pools tokens: the backbone stays frozen, and nothing is asked.

    Args:
        model: As in a recipe.
        stages: Written out.
        strategy: Name of the strategy that wrote the stages; None if the recipe has them itself.
    """
    is_open = model.head.pool is None and model.head.type == "linear" and model.adapter is None
    is_frozen = strategy == "features" or (len(stages) > 0 and all(fitted_by(stage) for stage in stages))
    return is_open and is_frozen


def leaves_pooling(recipe: Any) -> bool:
    """Return whether a recipe leaves it to the checkpoint how the head pools tokens: neither that nor a rate is stated.

    Args:
        recipe: Of one task; its stages as they were given.
    """
    is_open = recipe.model.head.pool is None and recipe.model.head.type == "linear"
    takes_steps = any(stage.fit == GRADIENT for stage in recipe.stages)
    states_rate = any(stage.lr is not None for stage in recipe.stages)
    return (
        is_open
        and recipe.model.adapter is None
        and recipe.strategy is None
        and takes_steps
        and not states_rate
    )


def fit_problems(stages: Sequence[Any], strategy: Any) -> list[Problem]:
    """Check the fields of stages that fit their head, and of a strategy that writes one.

    Args:
        stages: As in a recipe.
        strategy: As in a recipe.
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
            rule = "must be left out behind a stage that has no optimizer"
            problems.append(Problem(f"{place}.carry_optimizer", rule, "True"))
    return problems + _strategy_problems(strategy)


def _strategy_problems(strategy: Any) -> list[Problem]:
    if strategy is None:
        return []
    if strategy.name != "features":
        field = type(strategy).model_fields["classifier"]
        if strategy.classifier == field.default:
            return []
        rule = f"must be left out unless the strategy is features, and it is {strategy.name}"
        return [Problem("strategy.classifier", rule, shown(strategy.classifier))]
    problems = []
    if strategy.groups_per_stage != 1:
        rule = "must be left out when the strategy is features, which trains the head only"
        problems.append(Problem("strategy.groups_per_stage", rule, shown(strategy.groups_per_stage)))
    if how := fitted_by(strategy):
        problems += _without_steps(strategy, "strategy", f"classifier is {how}")
    return problems


def _without_steps(part: Any, place: str, why: str) -> Iterator[Problem]:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if name not in KEPT and value not in (field.default, WITHOUT_EFFECT.get(name, field.default)):
            said = getattr(value, getattr(value, "shorthand", None) or "", value)
            yield Problem(f"{place}.{name}", f"must be left out when {why}", shown(said), AT_ONCE)
    if part.balance.method not in BALANCES:
        rule = f"must be {', '.join(BALANCES[:-1])} or {BALANCES[-1]} when {why}"
        yield Problem(f"{place}.balance", rule, shown(part.balance.method), AT_ONCE)


def head_fit_problems(how: str, target: str, place: str) -> list[Problem]:
    """Say that a way to fit is for other labels.

    Args:
        how: ``logistic_regression`` or ``ridge``; empty if nothing is fitted.
        target: What the labels are.
        place: Where the way is named.
    """
    wanted = "ridge" if target == "regression" else "logistic_regression"
    if how in ("", wanted):
        return []
    labels = "amounts" if target == "regression" else "classes"
    return [Problem(place, f"must be {wanted} where labels are {labels}", repr(how))]
