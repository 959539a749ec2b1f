"""The checks of a run before anything is written: recipe, data and checkpoint, with all problems reported together.

``check_recipe`` is the only sequence of checks. ``plan``, ``run``, ``doctor`` and ``preview`` call it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedConfig

from hf_finetune.data.multi_task import MultiTask, Share
from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.recipe_data import load_data, load_target
from hf_finetune.data.unlabelled import UnlabelledData
from hf_finetune.distributed import main_process_first, start_processes
from hf_finetune.errors import HubUnreachable, InputError, Problem, collect_problems
from hf_finetune.evaluation.metrics import default_metrics
from hf_finetune.models.build import build_skeleton, load_processor
from hf_finetune.models.compression import stage_layouts
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.planning.adapter_saving import adapter_problems
from hf_finetune.planning.domain_adaptation import domain_notes, domain_problems
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.stages import Plan, build_plan
from hf_finetune.recipe import MultiTaskRecipe, Recipe
from hf_finetune.recipe.multitask import place_in_task
from hf_finetune.recipe.paths import similar_here
from hf_finetune.runs.checkpoint import read_joint_layout, read_task_config, read_task_layout
from hf_finetune.runs.expand import expand_recipe
from hf_finetune.runs.joint import MEAN, columns_of, epoch_note, examples_of_tasks, join_data, joint_problems
from hf_finetune.runs.prepared import PlanReport, PreparedRun
from hf_finetune.runs.problems import (
    metric_name_problems,
    recipe_problems,
    selector_problems,
    stage_problems,
)
from hf_finetune.targets import SingleLabel
from hf_finetune.targets.labels import Target
from hf_finetune.tasks import TASKS, Task

__all__ = ["check_recipe", "data_at_hand", "plan", "prepare_run", "prepare_with"]

Spread = Callable[[Recipe], Recipe]
Datas = Mapping[str, LabelledData | None]

NOT_AT_HAND = "the plan assumes 2 labels, and the number of steps is unknown"
UNKNOWN_LABELS: tuple[Sequence[str], Target] = (("0", "1"), SingleLabel.name)
"""Class names and kind of the labels with which a recipe is planned while its data is unknown."""


@dataclass(frozen=True)
class _Checked:
    """One task that passed the checks, or all tasks of a recipe together.

    Attributes:
        requested: Recipe with all fields expanded, as the run was asked for.
        recipe: The same recipe as each process follows it.
        task: Task, or the combination of several.
        data: Labeled data; None if it could not be read.
        config: Config of the model.
        processor: Image processor or tokenizer; None if the data could not be read.
        plan: Plan of the stages.
        primary_metrics: Names of the metrics, the leading one first.
        notes: Notes on the adapter, the processor and the expanded fields.
    """

    requested: Recipe
    recipe: Recipe
    task: Task | MultiTask
    data: LabelledData | None
    config: PreTrainedConfig
    processor: Any
    plan: Plan
    primary_metrics: tuple[str, ...]
    adapter_notes: Sequence[str] = ()
    processor_notes: tuple[str, ...] = ()
    stage_notes: tuple[str, ...] = ()


@quiet_libraries()
def plan(recipe: Recipe, *, trust_remote_code: bool = False) -> PlanReport:
    """Plan the stages of a recipe. Trains nothing, loads no weights, writes nothing.

    Data on a Hub that does not answer is replaced by two unknown classes; the number of steps is then unknown.

    Args:
        recipe: Recipe to plan.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The plan; its ``prepared`` is None if the data could not be read.

    Raises:
        InputError: If the recipe does not fit the checkpoint or the data.
    """
    problems: list[Problem] = []
    datas = _load_each(recipe, problems, data_at_hand)
    domain = None
    with collect_problems(problems):
        domain = _domain_at_hand(recipe)
    processes = start_processes().num_processes
    return check_recipe(recipe, datas, domain, problems, processes, trust_remote_code=trust_remote_code)


def prepare_run(
    recipe: Recipe,
    state: PartialState,
    spread: Spread | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreparedRun:
    """Load the data of a recipe and check everything that a run needs. Writes nothing.

    Args:
        recipe: Recipe of the run.
        state: The processes.
        spread: Function that returns the recipe whose batches are distributed over the processes, where it differs.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The checked run.

    Raises:
        InputError: With the problems of recipe, data and checkpoint together.
    """
    problems: list[Problem] = []
    with main_process_first(state):
        datas = _load_each(recipe, problems, load_data)
    domain = None
    with collect_problems(problems), main_process_first(state):
        domain = load_target(recipe, next(iter(datas.values())))
    processes = state.num_processes
    return _complete(
        check_recipe(recipe, datas, domain, problems, processes, spread, trust_remote_code=trust_remote_code)
    )


def prepare_with(
    recipe: Recipe, data: LabelledData, processes: int = 1, *, trust_remote_code: bool = False
) -> PreparedRun:
    """Check a single-task recipe against data that is loaded already.

    Args:
        recipe: Recipe of a single task.
        data: Its labeled data, or synthetic data in its place.
        processes: Number of processes that share each epoch.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The checked run.

    Raises:
        InputError: With the problems of recipe and checkpoint together.
    """
    report = check_recipe(recipe, {"": data}, processes=processes, trust_remote_code=trust_remote_code)
    return _complete(report)


def _complete(report: PlanReport) -> PreparedRun:
    """Return the prepared run of a report whose data was given."""
    if report.prepared is None:
        raise RuntimeError("data that cannot be read must have been reported")
    return report.prepared


def data_at_hand(recipe: Recipe) -> LabelledData | None:
    """Return the labeled data of a single-task recipe; None if it may be on a Hub that does not answer.

    Raises:
        InputError: If the data cannot be used, does not exist, or has almost the name of a local file or folder.
    """
    try:
        return load_data(recipe)
    except HubUnreachable:
        if similar_here(recipe.data.path):
            raise
        return None


def _domain_at_hand(recipe: Recipe) -> UnlabelledData | None:
    """Return the inputs of the target domain; None without domain adaptation, or if they do not exist."""
    spec = recipe.domain_adaptation
    if spec is None or not Path(spec.target).exists():
        return None
    return load_target(recipe)


def _load_each(
    recipe: Recipe, problems: list[Problem], load: Callable[[Recipe], LabelledData | None]
) -> dict[str, LabelledData | None]:
    """Return the data of each task, None where it cannot be used, and append the problems to ``problems``."""
    datas: dict[str, LabelledData | None] = {}
    for name, single in recipe.by_task().items():
        datas[name] = None
        try:
            datas[name] = load(single)
        except InputError as error:
            problems += _in_task(error.problems, name)
    return datas


def _in_task(problems: Sequence[Problem], name: str) -> list[Problem]:
    """Return problems of the recipe of one task with their places in the whole recipe."""
    return [replace(problem, place=place_in_task(problem.place, name)) for problem in problems]


def check_recipe(
    recipe: Recipe,
    datas: Datas,
    domain: UnlabelledData | None = None,
    known: Sequence[Problem] = (),
    processes: int = 1,
    spread: Spread | None = None,
    *,
    trust_remote_code: bool = False,
) -> PlanReport:
    """Check a recipe and its checkpoint against its data.

    Args:
        recipe: Recipe of one task or of several.
        datas: Data of each task; of a single task under the name ``""``. None where it could not be read.
        domain: Inputs of the target domain.
        known: Problems of the data. Where there are none, data that is None is planned as two unknown classes.
        processes: Number of processes that share each epoch.
        spread: Function that returns the recipe whose batches are distributed over the processes, where it differs.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The plan; its ``prepared`` is None if the data of a task is None.

    Raises:
        InputError: With all problems, each once.
    """
    problems = list(known)
    lacks_data = any(data is None for data in datas.values())
    reads_processor = bool(problems) or not lacks_data
    joint = None
    several = isinstance(recipe, MultiTaskRecipe)
    if isinstance(recipe, MultiTaskRecipe):
        with collect_problems(problems):
            joint = read_joint_layout(recipe, _configs(recipe, datas, trust_remote_code))
    tasks: dict[str, _Checked] = {}
    for name, single in recipe.by_task().items():
        try:
            tasks[name] = _check_task(
                *(single, datas[name], joint, processes, None if several else spread, reads_processor),
                trust_remote_code=trust_remote_code,
            )
        except InputError as error:
            problems += _in_task(error.problems, name)
    if isinstance(recipe, MultiTaskRecipe):
        problems += joint_problems(recipe, datas, trust_remote_code)
    if problems:
        raise InputError(dict.fromkeys(problems))
    if isinstance(recipe, MultiTaskRecipe) and joint is not None:
        whole = _join(recipe, tasks, joint, processes, spread)
    else:
        (whole,) = tasks.values()
    return _report(recipe, whole, tasks if several else {}, domain, trust_remote_code)


def _check_task(
    recipe: Recipe,
    data: LabelledData | None,
    joint: Layout | None,
    processes: int,
    spread: Spread | None,
    reads_processor: bool,
    *,
    trust_remote_code: bool,
) -> _Checked:
    """Check the recipe of one task; ``joint`` is the layout of the model that it shares with other tasks.

    Raises:
        InputError: With the problems of recipe and checkpoint together.
    """
    task, problems = TASKS[recipe.task], list[Problem]()
    config, layout, adapter_notes = None, None, list[str]()
    processor, processor_notes = None, tuple[str, ...]()
    names, target = _labels(data)
    with collect_problems(problems):
        config = read_task_config(recipe, names, target, trust_remote_code)
        layout, adapter_notes = (joint, []) if joint is not None else read_task_layout(recipe, config)
        if reads_processor:
            revision = recipe.model.revision
            processor = load_processor(
                recipe.model.path, task.modality, revision=revision, trust_remote_code=trust_remote_code
            )
            processor_notes = task.modality.configure(
                processor, config, recipe.data, partial(build_skeleton, config, task)
            )
    problems += stage_problems(recipe)
    primary_metrics = recipe.metrics or default_metrics(target)
    if data is None:
        problems += metric_name_problems(recipe)
    else:
        problems += recipe_problems(recipe, data, primary_metrics, trust_remote_code)
    if layout is None or config is None:
        raise InputError([*problems, *selector_problems(recipe)])
    with collect_problems(problems):
        examples = len(data.train) if data else None
        requested, effective, plan, notes = _expand(
            recipe, layout, config, target, examples, processes, spread
        )
        problems += [*adapter_problems(effective, plan), *domain_problems(effective, plan)]
    if problems:
        raise InputError(problems)
    return _Checked(
        *(requested, effective, task, data, config, processor, plan, tuple(primary_metrics)),
        adapter_notes=adapter_notes,
        processor_notes=processor_notes,
        stage_notes=notes,
    )


def _labels(data: LabelledData | None) -> tuple[Sequence[str], Target]:
    """Return the class names and the kind of the labels."""
    return (data.label_names, data.target) if data else UNKNOWN_LABELS


def _configs(recipe: MultiTaskRecipe, datas: Datas, trust_remote_code: bool) -> dict[str, PreTrainedConfig]:
    """Return the config of the model of each task."""
    return {
        name: read_task_config(single, *_labels(datas[name]), trust_remote_code)
        for name, single in recipe.by_task().items()
    }


def _expand(
    recipe: Recipe,
    layout: Layout,
    config: PreTrainedConfig,
    target: str,
    examples: int | None,
    processes: int,
    spread: Spread | None,
) -> tuple[Recipe, Recipe, Plan, tuple[str, ...]]:
    """Return the expanded recipe as requested and as each process follows it, its plan, and notes."""
    requested, notes = expand_recipe(recipe, layout, config, target, examples)
    effective = spread(requested) if spread else requested
    layouts = stage_layouts(layout, config, TASKS[recipe.kind], effective.stages)
    return requested, effective, build_plan(layout, effective.stages, examples, processes, layouts), notes


def _join(
    recipe: MultiTaskRecipe,
    tasks: Mapping[str, _Checked],
    layout: Layout,
    processes: int,
    spread: Spread | None,
) -> _Checked:
    """Return the tasks of a recipe as one: joined data, one plan, and the metrics of all."""
    first = next(iter(tasks.values()))
    datas = {name: task.data for name, task in tasks.items() if task.data is not None}
    lacks_data = len(datas) < len(tasks)
    examples = None if lacks_data else sum(examples_of_tasks(recipe, datas.values()))
    target = UNKNOWN_LABELS[1] if lacks_data else datas[next(iter(tasks))].target
    requested, effective, plan, notes = _expand(
        recipe, layout, first.config, target, examples, processes, spread
    )
    metrics = [f"{name}/{metric}" for name, task in tasks.items() for metric in task.primary_metrics]
    shares = {name: Share(data, tasks[name].recipe.data) for name, data in datas.items()}
    return _Checked(
        requested=requested,
        recipe=effective,
        task=MultiTask(TASKS[recipe.kind], shares, columns_of(datas)),
        data=None if lacks_data else join_data(datas),
        config=first.config,
        processor=first.processor,
        plan=plan,
        primary_metrics=(MEAN, *metrics),
        processor_notes=first.processor_notes,
        stage_notes=notes,
    )


def _report(
    recipe: Recipe,
    whole: _Checked,
    tasks: Mapping[str, _Checked],
    domain: UnlabelledData | None,
    trust_remote_code: bool,
) -> PlanReport:
    """Return the report of a recipe that passed all checks; ``tasks`` is empty for a single task."""
    layout_notes = filter(None, [whole.plan.layout.note])
    domain_sentences = domain_notes(whole.requested, whole.plan.stages, len(domain) if domain else None)
    prepared, examples = None, None
    if whole.data is None:
        absent = [
            f"{f'{name}: ' if name else ''}the data {single.data.path!r} is not available: {NOT_AT_HAND}."
            for name, single in recipe.by_task().items()
            if (tasks or {"": whole})[name].data is None
        ]
        absent = absent if tasks else [note[0].upper() + note[1:] for note in absent]
        domain_files = domain.notes if domain else ()
        notes = [*absent, *whole.adapter_notes, *whole.stage_notes, *domain_files, *domain_sentences]
    else:
        parts = {name: _prepared(task, {}, None, trust_remote_code) for name, task in tasks.items()}
        prepared = _prepared(whole, parts, domain, trust_remote_code)
        counts = [len(prepared.data.train)]
        notes = [*prepared.notes, *domain_sentences]
        if isinstance(recipe, MultiTaskRecipe):
            datas = {name: part.data for name, part in parts.items()}
            counts = list(examples_of_tasks(recipe, datas.values()))
            notes.append(epoch_note(counts, datas))
        examples = sum(counts)
    configs = {name: task.config for name, task in tasks.items()}
    return PlanReport(
        *(whole.requested, whole.plan, (*notes, *layout_notes), examples, whole.config, configs),
        trust_remote_code=trust_remote_code,
        prepared=prepared,
    )


def _prepared(
    checked: _Checked,
    parts: Mapping[str, PreparedRun],
    domain: UnlabelledData | None,
    trust_remote_code: bool,
) -> PreparedRun:
    if checked.data is None:
        raise RuntimeError("a run needs its data")
    return PreparedRun(
        recipe=checked.recipe,
        requested=checked.requested,
        task=checked.task,
        data=checked.data,
        config=checked.config,
        processor=checked.processor,
        plan=checked.plan,
        primary_metrics=checked.primary_metrics,
        target=domain,
        parts=parts,
        trust_remote_code=trust_remote_code,
        stage_notes=checked.stage_notes,
        processor_notes=checked.processor_notes,
    )
