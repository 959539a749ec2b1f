"""Check everything that a run of several tasks needs, before anything is written: each task, and all together."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from accelerate import PartialState
from transformers import PreTrainedConfig

from hf_finetune.data.joint_tasks import TaskColumns, task_columns
from hf_finetune.data.labels import TRAINING_LABEL, UNKNOWN, Target
from hf_finetune.data.overlap import count_shared
from hf_finetune.data.prepare import LabelledData
from hf_finetune.distributed import is_sharded, main_process_first, start_processes
from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.evaluation.metrics import metric_problem
from hf_finetune.evaluation.registry import MetricSettings
from hf_finetune.models.build import build_skeleton
from hf_finetune.models.joining import join_tasks
from hf_finetune.models.layout import read_layout
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.stages import build_plan
from hf_finetune.planning.task_mixing import epoch_counts
from hf_finetune.recipe import MultiTaskRecipe, Recipe
from hf_finetune.recipe.multitask import place_in_task
from hf_finetune.runs.prepare import (
    NOT_AT_HAND,
    PlanReport,
    PreparedRun,
    check_task,
    collected,
    config_of,
    data_at_hand,
    expand_recipe,
)
from hf_finetune.runs.prepare import plan as plan_one
from hf_finetune.runs.prepare import prepare_single as get_ready_for_one
from hf_finetune.runs.problems import stage_problems
from hf_finetune.tasks import TASKS, load_data
from hf_finetune.tasks.multi_task import MultiTask, Share

__all__ = ["MEAN", "check_tasks", "columns_of", "counts_of", "plan", "prepare_run"]

MEAN = "mean"
"""The metric of all tasks together: the mean of each task's first metric, errors counted below 0."""

Spread = Callable[[Recipe], Recipe]
Datas = Mapping[str, LabelledData | None]


@quiet_libraries()
def plan(recipe: Recipe, *, trust_remote_code: bool = False) -> PlanReport:
    """Say what each stage of a recipe would train. Trains nothing, loads no weights, writes nothing.

    Without the data the number of labels and steps is not known; without the checkpoint's config there is no plan.

    Args:
        recipe: What would be trained.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Raises:
        InputError: If the recipe does not fit the checkpoint or the data.
    """
    if not isinstance(recipe, MultiTaskRecipe):
        return plan_one(recipe, trust_remote_code=trust_remote_code)
    problems: list[Problem] = []
    datas = _of_each(recipe, problems, data_at_hand)
    if not problems and any(data is None for data in datas.values()):
        return _plan_without_data(recipe, datas, trust_remote_code)
    processes = start_processes().num_processes
    prepared = check_tasks(recipe, datas, problems, processes, trust_remote_code=trust_remote_code)
    configs = {name: part.config for name, part in prepared.parts.items()}
    counts = counts_of(recipe, prepared)
    shares = [
        f"{count:,} of {name} ({_times(count / len(part.data.train))})"
        for count, (name, part) in zip(counts, prepared.parts.items(), strict=True)
    ]
    notes = [*prepared.notes, f"An epoch has {sum(counts):,} examples: {', '.join(shares)}."]
    found = tuple(filter(None, [*notes, prepared.plan.layout.note]))
    return PlanReport(
        *(prepared.requested, prepared.plan, found, sum(counts), prepared.config, configs),
        trust_remote_code=trust_remote_code,
        prepared=prepared,
    )


