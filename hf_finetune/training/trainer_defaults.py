"""Settings that the stages of a ``StagedTrainer`` take from its ``TrainingArguments``."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from hf_finetune.errors import InputError, Problem
from hf_finetune.methods.class_balance import label_problems
from hf_finetune.models.defaults import find_defaults
from hf_finetune.planning.head_fit import resolve_head_fits
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.rates import fill_selectors
from hf_finetune.recipe.head_fit import head_fit_problems, solver_of
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.method_rules import DISTILLATION, PRUNING, RULES
from hf_finetune.recipe.schedule import ScheduleSpec
from hf_finetune.recipe.stage_fields import OptimizerSpec, StageSpec
from hf_finetune.targets import TARGETS
from hf_finetune.targets.model_config import get_target
from hf_finetune.tasks import TASKS, Task
from hf_finetune.training.optimizers import check_optimizer

__all__ = ["complete_stages"]

SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
"""Schedule of a stage by ``lr_scheduler_type``."""
NEEDS_RUN_FILES = (DISTILLATION, PRUNING)
"""Methods that need the files of a run."""


def complete_stages(
    stages: Sequence[StageSpec],
    model: PreTrainedModel,
    layout: Layout,
    args: TrainingArguments,
    examples: int,
) -> tuple[StageSpec, ...]:
    """Return checked stages with a name each, in which ``args`` fill the fields that a stage leaves out.

    Args:
        stages: Stages as the user wrote them.
        model: Classifier that they train.
        layout: Parameters and layer groups of the model.
        args: Arguments of the user.
        examples: Number of training examples.

    Returns:
        The stages.

    Raises:
        InputError: If a stage is invalid or does not suit the labels of the model; with all problems.
    """
    task, target = _task_of(model), get_target(model.config)
    filled = [_with_defaults(spec, args) for spec in stages]
    recipe = parse_recipe({"task": task.name, "model": "model", "data": "data", "stages": filled})
    with_selectors, _ = fill_selectors(
        recipe.stages, layout, find_defaults(model.config, layout, task.modality)
    )
    resolved, _ = resolve_head_fits(with_selectors, layout, target, examples)
    names = tuple(model.config.id2label.values())
    problems = [
        problem
        for index, spec in enumerate(resolved)
        for problem in _problems(spec, f"stages[{index}]", target, names)
    ]
    if problems:
        raise InputError(problems)
    return resolved


def _task_of(model: PreTrainedModel) -> Task:
    """Return a task of the model's kind of input, by the rules of which its stages are checked."""
    for task in TASKS.values():
        if model.main_input_name in task.modality.main_inputs:
            return task
    known = " or ".join(name for task in TASKS.values() for name in task.modality.main_inputs)
    raise InputError(Problem("model", f"must be a classifier with the input {known}", type(model).__name__))


def _with_defaults(spec: StageSpec, args: TrainingArguments) -> StageSpec:
    """Return a stage with its missing fields set by the arguments, those of optimizer steps only if it takes steps."""
    defaults: dict[str, Any] = {"batch_size": args.per_device_train_batch_size}
    if not solver_of(spec):
        defaults |= _step_fields(args)
        if spec.epochs is None and spec.max_steps is None:
            if args.max_steps > 0:
                defaults["max_steps"] = args.max_steps
            else:
                defaults["epochs"] = float(args.num_train_epochs)
    changes = {name: value for name, value in defaults.items() if name not in spec.model_fields_set}
    return spec.model_copy(update=changes)


def _step_fields(args: TrainingArguments) -> dict[str, Any]:
    schedule = str(args.lr_scheduler_type.value)
    if schedule not in SCHEDULES:
        rule = f"must be one of {', '.join(SCHEDULES)}"
        repair = "Set one of them, or a schedule in each stage."
        raise InputError(Problem("args.lr_scheduler_type", rule, repr(schedule), repair))
    warmup = args.warmup_steps
    return {
        "accumulation": args.gradient_accumulation_steps,
        "lr": args.learning_rate,
        "optimizer": OptimizerSpec(name=args.optim.value),
        "schedule": ScheduleSpec.model_validate(SCHEDULES[schedule]),
        "warmup": warmup if 0 < warmup < 1 else int(warmup),
        "weight_decay": args.weight_decay,
        "clip": args.max_grad_norm or None,
        "label_smoothing": args.label_smoothing_factor,
    }


def _problems(spec: StageSpec, place: str, target: str, label_names: Sequence[str]) -> list[Problem]:
    problems = check_optimizer(spec.optimizer.name, spec.optimizer.args, f"{place}.optimizer")
    problems += label_problems(spec, place, target, label_names)
    problems += head_fit_problems(solver_of(spec), target, f"{place}.fit")
    for rules in RULES:
        for field, value in rules.used(spec).items():
            if rules in NEEDS_RUN_FILES:
                rule = "must not be set in a StagedTrainer"
                repair = "Write a recipe, and use hf_finetune.run."
                problems.append(Problem(f"{place}.{field}", rule, "", repair))
            elif rules.classes_reason and not TARGETS[target].has_classes:
                rule = f"must not be set for {target} labels"
                problems.append(Problem(f"{place}.{field}", rule, repr(value), rules.classes_reason))
    return problems
