"""Several tasks of one recipe together: their joined data, the examples of an epoch, and rules that span the tasks."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_finetune.data.joint_tasks import TaskColumns, task_columns
from hf_finetune.data.prepare import LabeledData
from hf_finetune.distributed import is_sharded
from hf_finetune.errors import Problem, suggestion
from hf_finetune.evaluation.metrics import metric_problem
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepared import UNKNOWN_DATA
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TRAINING_LABEL, UNKNOWN
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.tasks import find_modality

__all__ = [
    "MEAN",
    "epoch_counts",
    "epoch_notes",
    "examples_per_epoch",
    "join_data",
    "joint_problems",
    "task_column_ranges",
]

MEAN = "mean"
"""Metric of all tasks: the mean of the first metric of each task; metrics where lower is better are negated."""

DataByTask = Mapping[str, LabeledData]


def task_column_ranges(data_by_task: Mapping[str, LabeledData]) -> tuple[TaskColumns, ...]:
    """Return the columns of each task in labels and logits."""
    return task_columns({name: (data.target, len(data.label_names)) for name, data in data_by_task.items()})


def examples_per_epoch(recipe: Recipe, data_by_task: Iterable[LabeledData]) -> tuple[int, ...]:
    """Return the number of examples of each task in an epoch.

    Args:
        recipe: Recipe of the tasks.
        data_by_task: Data of each task, in the order of the recipe.
    """
    return epoch_counts([len(data.train) for data in data_by_task], recipe.task_mixing.exponent)


def epoch_counts(sizes: Sequence[int], exponent: float) -> tuple[int, ...]:
    """Return the number of examples of each task in an epoch, which has as many examples as all tasks together.

    The share of a task with n examples is proportional to n^exponent: with 1, each example occurs once; with 0, the
    shares are equal. Examples left over by rounding go to the tasks with the largest remainders, the first task among
    equals.

    Args:
        sizes: Number of training examples of each task.
        exponent: Power of the number of examples, in [0, 1], from ``MixingSpec.exponent``.

    Source: Devlin et al., multilingual BERT (sizes to a power); Raffel et al. 2020, T5, section 3.5.2 (mixing).
    """
    weights, total = [size**exponent for size in sizes], sum(sizes)
    if exponent == 1.0:
        return tuple(sizes)
    exact_counts = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact_counts]
    order = sorted(range(len(sizes)), key=lambda index: counts[index] - exact_counts[index])
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return tuple(counts)


def epoch_notes(counts: Sequence[int], data_by_task: Mapping[str, LabeledData]) -> list[str]:
    """Return a sentence on the number of examples of each task in an epoch; none for a single task.

    Args:
        counts: Number of examples of each task in an epoch, from ``examples_per_epoch``.
        data_by_task: Data of each task.
    """
    if len(data_by_task) == 1:
        return []
    shares = [
        f"{count:,} of {name} ({_times(count / len(data.train))})"
        for count, (name, data) in zip(counts, data_by_task.items(), strict=True)
    ]
    return [f"An epoch has {sum(counts):,} examples: {', '.join(shares)}."]


def _times(factor: float) -> str:
    return "each once" if factor == 1 else f"each {factor:.3g} times on average"


def join_data(data_by_task: Mapping[str, LabeledData]) -> LabeledData:
    """Return the data of all tasks as one. Each split is that of the first task that has it."""
    fingerprints = {name: data.fingerprint for name, data in data_by_task.items()}
    validations = [data.validation for data in data_by_task.values() if data.validation is not None]
    tests = [data.test for data in data_by_task.values() if data.test is not None]
    return LabeledData(
        train=next(iter(data_by_task.values())).train,
        validation=validations[0] if validations else None,
        test=tests[0] if tests else None,
        target=json.dumps({name: data.target for name, data in data_by_task.items()}),
        label_names=tuple(
            f"{name}/{label}" for name, data in data_by_task.items() for label in data.label_names
        ),
        notes=(
            *(f"{name}: {note}" for name, data in data_by_task.items() for note in data.notes),
            *_cross_task_leakage_notes(data_by_task),
        ),
        fingerprint=hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest(),
    )


def _cross_task_leakage_notes(data_by_task: Mapping[str, LabeledData]) -> list[str]:
    """Return notes on test examples of a task that are training examples of another, so the backbone trains on them."""
    notes = []
    for name, evaluated in data_by_task.items():
        for other_name, trained_on in data_by_task.items():
            if name == other_name or evaluated.test is None:
                continue
            modality = find_modality(evaluated.test.column_names)
            known = set(modality.hashes(trained_on.train)[0])
            count = sum(content in known for content in modality.hashes(evaluated.test)[0])
            if count:
                notes.append(
                    f"{count:,} of the {len(evaluated.test):,} test examples of {name} are training examples of "
                    f"{other_name}: the backbone is trained on them, but not on their labels in {name}."
                )
    return notes


def _unsupported_label_problems(name: str, data: LabeledData, learns_weights: bool) -> list[Problem]:
    """Return the problems of labels that the joint loss does not support.

    They are unknown labels, probabilities and weights, labels that are no rows of numbers, and own losses if the
    weights of the tasks are learned.
    """
    kinds = {
        UNKNOWN: "contain unknown classes, which multi-task recipes do not support",
        TRAINING_LABEL: "have probabilities or weights, which multi-task recipes do not support",
    }
    rules = [rule for column, rule in kinds.items() if column in data.train.column_names]
    target = TARGETS[data.target]
    if target.label_width(len(data.label_names)) is None:
        rules.append(f"are {target.name} labels, which multi-task recipes do not support")
    elif learns_weights and not target.has_standard_loss:
        rules.append(f"are {target.name} labels, whose loss weighting: uncertainty does not support")
    return [
        Problem(f"The labels of {name}", rule, repair="Train this task in a separate run.") for rule in rules
    ]


def joint_problems(recipe: Recipe, data_by_task: DataByTask, trust_remote_code: bool) -> list[Problem]:
    """Return the problems of tasks together: those of stages, and of labels that the joint loss does not support.

    Args:
        recipe: Recipe of the tasks.
        data_by_task: Data of each task.
        trust_remote_code: Whether code of metrics may run.
    """
    if len(data_by_task) == 1:
        return []
    problems = [
        problem
        for name, data in data_by_task.items()
        for problem in _unsupported_label_problems(name, data, recipe.learns_task_weights)
    ]
    if is_sharded():
        rule = "must not be multi-task with FSDP or DeepSpeed"
        repair = "Launch without --use_fsdp and --use_deepspeed."
        problems.append(Problem("task", rule, "'multi-task'", repair))
    stages: list[tuple[str, Any]] = [(f"stages[{index}]", spec) for index, spec in enumerate(recipe.stages)]
    stages += [("strategy", recipe.strategy)] if recipe.strategy is not None else []
    for place, spec in stages:
        metric = spec.best.metric if spec.best else None
        if metric is not None:
            where = f"{place}.best.metric"
            problems += _metric_problems(recipe, data_by_task, metric, where, trust_remote_code)
        has_validation = any(
            data is UNKNOWN_DATA or data.validation is not None for data in data_by_task.values()
        )
        if spec.early_stopping is not None and not has_validation:
            rule = "must not be set without a validation split"
            repair = "Add a validation split to a task, or remove the field."
            problems.append(Problem(f"{place}.early_stopping", rule, "", repair))
    return problems


def _metric_problems(
    recipe: Recipe, data_by_task: DataByTask, metric: str, place: str, trust_remote_code: bool
) -> list[Problem]:
    """Return the problem of the metric that selects the best checkpoint: mean, loss, or the metric of a task."""
    if metric in (MEAN, "loss"):
        return []
    name, slash, metric_name = metric.partition("/")
    if not slash or name not in recipe.task_names:
        rule = "must be mean, loss, or TASK/METRIC of one of the tasks"
        known = [f"{task}/accuracy" for task in recipe.task_names]
        return [Problem(place, rule, repr(metric), suggestion(metric, [MEAN, "loss", *known]))]
    data = data_by_task[name]
    if data is UNKNOWN_DATA:
        return []
    if data.validation is None:
        repair = f"Set tasks.{name}.data.split.validation above 0, or remove the field."
        return [Problem(place, f"must not be set if {name} has no validation split", repr(metric), repair)]
    settings = MetricSettings(data.label_names)
    problem = metric_problem(metric_name, data.target, place, settings, trust_remote_code=trust_remote_code)
    return [problem] if problem else []
