"""Check everything that a run needs, before anything is written: recipe, data and checkpoint together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.unlabelled import UnlabelledData
from hf_finetune.distributed import main_process_first, start_processes
from hf_finetune.errors import HubUnreachable, InputError, Problem
from hf_finetune.evaluation.metrics import default_metrics
from hf_finetune.evaluation.registry import MetricSettings
from hf_finetune.evaluation.selection_metrics import resolution_notes
from hf_finetune.models.adapters import add_adapter
from hf_finetune.models.build import BuiltModel, build_model, build_skeleton, load_processor, read_config
from hf_finetune.models.compression import stage_layouts
from hf_finetune.models.defaults import find_defaults
from hf_finetune.models.head_spec import set_head
from hf_finetune.models.input_channels import check_channels
from hf_finetune.models.joining import join_tasks
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.models.pooling import default_pooling, fill_pooling, is_left
from hf_finetune.models.remote_code import check_declared
from hf_finetune.models.vocabulary import fit_vocabulary
from hf_finetune.planning.adapter_saving import adapter_problems
from hf_finetune.planning.domain_adaptation import domain_notes, domain_problems
from hf_finetune.planning.head_fit import settle_fits
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.rates import fill_depths, fill_rates, rate_notes
from hf_finetune.planning.stages import Plan, build_plan
from hf_finetune.planning.strategies import write_stages
from hf_finetune.recipe import MultiTaskRecipe, Recipe
from hf_finetune.recipe.head import OF_CHECKPOINT
from hf_finetune.recipe.head_fit import chooses_pooling
from hf_finetune.recipe.paths import similar_here
from hf_finetune.runs.problems import (
    metric_name_problems,
    recipe_problems,
    selector_problems,
    stage_problems,
)
from hf_finetune.tasks import TASKS, Inputs, Task, load_data
from hf_finetune.tasks.data import load_target

__all__ = [
    "PlanReport",
    "PreparedRun",
    "add_recipe_adapter",
    "check_task",
    "collected",
    "config_of",
    "data_at_hand",
    "expand_recipe",
    "load_pretrained",
    "plan",
    "prepare_single",
    "with_input_notes",
]


NOT_AT_HAND = "its labels are counted as 2, its steps are unknown"


@dataclass(frozen=True)
class PlanReport:
    """A plan, and what it could not know.

    Attributes:
        recipe: The recipe, its stages written out where it has a strategy.
        plan: What each stage trains.
        notes: Sentences for the person.
        examples: Number of training examples; None if the data is not at hand.
        config: Of the model to be.
        configs: Of each of several tasks, that of its model; empty for one.
        trust_remote_code: Whether the person lets code of the checkpoint run.
        prepared: What a run of the recipe would begin with; None if the data is not at hand.
        seconds: Estimated time of each stage, an upper bound; empty if nothing was measured.
    """

    recipe: Recipe
    plan: Plan
    notes: tuple[str, ...]
    examples: int | None
    config: PreTrainedConfig
    configs: Mapping[str, PreTrainedConfig] = field_of(default_factory=dict)
    trust_remote_code: bool = False
    prepared: "PreparedRun | None" = None
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class PoolingChoice:
    """How the pooling of frozen texts was chosen.

    Attributes:
        losses: Cross-validated loss of each pooling.
        before: The run under the architecture's own head, whose model computed the vectors.
        key: Name of the files in which the vectors are kept.
    """

    losses: Mapping[str, float]
    before: "PreparedRun"
    key: str


@dataclass(frozen=True)
class PreparedRun:
    """Everything a run needs, checked; nothing written yet.

    Attributes:
        recipe: What each process does, the stages written out.
        requested: What the run is to do, the stages written out: the same but for a run that goes on with another number
            of processes, whose batches are spread over them.
        task: All that differs between images and texts.
        data: Its splits.
        config: Of the model to be.
        processor: Of its inputs: an image processor or a tokenizer.
        plan: What each stage trains.
        primary_metrics: Names of the metrics, the leading one first.
        target: Inputs of the domain that the model is adapted to; None if it is not.
        parts: Of each of several tasks, what it needs by itself; empty for one.
        trust_remote_code: Whether the person lets code of checkpoints and metrics run.
        stage_notes: What the stages left to the model, and given rates that are far from its defaults.
        processor_notes: What was changed of the processor that the recipe does not ask for.
        pooling: How the pooling of frozen texts was chosen; None if it was not.
    """

    recipe: Recipe
    requested: Recipe
    task: Task
    data: LabelledData
    config: PreTrainedConfig
    processor: Any
    plan: Plan
    primary_metrics: tuple[str, ...]
    target: UnlabelledData | None = None
    parts: Mapping[str, "PreparedRun"] = field_of(default_factory=dict)
    trust_remote_code: bool = False
    stage_notes: tuple[str, ...] = ()
    processor_notes: tuple[str, ...] = ()
    pooling: "PoolingChoice | None" = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the person should know of the data and the stages."""
        resolution = [
            f"{task}: {note}" if task else note
            for task, part in (self.parts or {"": self}).items()
            for note in resolution_notes(self.recipe.stages, part.primary_metrics[0], part.data, task)
        ]
        target_notes = self.target.notes if self.target else ()
        return (*self.data.notes, *target_notes, *resolution, *self.processor_notes, *self.stage_notes)

    @property
    def metric_settings(self) -> MetricSettings:
        """What some metrics depend on besides labels and scores: the classes and the costs."""
        return MetricSettings(self.data.label_names, self.recipe.evaluation.costs or {})

    @property
    def pretrains(self) -> bool:
        """Whether the backbone is trained on masked inputs before the first stage."""
        spec = self.recipe.domain_adaptation
        return self.target is not None and spec is not None and spec.method == "continue_pretraining"

    @property
    def saves(self) -> str:
        """What the run leaves: ``merged``, ``adapter`` or ``both``."""
        return self.recipe.model.adapter.save if self.recipe.model.adapter else "merged"