def prepare_run(
    recipe: Recipe,
    state: PartialState,
    spread: Spread | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreparedRun:
    """Check everything before anything is written, for one task or for several.

    Args:
        recipe: What to do.
        state: The processes.
        spread: Gives the recipe whose batches are spread over the processes, if it is not the same.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.
    """
    if not isinstance(recipe, MultiTaskRecipe):
        return get_ready_for_one(recipe, state, spread, trust_remote_code=trust_remote_code)
    problems: list[Problem] = []
    with main_process_first(state):
        datas = _of_each(recipe, problems, lambda alone: load_data(alone, TASKS[recipe.kind].modality))
    return check_tasks(
        recipe, datas, problems, state.num_processes, spread, trust_remote_code=trust_remote_code
    )


def check_tasks(
    recipe: MultiTaskRecipe,
    datas: Datas,
    found: Sequence[Problem] = (),
    processes: int = 1,
    spread: Spread | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreparedRun:
    """Check a recipe of several tasks and its checkpoint against data that is loaded.

    Args:
        recipe: What to do.
        datas: Of each task its data; None if it could not be loaded.
        found: The problems of the data.
        processes: Number of processes that share each epoch.
        spread: See ``prepare_single``.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.
    Raises:
        InputError: With the problems of all tasks together, each once.
    """
    problems, parts = list(found), {}
    layout = None
    with collected(problems):
        layout = _joined_layout(recipe, _configs(recipe, datas, trust_remote_code))
    for name, data in datas.items():
        try:
            parts[name] = check_task(
                *(recipe.of_task(name), data, (), processes),
                joined=layout,
                trust_remote_code=trust_remote_code,
            )
        except InputError as error:
            problems += _placed(error.problems, name)
    problems += _joint_problems(recipe, datas, trust_remote_code)
    if problems or layout is None:
        raise InputError({(one.place, one.rule, one.value): one for one in problems}.values())
    first = next(iter(parts.values()))
    shares = {name: Share(part.data, part.recipe.data) for name, part in parts.items()}
    counts = epoch_counts(_sizes(parts), recipe.mixing.method, recipe.mixing.temperature)
    asked, stage_notes = expand_recipe(recipe, layout, first.config, first.data.target, sum(counts))
    now = spread(asked) if spread else asked
    data = _joined_data({name: part.data for name, part in parts.items()})
    columns = columns_of(parts)
    return PreparedRun(
        recipe=now,
        requested=asked,
        task=MultiTask(first.task, shares, columns),
        data=data,
        config=first.config,
        processor=first.processor,
        plan=build_plan(layout, now.stages, sum(counts), processes),
        primary_metrics=(
            MEAN,
            *(f"{name}/{metric}" for name, part in parts.items() for metric in part.primary_metrics),
        ),
        parts=parts,
        stage_notes=stage_notes,
        processor_notes=first.processor_notes,
        trust_remote_code=trust_remote_code,
    )


def columns_of(parts: Mapping[str, PreparedRun]) -> tuple[TaskColumns, ...]:
    """Give each task its columns in labels and logits."""
    return task_columns(
        {name: (part.data.target, len(part.data.label_names)) for name, part in parts.items()}
    )


def counts_of(recipe: MultiTaskRecipe, prepared: PreparedRun) -> tuple[int, ...]:
    """Give the number of examples of each task in an epoch."""
    return epoch_counts(_sizes(prepared.parts), recipe.mixing.method, recipe.mixing.temperature)


def _sizes(parts: Mapping[str, PreparedRun]) -> list[int]:
    return [len(part.data.train) for part in parts.values()]


def _times(factor: float) -> str:
    return "each once" if factor == 1 else f"each {factor:.3g} times in the mean"


def _of_each(
    recipe: MultiTaskRecipe, problems: list[Problem], load: Callable[[Recipe], LabelledData | None]
) -> dict[str, LabelledData | None]:
    """Load the data of each task, and collect what is wrong with it."""
    datas: dict[str, LabelledData | None] = {}
    for name in recipe.tasks:
        datas[name] = None
        try:
            datas[name] = load(recipe.of_task(name))
        except InputError as error:
            problems += _placed(error.problems, name)
    return datas


def _placed(problems: Sequence[Problem], name: str) -> list[Problem]:
    return [Problem(place_in_task(one.place, name), one.rule, one.value, one.repair) for one in problems]


def _configs(recipe: MultiTaskRecipe, datas: Datas, trust_remote_code: bool) -> dict[str, PreTrainedConfig]:
    known = {
        name: (data.label_names, data.target) if data else (("0", "1"), "single_label")
        for name, data in datas.items()
    }
    return {
        name: config_of(recipe.of_task(name), *labels, trust_remote_code) for name, labels in known.items()
    }


def _joined_layout(recipe: MultiTaskRecipe, configs: Mapping[str, PreTrainedConfig]) -> Layout:
    modality = TASKS[recipe.kind].modality
    skeletons = {name: build_skeleton(config, modality) for name, config in configs.items()}
    return read_layout(join_tasks(skeletons, learns_weights=recipe.weighting == "uncertainty"))


def _plan_without_data(recipe: MultiTaskRecipe, datas: Datas, trust_remote_code: bool) -> PlanReport:
    problems = [*stage_problems(recipe), *_joint_problems(recipe, datas, trust_remote_code)]
    with collected(problems):
        configs = _configs(recipe, datas, trust_remote_code)
        layout = _joined_layout(recipe, configs)
        config = next(iter(configs.values()))
        asked, stage_notes = expand_recipe(recipe, layout, config, "single_label", None)
        made = build_plan(layout, asked.stages, None, start_processes().num_processes)
    if problems:
        raise InputError(problems)
    notes = [
        f"{name}: the data {recipe.tasks[name].data.path!r} is not at hand: {NOT_AT_HAND}."
        for name, data in datas.items()
        if data is None
    ]
    first = next(iter(configs.values()))
    shown = (*notes, *stage_notes, *filter(None, [layout.note]))
    return PlanReport(asked, made, shown, None, first, configs, trust_remote_code)


def _joined_data(datas: Mapping[str, LabelledData]) -> LabelledData:
    """Describe the data of all tasks as one; its splits are those of the first task that has them."""
    fingerprints = {name: data.fingerprint for name, data in datas.items()}
    held = [data.validation for data in datas.values() if data.validation is not None]
    judged = [data.test for data in datas.values() if data.test is not None]
    return LabelledData(
        train=next(iter(datas.values())).train,
        validation=held[0] if held else None,
        test=judged[0] if judged else None,
        target=cast(Target, json.dumps({name: data.target for name, data in datas.items()})),
        label_names=tuple(f"{name}/{label}" for name, data in datas.items() for label in data.label_names),
        notes=(
            *(f"{name}: {note}" for name, data in datas.items() for note in data.notes),
            *_seen_elsewhere(datas),
        ),
        fingerprint=hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest(),
    )


def _seen_elsewhere(datas: Mapping[str, LabelledData]) -> list[str]:
    """Say which inputs a task is judged by, and another is trained on: the backbone has seen them, their labels not."""
    notes = []
    for name, judged in datas.items():
        for other, trained in datas.items():
            count = (
                count_shared(judged.test, trained.train) if name != other and judged.test is not None else 0
            )
            if count:
                notes.append(
                    f"{count:,} of the {len(judged.test or ()):,} test examples of {name} are training examples of "
                    f"{other}: the backbone sees them, though not their labels in {name}."
                )
    return notes


def _complete_problems(name: str, data: LabelledData | None) -> list[Problem]:
    """Refuse labels that the loss of several tasks has no place for: unknown ones, probabilities and weights."""
    kinds = {
        UNKNOWN: "must be known for every class when the task is multi-task",
        TRAINING_LABEL: "must have neither probabilities nor weights when the task is multi-task",
    }
    return [
        Problem(f"The labels of {name}", rule, repair="Train this task in a run of its own.")
        for column, rule in kinds.items()
        if data is not None and column in data.train.column_names
    ]


def _joint_problems(recipe: MultiTaskRecipe, datas: Datas, trust_remote_code: bool) -> list[Problem]:
    """Find what stages ask of all tasks together."""
    problems = [problem for name, data in datas.items() for problem in _complete_problems(name, data)]
    if is_sharded():
        repair = "Leave out --use_fsdp and --use_deepspeed."
        problems.append(
            Problem("task", "must not be multi-task under FSDP and DeepSpeed", "'multi-task'", repair)
        )
    stages: list[tuple[str, Any]] = [(f"stages[{index}]", one) for index, one in enumerate(recipe.stages)]
    stages += [("strategy", recipe.strategy)] if recipe.strategy is not None else []
    for place, stage in stages:
        metric = stage.best.metric if stage.best else None
        if metric is not None:
            where = f"{place}.best.metric"
            problems += _metric_problems(recipe, datas, metric, where, trust_remote_code)
        looks = any(data is None or data.validation is not None for data in datas.values())
        if stage.early_stopping is not None and not looks:
            rule, repair = (
                "must have a validation split to look at",
                "Give one of the tasks one, or leave it out.",
            )
            problems.append(Problem(f"{place}.early_stopping", rule, "", repair))
    return problems


def _metric_problems(
    recipe: MultiTaskRecipe, datas: Datas, metric: str, place: str, trust_remote_code: bool
) -> list[Problem]:
    """Say what is wrong with the metric by which a stage chooses: mean, loss, or one of a task."""
    if metric in (MEAN, "loss"):
        return []
    name, slash, own = metric.partition("/")
    if not slash or name not in recipe.tasks:
        rule = "must be mean, loss, or TASK/METRIC of one of the tasks"
        known = [f"{task}/accuracy" for task in recipe.tasks]
        return [Problem(place, rule, repr(metric), nearest(metric, [MEAN, "loss", *known]))]
    data = datas[name]
    if data is None:
        return []
    if data.validation is None:
        repair = f"Set tasks.{name}.data.split.validation above 0, or leave it out."
        return [Problem(place, f"must have a validation split of {name} to look at", repr(metric), repair)]
    settings = MetricSettings(data.label_names)
    problem = metric_problem(own, data.target, place, settings, trust_remote_code=trust_remote_code)
    return [problem] if problem else []
