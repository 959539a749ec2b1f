"""Checks of a recipe that depend on its data, the installed libraries or FSDP and DeepSpeed."""

from collections.abc import Sequence

from transformers.integrations import get_available_reporting_integrations

from hf_finetune.data.prepare import LabeledData
from hf_finetune.distributed import is_sharded, uses_deepspeed
from hf_finetune.errors import Problem
from hf_finetune.evaluation.metrics import metric_problem, misspelled_metric
from hf_finetune.evaluation.selection_metrics import undefined_metric, unknown_label_problem
from hf_finetune.methods.class_balance import label_problems
from hf_finetune.models.compression import is_sparse
from hf_finetune.planning.selectors import form_problems
from hf_finetune.recipe.head_fit import head_fit_problems, solver_of
from hf_finetune.recipe.method_rules import RULES
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSettings
from hf_finetune.targets import TARGETS
from hf_finetune.targets.costs import cost_problems
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.tasks.image.augment import check_transforms
from hf_finetune.training.optimizers import check_optimizer

__all__ = [
    "metric_name_problems",
    "recipe_problems",
    "selector_problems",
    "stage_problems",
]

NO_VALIDATION = "must not be set without a validation split"
ADD_VALIDATION = "Set data.split.validation above 0, or remove the field."


def stage_problems(recipe: Recipe) -> list[Problem]:
    """Return the problems that depend on installed libraries, FSDP or DeepSpeed, but not on data or checkpoint."""
    problems = check_transforms(recipe.data.augment.transform_list())
    for place, spec in _stage_settings(recipe):
        if spec.optimizer is not None:
            problems += check_optimizer(spec.optimizer.name, spec.optimizer.args, f"{place}.optimizer")
        problems += _sharding_problems(spec, f"{place}.") if is_sharded() else []
    for index, stage in enumerate(recipe.stages):
        if stage.seeds is not None and is_sharded():
            rule = "is not supported with FSDP or DeepSpeed, which shard the model"
            problems.append(Problem(f"stages[{index}].seeds", rule, str(stage.seeds)))
    if is_sparse(recipe.stages) and is_sharded():
        rule = "must be structured with FSDP or DeepSpeed, which shard the pruned weights"
        index = next(number for number, spec in enumerate(recipe.stages) if is_sparse([spec]))
        problems.append(Problem(f"stages[{index}].compress.method", rule, "'unstructured'"))
    problems += _sharding_problems(recipe, "") if is_sharded() else []
    if recipe.speed.memory_format == "channels_last" and uses_deepspeed():
        rule = "must be 'contiguous' with DeepSpeed, which does not support other memory formats"
        problems.append(Problem("speed.memory_format", rule, "'channels_last'"))
    return problems


def selector_problems(recipe: Recipe) -> list[Problem]:
    """Return the problems of selectors that are invalid for every model, for use without a model."""
    adapter = recipe.model.adapter.type if recipe.model.adapter else None
    return [
        problem
        for index, spec in enumerate(recipe.stages)
        for problem in form_problems(spec.train, f"stages[{index}].train", adapter)
    ]


def metric_name_problems(recipe: Recipe) -> list[Problem]:
    """Return the problems of misspelled metric names, for use before the labels are known."""
    named = [(name, f"metrics[{index}]") for index, name in enumerate(recipe.metrics)]
    named += [
        (spec.best.metric, f"{place}.best.metric")
        for place, spec in _stage_settings(recipe)
        if spec.best and spec.best.metric not in (None, "loss")
    ]
    return [problem for name, place in named if (problem := misspelled_metric(str(name), place))]


def recipe_problems(
    recipe: Recipe, data: LabeledData, metric_names: Sequence[str], trust_remote_code: bool = False
) -> list[Problem]:
    """Return the problems of a recipe that depend on its data.

    They concern metrics, class balance, regularizers, the head fit, the evaluation, and settings that need
    a validation or test split. Trackers that are not installed are reported too.

    Args:
        recipe: Recipe to check.
        data: Labeled data with its splits.
        metric_names: Names of the metrics of the recipe; the first one selects checkpoints by default.
        trust_remote_code: Whether code of metrics may run.
    """
    problems = _evaluation_problems(recipe, data)
    settings = MetricSettings(data.label_names, recipe.evaluation.costs or {})
    for index, name in enumerate(metric_names):
        place = f"metrics[{index}]"
        problem = unknown_label_problem(name, data, place, settings) or metric_problem(
            name, data.target, place, settings, trust_remote_code=trust_remote_code
        )
        problems += [problem] if problem else []
    chosen_by: dict[str, str] = {}
    for place, spec in _stage_settings(recipe):
        metric = spec.best.metric if spec.best else None
        if spec.best is not None and not solver_of(spec):
            where = f"{place}.best.metric" if metric else "metrics[0]" if recipe.metrics else f"{place}.best"
            chosen_by.setdefault(str(metric or metric_names[0]), where)
        if metric not in (None, "loss"):
            problem = metric_problem(
                str(metric),
                data.target,
                f"{place}.best.metric",
                settings,
                trust_remote_code=trust_remote_code,
            )
            problems += [problem] if problem else []
        if data.validation is None and (metric is not None or spec.early_stopping is not None):
            field = "early_stopping" if spec.early_stopping is not None else "best.metric"
            problems.append(Problem(f"{place}.{field}", NO_VALIDATION, "", ADD_VALIDATION))
        problems += label_problems(spec, place, data.target, data.label_names)
        if not TARGETS[data.target].has_classes:
            problems += _class_problems(spec, place, data.target)
        if not TARGETS[data.target].has_standard_loss:
            problems += _loss_problems(spec, place, data.target)
        field = "classifier" if place == "strategy" else "fit"
        problems += head_fit_problems(solver_of(spec), data.target, f"{place}.{field}")
    if recipe.model.head.bias is not None and not TARGETS[data.target].has_classes:
        rule = "is only supported for labels with classes"
        problems.append(Problem("model.head.bias", rule, f"{data.target} labels"))
    undefined = [undefined_metric(name, data, place, settings) for name, place in chosen_by.items()]
    return [*problems, *filter(None, undefined)]


