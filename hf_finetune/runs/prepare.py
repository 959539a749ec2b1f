"""The checks of a run before anything is written: recipe, data and checkpoint, with all problems reported together.

``_check`` is the only sequence of checks. ``plan``, ``run``, ``doctor`` and ``preview`` use it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedConfig

from hf_finetune.data.multi_task import MultiTask, TaskData
from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.recipe_data import load_data, load_domain_inputs
from hf_finetune.data.unlabeled import UnlabeledData
from hf_finetune.distributed import main_process_first, start_processes
from hf_finetune.errors import HubUnreachableError, InputError, Problem, collect_problems
from hf_finetune.evaluation.metrics import default_metrics
from hf_finetune.models.build import build_skeleton, load_processor
from hf_finetune.models.compression import stage_layouts
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.planning.domain_adaptation import domain_notes, domain_problems
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.stages import Plan, adapter_problems, build_plan
from hf_finetune.recipe.multitask import problems_in_task
from hf_finetune.recipe.paths import similar_path_hint
from hf_finetune.recipe.schema import Recipe, SingleTaskRecipe
from hf_finetune.runs.checkpoint import read_model_layout, read_task_config
from hf_finetune.runs.expand import expand_recipe
from hf_finetune.runs.joint import (
    MEAN,
    epoch_notes,
    examples_per_epoch,
    join_data,
    joint_problems,
    task_column_ranges,
)
from hf_finetune.runs.new_model import needs_data, with_new_model
from hf_finetune.runs.prepared import UNKNOWN_DATA, PlanReport, PreparedRun
from hf_finetune.runs.problems import (
    metric_name_problems,
    recipe_problems,
    selector_problems,
    stage_problems,
)
from hf_finetune.tasks import TASKS

__all__ = ["load_available_data", "plan_stages", "prepare_run", "prepare_with_data"]

AdaptRecipe = Callable[[Recipe], Recipe]
"""Function that adapts the batch sizes of a recipe to another number of processes."""
DataByTask = Mapping[str, LabeledData]

UNKNOWN_DATA_NOTE = "the plan assumes 2 labels, and the number of steps is unknown"


@quiet_libraries()
def plan_stages(recipe: Recipe, *, trust_remote_code: bool = False) -> PlanReport:
    """Plan the stages of a recipe. Trains nothing, loads no weights, writes nothing.

    If the Hub cannot be reached, its data is replaced by two unknown classes; the number of steps is unknown then.

    Args:
        recipe: Recipe to plan.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The plan; its ``prepared`` is None if the data could not be read.

    Raises:
        InputError: If the recipe does not fit the checkpoint or the data.
    """
    problems: list[Problem] = []
    data_by_task = _load_by_task(recipe, problems, load_available_data)
    domain_inputs = None
    spec = recipe.domain_adaptation
    if spec is not None and Path(spec.target).exists():
        with collect_problems(problems):
            domain_inputs = load_domain_inputs(recipe)
    settings = _Settings(start_processes().num_processes, None, trust_remote_code)
    return _report(_check(recipe, data_by_task, domain_inputs, problems, settings))


def prepare_run(
    recipe: Recipe,
    state: PartialState,
    adapt: AdaptRecipe | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreparedRun:
    """Load the data of a recipe and check everything that a run needs. Writes nothing.

    Args:
        recipe: Recipe of the run.
        state: State of the process: its rank, the number of processes, and the device.
        adapt: Function that adapts the batch sizes of a recipe to another number of processes; None changes nothing.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The checked run.

    Raises:
        InputError: With the problems of recipe, data and checkpoint together.
    """
    problems: list[Problem] = []
    with main_process_first(state):
        data_by_task = _load_by_task(recipe, problems, load_data)
    domain_inputs = None
    with collect_problems(problems), main_process_first(state):
        first = next(iter(data_by_task.values()))
        domain_inputs = load_domain_inputs(recipe, None if first is UNKNOWN_DATA else first)
    settings = _Settings(state.num_processes, adapt, trust_remote_code)
    return _check(recipe, data_by_task, domain_inputs, problems, settings)


def prepare_with_data(
    recipe: Recipe, data: LabeledData, processes: int = 1, *, trust_remote_code: bool = False
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
    return _check(recipe, {"": data}, None, [], _Settings(processes, None, trust_remote_code))


def load_available_data(recipe: Recipe) -> LabeledData | None:
    """Return the labeled data of a single-task recipe; None if the Hub, where it may be, cannot be reached.

    Raises:
        InputError: If the data cannot be used or does not exist, or if the Hub cannot be reached and a local file has a
            similar name, which is probably meant.
    """
    try:
        return load_data(recipe)
    except HubUnreachableError:
        if similar_path_hint(recipe.data.path):
            raise
        return None


def _load_by_task(
    recipe: Recipe, problems: list[Problem], load: Callable[[Recipe], LabeledData | None]
) -> DataByTask:
    """Return the data of each task, ``UNKNOWN_DATA`` where it cannot be read, and append its problems."""
    data_by_task = dict.fromkeys(recipe.task_names, UNKNOWN_DATA)
    for name, single in recipe.by_task().items():
        with collect_problems(problems), problems_in_task(name):
            data_by_task[name] = load(single) or UNKNOWN_DATA
    return data_by_task


@dataclass(frozen=True)
class _Settings:
    """Settings of the checks.

    Attributes:
        processes: Number of processes that share each epoch.
        adapt: See ``prepare_run``.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.
        reads_processor: Whether the processor of the checkpoint is read and checked; False if the data is not available
            because the Hub cannot be reached.
    """

    processes: int
    adapt: AdaptRecipe | None
    trust_remote_code: bool
    reads_processor: bool = True


def _check(
    recipe: Recipe,
    data_by_task: DataByTask,
    domain_inputs: UnlabeledData | None,
    data_problems: list[Problem],
    settings: _Settings,
) -> PreparedRun:
    """Check a recipe and its checkpoint against its data, whose problems are reported too.

    Raises:
        InputError: With all problems, each once.
    """
    problems = list(data_problems)
    if problems and needs_data(recipe):
        raise InputError(dict.fromkeys(problems))
    recipe, new_model_notes = with_new_model(recipe, data_by_task)
    singles = recipe.by_task()
    configs: dict[str, PreTrainedConfig] = {}
    for name, single in singles.items():
        with collect_problems(problems), problems_in_task(name):
            data = data_by_task[name]
            configs[name] = read_task_config(
                single, data.label_names, data.target, settings.trust_remote_code
            )
    layout, adapter_notes = None, tuple[str, ...]()
    if len(configs) == len(singles):
        with collect_problems(problems):
            layout, adapter_notes = read_model_layout(recipe, configs)
    has_data = all(data is not UNKNOWN_DATA for data in data_by_task.values())
    settings = replace(settings, reads_processor=bool(data_problems) or has_data)
    # a joint recipe is adapted once, in _join: each task would report the same batch size again
    task_settings = settings if len(singles) == 1 else replace(settings, adapt=None)
    tasks: dict[str, PreparedRun] = {}
    for name, single in singles.items():
        with collect_problems(problems), problems_in_task(name):
            tasks[name] = _check_task(single, data_by_task[name], configs.get(name), layout, task_settings)
    problems += joint_problems(recipe, data_by_task, settings.trust_remote_code)
    if problems or layout is None:
        raise InputError(dict.fromkeys(problems))
    joined = _join(recipe, tasks, layout, settings)
    # If the data is known, the model is loaded later, and load_start adds these notes.
    stage_notes = joined.stage_notes if has_data else (*adapter_notes, *joined.stage_notes)
    stage_notes = (*new_model_notes, *stage_notes)
    return replace(joined, domain_inputs=domain_inputs, stage_notes=stage_notes)


def _check_task(
    recipe: SingleTaskRecipe,
    data: LabeledData,
    config: PreTrainedConfig | None,
    layout: Layout | None,
    settings: _Settings,
) -> PreparedRun:
    """Check the recipe of one task; ``config`` and ``layout`` are None if they cannot be read.

    Raises:
        InputError: If anything is wrong, or ``layout`` is None. The caller has recorded the problem of the layout, so
            the error may contain no problems.
    """
    task, trust_remote_code = TASKS[recipe.task], settings.trust_remote_code
    problems: list[Problem] = []
    processor, processor_notes = None, tuple[str, ...]()
    if config is not None and layout is not None and settings.reads_processor:
        with collect_problems(problems):
            processor = load_processor(
                recipe.model.path,
                task.modality,
                revision=recipe.model.revision,
                trust_remote_code=trust_remote_code,
            )
            skeleton = partial(build_skeleton, config, task)
            processor_notes = task.modality.configure(processor, config, recipe.data, skeleton)
    problems += stage_problems(recipe)
    metric_names = tuple(recipe.metrics or default_metrics(data.target))
    if data is UNKNOWN_DATA:
        problems += metric_name_problems(recipe)
    else:
        problems += recipe_problems(recipe, data, metric_names, trust_remote_code)
    if config is None or layout is None:
        raise InputError([*problems, *selector_problems(recipe)])
    with collect_problems(problems):
        examples = None if data is UNKNOWN_DATA else task.modality.training_size(data.train, recipe.data)
        expanded, adapted, plan, notes = _expand(recipe, layout, config, data.target, examples, settings)
        problems += [*adapter_problems(adapted, plan), *domain_problems(adapted, plan)]
    if problems:
        raise InputError(problems)
    return PreparedRun(
        recipe=adapted,
        requested=expanded,
        task=task,
        data=data,
        config=config,
        processor=processor,
        plan=plan,
        metric_names=metric_names,
        trust_remote_code=trust_remote_code,
        stage_notes=notes,
        processor_notes=processor_notes,
    )


def _expand(
    recipe: Recipe,
    layout: Layout,
    config: PreTrainedConfig,
    target: str,
    examples: int | None,
    settings: _Settings,
) -> tuple[Recipe, Recipe, Plan, tuple[str, ...]]:
    """Return the expanded recipe, the same adapted to the number of processes, its plan, and notes."""
    expanded, notes = expand_recipe(recipe, layout, config, target, examples)
    adapted = settings.adapt(expanded) if settings.adapt else expanded
    layouts = stage_layouts(layout, config, TASKS[recipe.task_type], adapted.stages)
    plan = build_plan(layout, adapted.stages, examples, settings.processes, layouts)
    return expanded, adapted, plan, notes


def _join(
    recipe: Recipe, tasks: Mapping[str, PreparedRun], layout: Layout, settings: _Settings
) -> PreparedRun:
    """Return the tasks of a recipe as one run: joined data, one plan, and the metrics of all."""
    first = next(iter(tasks.values()))
    if len(tasks) == 1:
        return first
    joined = replace(first, joined=tasks)
    data_by_task = {name: task.data for name, task in tasks.items()}
    examples = sum(examples_per_epoch(recipe, data_by_task.values())) if joined.has_data else None
    target = first.data.target if joined.has_data else UNKNOWN_DATA.target
    expanded, adapted, plan, notes = _expand(recipe, layout, first.config, target, examples, settings)
    metrics = [f"{name}/{metric}" for name, task in tasks.items() for metric in task.metric_names]
    shares = {name: TaskData(task.data, task.recipe.data) for name, task in tasks.items()}
    return replace(
        joined,
        recipe=adapted,
        requested=expanded,
        task=MultiTask(TASKS[recipe.task_type], shares, task_column_ranges(data_by_task)),
        data=join_data(data_by_task) if joined.has_data else UNKNOWN_DATA,
        plan=plan,
        metric_names=(MEAN, *metrics),
        stage_notes=notes,
    )


def _report(prepared: PreparedRun) -> PlanReport:
    """Return the report of a recipe that passed all checks."""
    domain_inputs, tasks = prepared.domain_inputs, prepared.tasks
    stage_notes = domain_notes(
        prepared.requested, prepared.plan.stages, len(domain_inputs) if domain_inputs is not None else None
    )
    examples: int | None = None
    if prepared.has_data:
        counts = examples_per_epoch(prepared.recipe, [task.data for task in tasks.values()])
        examples = sum(counts)
        data_by_task = {name: task.data for name, task in tasks.items()}
        notes = [*prepared.notes, *stage_notes, *epoch_notes(counts, data_by_task)]
    else:
        missing_data_notes = []
        for name, task in tasks.items():
            if task.data is UNKNOWN_DATA:
                subject = f"{name}: the" if name else "The"
                missing_data_notes.append(
                    f"{subject} data {task.recipe.data.path!r} is not available: {UNKNOWN_DATA_NOTE}."
                )
        notes = [
            *missing_data_notes,
            *prepared.stage_notes,
            *(domain_inputs.notes if domain_inputs else ()),
            *stage_notes,
        ]
    return PlanReport(
        recipe=prepared.requested,
        plan=prepared.plan,
        notes=(*notes, *filter(None, [prepared.plan.layout.note])),
        examples=examples,
        configs={name: task.config for name, task in tasks.items()},
        trust_remote_code=prepared.trust_remote_code,
        prepared=prepared if prepared.has_data else None,
    )