def plan(recipe: Recipe, *, trust_remote_code: bool = False) -> PlanReport:
    """Plan what each stage of a recipe trains. Trains nothing, loads no weights, writes nothing.

    Without the data the number of labels and steps is not known; without the checkpoint's config there is no plan.

    Args:
        recipe: Of one task.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.

    Returns:
        The plan; with ``prepared`` if the data could be read.

    Raises:
        InputError: If the recipe does not fit the checkpoint or the data.
    """
    problems: list[Problem] = []
    data, other = None, None
    with collected(problems):
        data = data_at_hand(recipe)
    with collected(problems):
        other = target_at_hand(recipe)
    if data is None and not problems:
        return _plan_without_data(recipe, other, trust_remote_code)
    processes = start_processes().num_processes
    prepared = check_task(recipe, data, problems, processes, trust_remote_code=trust_remote_code)
    prepared = replace(prepared, target=other)
    domain = domain_notes(recipe, prepared.plan.stages, len(other) if other else None)
    notes = (*prepared.notes, *domain, *filter(None, [prepared.plan.layout.note]))
    examples = len(prepared.data.train)
    return PlanReport(
        *(prepared.requested, prepared.plan, notes, examples, prepared.config),
        trust_remote_code=trust_remote_code,
        prepared=prepared,
    )


def _plan_without_data(recipe: Recipe, other: UnlabelledData | None, trust_remote_code: bool) -> PlanReport:
    """Plan with two labels, since the data is on the Hub and cannot be read now."""
    task, problems = TASKS[recipe.task], [*stage_problems(recipe), *metric_name_problems(recipe)]
    config, layout, made = None, None, None
    notes = [f"The data {recipe.data.path!r} is not at hand: {NOT_AT_HAND}."]
    with collected(problems):
        config = config_of(recipe, ("0", "1"), "single_label", trust_remote_code)
        layout, adapter_notes = _read_layout(recipe, config, task)
        notes += adapter_notes
    if layout is None:
        problems += selector_problems(recipe)
    if layout is not None and config is not None:
        with collected(problems):
            recipe, rate_sentences = expand_recipe(recipe, layout, config, "single_label", None)
            notes += rate_sentences
            layouts = stage_layouts(layout, config, task.modality, recipe.stages)
            made = build_plan(layout, recipe.stages, None, start_processes().num_processes, layouts)
            problems += [*adapter_problems(recipe, made), *domain_problems(recipe, made)]
    if problems or layout is None or made is None or config is None:
        raise InputError(problems)
    notes += other.notes if other else ()
    notes += domain_notes(recipe, made.stages, len(other) if other else None)
    shown = (*notes, *filter(None, [layout.note]))
    return PlanReport(recipe, made, shown, None, config, trust_remote_code=trust_remote_code)


