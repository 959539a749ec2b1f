"""Rules between the fields of a recipe.

The rules read plain mappings and ignore values of the wrong type, so that they also run on a recipe with invalid
fields, and all of its problems are reported together.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hf_finetune.errors import Problem, short_repr
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.recipe.domain import domain_rule_problems
from hf_finetune.recipe.label_head import label_head_problems
from hf_finetune.recipe.label_rules import label_column_problems
from hf_finetune.recipe.modality_fields import modality_problems
from hf_finetune.recipe.model import new_model_problems
from hf_finetune.recipe.regularize import regularize_problems
from hf_finetune.recipe.schedule import ScheduleSpec

__all__ = [
    "DEFAULT_OPTIMIZER",
    "HELD_OUT_FRACTION",
    "is_adamw",
    "rule_problems",
]

HELD_OUT_FRACTION = 0.1
"""Default fraction of the validation split, and of the test split."""
DEFAULT_OPTIMIZER = "adamw"
"""Default optimizer of a stage."""
STAGE_FIELDS = {
    "lr": "the stage's lr",
    "weight_decay": "the stage's weight_decay",
    "params": "the stage's train",
}
"""Stage field to set instead, by argument of an optimizer."""


def is_adamw(optimizer: Any) -> bool:
    """Return whether an optimizer is Adam or a variant of AdamW, to which the default learning rates apply."""
    return isinstance(optimizer, str) and (
        optimizer == "adam" or optimizer.startswith(("adamw", "paged_adamw"))
    )


def rule_problems(recipe: Mapping[str, Any]) -> list[Problem]:
    """Return the problems between the fields of a recipe.

    Args:
        recipe: Recipe as plain mappings and lists, any part of which may be missing or of the wrong type.
    """
    stages = recipe.get("stages")
    stages = [as_mapping(stage) for stage in stages] if isinstance(stages, list | tuple) else []
    return [
        *modality_problems(
            recipe.get("task"), as_mapping(recipe.get("data")), as_mapping(recipe.get("speed"))
        ),
        *_split_problems(as_mapping(recipe.get("data"))),
        *label_column_problems(as_mapping(as_mapping(recipe.get("data")).get("columns"))),
        *_stages_or_strategy_problems(recipe.get("stages"), recipe.get("strategy")),
        *_stage_problems("strategy", as_mapping(recipe.get("strategy"))),
        *new_model_problems(recipe.get("task"), recipe.get("model")),
        *label_head_problems(recipe),
        *_adapter_problems(as_mapping(recipe.get("model"))),
        *(
            problem
            for index, stage in enumerate(stages)
            for problem in _stage_problems(f"stages[{index}]", stage)
        ),
        *_sequence_problems(stages),
        *regularize_problems(
            recipe.get("task"), _located_stages(recipe, stages), as_mapping(recipe.get("model"))
        ),
        *_carry_optimizer_problems(stages),
        *_decision_problems(as_mapping(recipe.get("evaluation"))),
        *_seeds_problems(stages, recipe.get("limit")),
        *_pruning_problems(stages, as_mapping(recipe.get("model"))),
        *domain_rule_problems(recipe),
    ]


def _located_stages(
    recipe: Mapping[str, Any], stages: list[Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any]]]:
    strategy = [("strategy", as_mapping(recipe.get("strategy")))]
    return [*strategy, *((f"stages[{index}]", stage) for index, stage in enumerate(stages))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _split_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    split, columns = as_mapping(data.get("split")), as_mapping(data.get("columns"))
    validation, test = split.get("validation", HELD_OUT_FRACTION), split.get("test", HELD_OUT_FRACTION)
    is_valid = all(_is_number(fraction) and 0 <= fraction < 1 for fraction in (validation, test))
    if is_valid and validation + test >= 1:
        repair = "The rest is used for training."
        yield Problem("data.split", "must have validation + test below 1", f"{validation} + {test}", repair)
    group, column = split.get("group"), columns.get("group")
    if group is not None and column is not None and group != column:
        repair = "Both set the group column. Set only one of them."
        yield Problem(
            "data.split.group",
            f"must not differ from data.columns.group {column!r}",
            short_repr(group),
            repair,
        )


def _stages_or_strategy_problems(stages: Any, strategy: Any) -> Iterator[Problem]:
    if strategy is None and (stages is None or stages == ()):
        repair = "Write a list of stages, or set strategy to gradual_unfreeze or features."
        yield Problem("stages", "must be set", repair=repair)
    if strategy is not None and stages:
        repair = "A strategy generates the stages. To use it, set stages to null."
        yield Problem("strategy", "must not be set when stages are set", short_repr(strategy), repair)


def _adapter_problems(model: Mapping[str, Any]) -> Iterator[Problem]:
    save = as_mapping(model.get("adapter")).get("save", "merged")
    head = model.get("head")
    if save == "merged":
        return
    if model.get("allow_missing"):
        rule = "must be merged when model.allow_missing is set"
        repair = "The saved adapter does not contain weights that are missing from the checkpoint."
        yield Problem("model.adapter.save", rule, short_repr(save), repair)
    kind = head if isinstance(head, str) else as_mapping(head).get("type")
    if kind in ("mlp", "cosine") or as_mapping(head).get("pool") not in (None, "own"):
        rule = "must be merged unless the head is linear"
        repair = "peft would load the adapter into a checkpoint with the architecture's own head."
        yield Problem("model.adapter.save", rule, short_repr(save), repair)


def _stage_problems(place: str, stage: Mapping[str, Any]) -> Iterator[Problem]:
    if not stage:
        return
    epochs, max_steps = stage.get("epochs"), stage.get("max_steps")
    rule = "must have either epochs (passes over the training split) or max_steps (optimizer steps)"
    takes_steps = place != "strategy" and stage.get("fit", "gradient") in ("gradient", "auto")
    if epochs is None and max_steps is None and takes_steps:
        yield Problem(place, rule, "neither")
    if stage.get("lr") is None and takes_steps and not is_adamw(_optimizer(stage)[0]):
        repair = "The default learning rates (docs/rates.md) are for AdamW."
        yield Problem(f"{place}.lr", f"must be set when the optimizer is {_optimizer(stage)[0]}", "", repair)
    if epochs is not None and max_steps is not None:
        yield Problem(place, rule, f"epochs {short_repr(epochs)} and max_steps {short_repr(max_steps)}")
    yield from _warmup_problems(place, stage)
    yield from _balance_problems(place, stage)
    if as_mapping(stage.get("lr")) and stage.get("layer_decay") not in (None, 1.0):
        repair = "To decrease the rates towards the input, set lr.backbone to a pair such as [1e-6, 1e-5]."
        rule = "must not be set when lr has a rate for the backbone"
        yield Problem(f"{place}.layer_decay", rule, short_repr(stage["layer_decay"]), repair)
    arguments = as_mapping(as_mapping(stage.get("optimizer")).get("args"))
    for name in STAGE_FIELDS:
        if name in arguments:
            repair = f"Set {STAGE_FIELDS[name]} instead."
            yield Problem(
                f"{place}.optimizer.args.{name}", "must not be set", short_repr(arguments[name]), repair
            )
    if stage.get("early_stopping") is not None and stage.get("best", {}) is None:
        repair = "Early stopping monitors the metric of best. Remove best, or set best.metric."
        yield Problem(f"{place}.best", "must not be null when early_stopping is set", repair=repair)


def _warmup_problems(place: str, stage: Mapping[str, Any]) -> Iterator[Problem]:
    schedule = stage.get("schedule")
    for part in ("", ".head", ".backbone"):
        spec = as_mapping(schedule).get(part[1:]) if part else schedule
        name = as_mapping(spec).get("name") if as_mapping(spec) else spec
        option = ScheduleSpec.options().get(name) if isinstance(name, str) else None
        if option is not None and option.warmup_field and stage.get("warmup", 0) != 0:
            rule = f"must not be set with the {name} schedule"
            repair = f"The schedule has its own warmup. Set schedule{part}.{option.warmup_field}."
            yield Problem(f"{place}.warmup", rule, short_repr(stage["warmup"]), repair)


def _balance_problems(place: str, stage: Mapping[str, Any]) -> Iterator[Problem]:
    balance = stage.get("balance")
    method = as_mapping(balance).get("method") if as_mapping(balance) else balance
    if method == "focal" and _is_number(smoothing := stage.get("label_smoothing", 0.0)) and smoothing > 0:
        repair = "The focal loss is defined for hard labels."
        rule = "must be 0 when balance is focal"
        yield Problem(f"{place}.label_smoothing", rule, short_repr(smoothing), repair)


def _sequence_problems(stages: list[Mapping[str, Any]]) -> Iterator[Problem]:
    first_with: dict[str, int] = {}
    for index, stage in enumerate(stages):
        name = stage.get("name")
        if isinstance(name, str) and name and first_with.setdefault(name, index) != index:
            repair = f"stages[{first_with[name]}] already has this name."
            yield Problem(f"stages[{index}].name", "must be unique", short_repr(name), repair)
        if index and stage and _without_name(stage) == _without_name(stages[index - 1]):
            repair = "Increase the epochs of the previous stage, or change this one."
            train = short_repr(stage.get("train"))
            yield Problem(f"stages[{index}]", "must differ from the previous stage", train, repair)


def _carry_optimizer_problems(stages: list[Mapping[str, Any]]) -> Iterator[Problem]:
    for index, stage in enumerate(stages):
        if stage.get("carry_optimizer") is not True:
            continue
        if index == 0:
            repair = "There is no earlier optimizer state."
            yield Problem("stages[0].carry_optimizer", "must not be set in the first stage", "true", repair)
        elif _optimizer(stage) != _optimizer(stages[index - 1]):
            rule = "must be the same as in the previous stage, including args, when carry_optimizer is true"
            repair = "Optimizer state cannot be loaded into a different optimizer."
            value = short_repr(stage.get("optimizer", DEFAULT_OPTIMIZER))
            yield Problem(f"stages[{index}].optimizer", rule, value, repair)


def _decision_problems(evaluation: Mapping[str, Any]) -> Iterator[Problem]:
    if evaluation.get("top_k") is not None and evaluation.get("thresholds") not in (None, False):
        repair = (
            "Remove one of the two: the most probable classes are predicted whatever their probabilities."
        )
        yield Problem("evaluation.thresholds", "must not be set next to evaluation.top_k", "", repair)


def _seeds_problems(stages: list[Mapping[str, Any]], limit: Any) -> Iterator[Problem]:
    """Yield the problems of stages with several trainings: they have no time limit and pass on no optimizer state."""
    for index, stage in enumerate(stages):
        place, seeds = f"stages[{index}].seeds", stage.get("seeds")
        if seeds is None:
            continue
        following = stages[index + 1] if index + 1 < len(stages) else {}
        if limit is not None:
            repair = "Remove one of them."
            yield Problem(place, "must not be set together with limit", short_repr(seeds), repair)
        for number, user in ((index, stage), (index + 1, following)):
            if user.get("carry_optimizer") is True:
                rule = f"must not be set together with stages[{index}].seeds"
                repair = "There is no single optimizer state."
                yield Problem(f"stages[{number}].carry_optimizer", rule, "true", repair)


def _pruning_problems(stages: list[Mapping[str, Any]], model: Mapping[str, Any]) -> Iterator[Problem]:
    pruned: float = 0
    for index, stage in enumerate(stages):
        compress = stage.get("compress")
        if compress is None:
            continue
        spec = as_mapping(compress) or {"prune": compress}
        place = f"stages[{index}].compress"
        prune = spec.get("prune")
        if model.get("adapter") is not None:
            repair = "An adapter requires the checkpoint's original weights. Prune the merged model in a separate run."
            yield Problem(place, "must not be set when model.adapter is set", short_repr(prune), repair)
        if spec.get("method", "structured") == "structured":
            if stage.get("carry_optimizer") is True:
                rule = "must not be set in a stage with structured pruning"
                repair = "The optimizer state does not match the pruned shapes."
                yield Problem(f"stages[{index}].carry_optimizer", rule, "true", repair)
        elif isinstance(prune, int | float) and not isinstance(prune, bool):
            if prune <= pruned:
                rule = f"must be above {pruned}, the fraction that is already pruned"
                yield Problem(f"{place}.prune", rule, short_repr(prune))
            pruned = max(pruned, prune)


def _optimizer(stage: Mapping[str, Any]) -> tuple[Any, Any]:
    optimizer = stage.get("optimizer", DEFAULT_OPTIMIZER)
    fields = optimizer if isinstance(optimizer, Mapping) else {"name": optimizer}
    return fields.get("name", DEFAULT_OPTIMIZER), dict(as_mapping(fields.get("args")))


def _without_name(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in stage.items() if field != "name"}