def _evaluation_problems(recipe: Recipe, data: LabeledData) -> list[Problem]:
    """Return the problems of evaluation settings that labels or splits do not support, and of missing trackers."""
    evaluation = recipe.evaluation
    problems = cost_problems(evaluation.costs or {}, data.target, data.label_names)
    for field, is_set in (("calibrate", evaluation.calibrate), ("thresholds", evaluation.thresholds)):
        if is_set and data.validation is None:
            problems.append(Problem(f"evaluation.{field}", NO_VALIDATION, "", ADD_VALIDATION))
    if evaluation.slices and data.test is None:
        rule = "must not be set without a test split"
        repair = "Set data.split.test above 0, or remove the field."
        problems.append(Problem("evaluation.slices", rule, "", repair))
    several = TARGETS[data.target].has_several_classes
    for field, is_set in (("thresholds", evaluation.thresholds), ("top_k", evaluation.top_k is not None)):
        if is_set and not several:
            rule = "is only supported for multi-label data"
            problems.append(Problem(f"evaluation.{field}", rule, f"{data.target} labels"))
    classes = len(data.label_names)
    if several and evaluation.top_k is not None and evaluation.top_k >= classes:
        problems.append(
            Problem(
                "evaluation.top_k",
                f"must be less than the number of classes, {classes}",
                f"{evaluation.top_k}",
            )
        )
    if evaluation.calibrate and not TARGETS[data.target].has_classes:
        problems.append(Problem("evaluation.calibrate", f"is not supported for {data.target} labels"))
    elif evaluation.calibrate and not TARGETS[data.target].has_standard_loss:
        rule = f"is not supported for the label type {data.target}, which has its own loss"
        problems.append(Problem("evaluation.calibrate", rule))
    known = get_available_reporting_integrations()
    for index, name in enumerate(recipe.track):
        if name not in known:
            repair = f"Installed: {', '.join(known) or 'none'}. To install it: python -m pip install {name}."
            problems.append(Problem(f"track[{index}]", "must be an installed tracker", repr(name), repair))
    return problems


def _sharding_problems(part: Recipe | StageSettings, prefix: str) -> list[Problem]:
    """Return a problem for each field of a method in a part of a recipe that FSDP and DeepSpeed do not support."""
    return [
        Problem(
            f"{prefix}{field}",
            f"is not supported with FSDP or DeepSpeed, which {rules.sharding_objection}",
            repr(value) if type(value) is float else "",
        )
        for rules in RULES
        if rules.sharding_objection
        for field, value in rules.used(part).items()
    ]


def _class_problems(spec: StageSettings, place: str, target: str) -> list[Problem]:
    """Return a problem for each field of a method that requires classes, for labels without them."""
    rule = f"is not supported for {target} labels"
    return [
        Problem(f"{place}.{field}", rule, repr(value), rules.classes_reason)
        for rules in RULES
        if rules.classes_reason
        for field, value in rules.used(spec).items()
    ]


def _loss_problems(spec: StageSettings, place: str, target: str) -> list[Problem]:
    """Return a problem for each field of a method that replaces the loss, for labels with a custom loss."""
    return [
        Problem(f"{place}.{field}", f"is not supported for the label type {target}, which has its own loss")
        for rules in RULES
        if rules.needs_standard_loss
        for field in rules.used(spec)
    ]


def _stage_settings(recipe: Recipe) -> list[tuple[str, StageSettings]]:
    """Return the settings of each stage with their location; those of a strategy, for all stages, are listed once."""
    if recipe.strategy is not None:
        return [("strategy", recipe.strategy)]
    return [(f"stages[{index}]", spec) for index, spec in enumerate(recipe.stages)]