def expand_recipe(
    recipe: Recipe, layout: Layout, config: PreTrainedConfig, target: str, examples: int | None
) -> tuple[Recipe, tuple[str, ...]]:
    """Write out what a recipe leaves to the model: stages of a strategy, their depth, fits of heads, rates, pooling.

    Args:
        recipe: As it was given.
        layout: Of the model.
        config: Of the checkpoint, whose architecture has default rates.
        target: What the labels are.
        examples: Number of training examples; None if it is not known.

    Returns:
        The recipe, in which every stage that takes steps has a rate; and sentences on what was filled in, and on given
        rates that are far from the defaults. Stages with a selector that matches nothing stay as they are.
    """
    modality = TASKS[recipe.kind].modality
    defaults = find_defaults(config, layout, modality)
    place, strategy = "", recipe.strategy.name if recipe.strategy else None
    alone = not isinstance(recipe, MultiTaskRecipe)
    suits = default_pooling(config, recipe.model.path, recipe.model.revision)
    leaves = is_left(recipe, suits) if alone else recipe.model.head.pool == OF_CHECKPOINT
    if recipe.strategy is not None:
        place = "strategy.lr"
        fields = {name: getattr(recipe, name) for name in type(recipe).model_fields}
        stages = write_stages(recipe.strategy, layout.backbone_groups)
        recipe = type(recipe)(**{**fields, "strategy": None, "stages": stages})
    deep, depth_sentences = fill_depths(recipe.stages, layout, defaults)
    settled, fit_sentences = settle_fits(deep, layout, target, examples, alone)
    filled, rate_sentences = fill_rates(settled, layout, defaults)
    is_chosen = chooses_pooling(recipe.model, settled, strategy)
    model, pooling_sentences = fill_pooling(recipe.model, suits, is_left=leaves, is_chosen=is_chosen)
    far = rate_notes(settled, layout, defaults, place)
    notes = (*pooling_sentences, *depth_sentences, *fit_sentences, *rate_sentences, *far)
    return recipe.model_copy(update={"model": model, "stages": filled}), notes


def data_at_hand(recipe: Recipe) -> LabelledData | None:
    """Load the recipe's data; None if it may be on a Hub that gives no answer: most of a plan does without.

    Raises:
        InputError: If the data cannot be used, is not there, or has almost the name of something that is here.
    """
    try:
        return load_data(recipe, TASKS[recipe.task].modality)
    except HubUnreachable:
        if similar_here(recipe.data.path):
            raise
        return None


def target_at_hand(recipe: Recipe) -> UnlabelledData | None:
    """Load the inputs of the other domain; None if there are none, or they are not there.

    Raises:
        InputError: If they are there and cannot be used.
    """
    spec = recipe.domain_adaptation
    if spec is None or not Path(spec.target).exists():
        return None
    return load_target(recipe, TASKS[recipe.task].modality)


def prepare_single(
    recipe: Recipe,
    state: PartialState,
    spread: Callable[[Recipe], Recipe] | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreparedRun:
    """Check everything before anything is written. Problems of data, checkpoint and recipe are told together.

    Args:
        recipe: What to do.
        state: The processes.
        spread: Gives the recipe whose batches are spread over the processes, if it is not the same.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.
    """
    problems: list[Problem] = []
    data, target = None, None
    with collected(problems), main_process_first(state):
        data = load_data(recipe, TASKS[recipe.task].modality)
    with collected(problems), main_process_first(state):
        target = load_target(recipe, TASKS[recipe.task].modality, data)
    prepared = check_task(
        recipe, data, problems, state.num_processes, spread, trust_remote_code=trust_remote_code
    )
    return replace(prepared, target=target)


def check_task(
    recipe: Recipe,
    data: LabelledData | None,
    found: Sequence[Problem] = (),
    processes: int = 1,
    spread: Callable[[Recipe], Recipe] | None = None,
    joined: Layout | None = None,
    *,
    trust_remote_code: bool = False,
) -> PreparedRun:
    """Check a recipe and its checkpoint against data that is loaded.

    Args:
        recipe: What to do.
        data: Of the recipe, or made up; None if it could not be loaded.
        found: The problems of the data.
        processes: Number of processes that share each epoch.
        spread: See ``prepare_single``.
        joined: Of the model that this and other tasks share; None plans with the model of this one.
        trust_remote_code: Whether code of the checkpoint and of metrics may run.
    Raises:
        InputError: With the problems of data, checkpoint and recipe together.
    """
    task = TASKS[recipe.task]
    problems = list(found)
    asked = recipe
    processor, config, layout, made = None, None, None, None
    stage_notes: tuple[str, ...] = ()
    processor_notes: tuple[str, ...] = ()
    names, target = (data.label_names, data.target) if data else (("0", "1"), "single_label")
    with collected(problems):
        config = config_of(recipe, names, target, trust_remote_code)
        layout = joined if joined is not None else _read_layout(recipe, config, task)[0]
        processor = load_processor(
            recipe.model.path,
            task.modality,
            revision=recipe.model.revision,
            trust_remote_code=trust_remote_code,
        )
        processor_notes = task.configure(processor, config, recipe.data)
    problems += stage_problems(recipe)
    primary_metrics = recipe.metrics or default_metrics(target)
    if data is not None:
        problems += recipe_problems(recipe, data, primary_metrics, trust_remote_code)
    else:
        problems += metric_name_problems(recipe)
    if layout is None:
        problems += selector_problems(recipe)
    if layout is not None and config is not None:
        with collected(problems):
            examples = len(data.train) if data else None
            asked, stage_notes = expand_recipe(recipe, layout, config, target, examples)
            recipe = spread(asked) if spread else asked
            layouts = stage_layouts(layout, config, task.modality, recipe.stages)
            made = build_plan(layout, recipe.stages, examples, processes, layouts)
            problems += [*adapter_problems(recipe, made), *domain_problems(recipe, made)]
    if problems or data is None or config is None or made is None:
        raise InputError(problems)
    return PreparedRun(
        *(recipe, asked, task, data, config, processor, made, tuple(primary_metrics)),
        stage_notes=stage_notes,
        processor_notes=processor_notes,
        trust_remote_code=trust_remote_code,
    )


def with_input_notes(prepared: PreparedRun, inputs: Inputs) -> PreparedRun:
    """Add to the notes of the data, and of the data of each task, those on how examples become inputs."""
    if not inputs.notes:
        return prepared
    data = _with_notes(
        prepared.data, [f"{task}: {note}" if task else note for task, note in inputs.notes.items()]
    )
    parts = {
        task: replace(part, data=_with_notes(part.data, [inputs.notes[task]]))
        if task in inputs.notes
        else part
        for task, part in prepared.parts.items()
    }
    return replace(prepared, data=data, parts=parts)


def _with_notes(data: LabelledData, notes: Sequence[str]) -> LabelledData:
    return replace(data, notes=(*data.notes, *notes))


@contextmanager
def collected(problems: list[Problem]) -> Iterator[None]:
    """Add the problems that stop what is inside to those that are known, and go on behind it."""
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)


def load_pretrained(prepared: PreparedRun) -> BuiltModel:
    """Load the checkpoint's weights under a new head, with the recipe's adapter; the same weights at every call."""
    if isinstance(prepared.recipe, MultiTaskRecipe):
        each = {name: load_pretrained(part) for name, part in prepared.parts.items()}
        learns = prepared.recipe.weighting == "uncertainty"
        model = join_tasks({name: built.model for name, built in each.items()}, learns_weights=learns)
        return BuiltModel(
            model, tuple(dict.fromkeys(note for built in each.values() for note in built.notes))
        )
    spec = prepared.recipe.model
    # While the TrainingArguments of an earlier stage live, transformers 5.23 would divide the model as it loads it
    # for DeepSpeed's ZeRO-3, and leave empty tensors behind. The stage's own engine divides it.
    unset_hf_deepspeed_config()
    built = build_model(
        spec.path,
        prepared.config,
        modality=prepared.task.modality,
        revision=spec.revision,
        allow_missing=spec.allow_missing,
        trust_remote_code=prepared.trust_remote_code,
        seed=prepared.recipe.seed,
    )
    return replace(built, notes=(*built.notes, *add_recipe_adapter(built.model, prepared.recipe)))


def add_recipe_adapter(model: PreTrainedModel, recipe: Recipe) -> list[str]:
    """Put the recipe's adapter into a model, if it has one, and say where it is."""
    spec = recipe.model.adapter
    if spec is None:
        return []
    note = add_adapter(
        model,
        head_names(model),
        kind=spec.type,
        r=spec.r,
        alpha=spec.alpha,
        dropout=spec.dropout,
        target=spec.target,
        seed=recipe.seed,
    )
    return [note]


def _read_layout(recipe: Recipe, config: PreTrainedConfig, task: Task) -> tuple[Layout, list[str]]:
    skeleton = build_skeleton(config, task.modality)
    notes = add_recipe_adapter(skeleton, recipe)
    return read_layout(skeleton), notes


def config_of(
    recipe: Recipe, label_names: Sequence[str], target: str, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Read the config of the checkpoint, and set labels and head in it.

    Args:
        recipe: Of one task.
        label_names: The classes.
        target: What a label is.
        trust_remote_code: Whether code that comes with the checkpoint may run.
    Raises:
        InputError: If there is no such checkpoint, or the recipe declares code that may not run.
    """
    spec = recipe.model
    check_declared(spec.trust_remote_code, trust_remote_code, spec.path, spec.revision)
    config = read_config(
        spec.path,
        label_names,
        target,
        revision=spec.revision,
        dropout=spec.dropout,
        drop_path=spec.drop_path,
        trust_remote_code=trust_remote_code,
    )
    modality = TASKS[recipe.kind].modality
    head = spec.head
    suits = default_pooling(config, spec.path, spec.revision)
    if is_left(recipe, suits):
        head = head.model_copy(update={"pool": suits.name})
    set_head(config, None if head.is_plain else head.fields(), spec.dropout)
    if modality == "image":
        check_channels(config, spec.path)
        return config
    try:
        tokenizer = load_processor(
            spec.path, "text", revision=spec.revision, trust_remote_code=trust_remote_code
        )
    except InputError:
        return config  # who needs the tokenizer tells it
    fit_vocabulary(config, tokenizer, spec.path, resize=spec.resize_embeddings)
    return config
