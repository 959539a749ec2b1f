"""Plan of a run: the trained parameters, learning rates and number of steps of each stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from hf_finetune.errors import InputError, Problem
from hf_finetune.planning.groups import ParameterGroup, plan_groups
from hf_finetune.planning.head_fit import check_solver
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.selectors import select
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec

__all__ = ["Plan", "PlannedStage", "StagePlan", "adapter_problems", "build_plan", "steps_per_epoch"]


@dataclass(frozen=True)
class StagePlan:
    """Plan of one stage.

    Attributes:
        name: Name of the stage.
        train: Selector of the stage, as written in the recipe.
        trainable: Names of the trained parameters, in the model's order.
        groups: Parameter groups of the optimizer, with peak learning rates.
        trainable_size: Number of trained elements.
        frozen_batch_norms: BatchNorm layers whose running statistics are not updated: their parameters are frozen.
        epochs: Number of epochs, possibly fractional; None if it is not known.
        steps: Number of optimizer steps; None if it depends on the number of training examples, which is not known.
        warmup_steps: Optimizer steps of the linear warmup; None if it depends on ``steps``, which is not known.
        layout: Parameters and layer groups of the model in this stage; pruning shrinks the parameters' shapes.
        carried: Names of the parameters whose optimizer state is kept from the previous stage.
    """

    name: str
    train: str
    trainable: tuple[str, ...]
    groups: tuple[ParameterGroup, ...]
    trainable_size: int
    frozen_batch_norms: tuple[str, ...]
    epochs: float | None
    steps: int | None
    warmup_steps: int | None
    layout: Layout
    carried: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the recipe, ready to be trained.

    Attributes:
        spec: Stage of the recipe.
        plan: Plan of the stage.
        seed: Seed of the stage.
        first_epoch: Number of the first epoch, on which augmentations depend.
    """

    spec: StageSpec
    plan: StagePlan
    seed: int = 0
    first_epoch: int = 0


@dataclass(frozen=True)
class Plan:
    """Plan of all stages of a run, for one model.

    Attributes:
        layout: Parameters and layer groups of the checkpoint's model.
        stages: Plans of the stages, in the order in which they run.
    """

    layout: Layout
    stages: tuple[StagePlan, ...]


def build_plan(
    layout: Layout,
    stages: Sequence[StageSpec],
    examples: int | None = None,
    processes: int = 1,
    layouts: Sequence[Layout] | None = None,
) -> Plan:
    """Return the plan of all stages.

    Args:
        layout: Parameters and layer groups of the model, as ``read_layout`` returns them.
        stages: Stages: ``Stage`` objects, or those of a recipe.
        examples: Number of training examples; None if it is not known, and then the numbers of steps are not either.
        processes: Number of processes that share each epoch.
        layouts: Layout of the model in each stage, if stages prune it; None uses ``layout`` for all.

    Returns:
        Plan with the layout and, for each stage, the names of the trained parameters, the parameter groups of the
        optimizer with their peak learning rates, and the numbers of steps.

    Raises:
        InputError: If a selector is malformed or matches nothing, a stage repeats the previous one or has no optimizer
            state to keep, or no stage trains the adapter. All problems are listed.

    Example:
        >>> from hf_finetune import Stage, build_plan, read_layout
        >>> stages = [Stage("head", epochs=2, lr=1e-2), Stage("last:1", epochs=1, lr=1e-3, layer_decay=0.5)]
        >>> plan = build_plan(read_layout(model), stages, examples=100)
        >>> [(stage.train, stage.trainable_size, stage.steps) for stage in plan.stages]
        [('head', 51, 8), ('last:1', 2547, 4)]
        >>> [(group.layers, group.lr) for group in plan.stages[1].groups if group.weight_decay]
        [('head', 0.001), ('bert.encoder.layer.1', 0.0005)]
    """
    problems: list[Problem] = []
    plans: list[StagePlan] = []
    previous_spec: StageSpec | None = None
    previous_plan: StagePlan | None = None
    stage_layouts = layouts if layouts is not None else [layout] * len(stages)
    for index, (spec, stage_layout) in enumerate(zip(stages, stage_layouts, strict=True)):
        if previous_spec is not None and _settings(spec) == _settings(previous_spec):
            repair = "Increase the epochs of the previous stage, or change this one."
            problems.append(
                Problem(f"stages[{index}]", "must differ from the previous stage", repr(spec.train), repair)
            )
        previous_spec = spec
        try:
            plan = _plan_stage(stage_layout, spec, f"stages[{index}]", examples, processes)
            if spec.carry_optimizer and previous_plan is not None:
                plan = _with_carried_optimizer(plan, previous_plan, f"stages[{index}]")
            plans.append(plan)
            previous_plan = plan
        except InputError as error:
            problems.extend(error.problems)
            previous_plan = None
    if not problems and layout.adapter and not any(_trains_adapter(layout, plan) for plan in plans):
        rule, repair = "must be trained by a stage", f"Add or change a stage: train: {layout.adapter}."
        problems.append(Problem("model.adapter", rule, repr(layout.adapter), repair))
    if problems:
        raise InputError(problems)
    return Plan(layout, tuple(plans))


def adapter_problems(recipe: Recipe, plan: Plan) -> list[Problem]:
    """Return a problem for each stage that trains parameters which are not saved with the adapter.

    Args:
        recipe: Recipe, whose ``model.adapter.save`` determines what is saved.
        plan: Plan of its stages.
    """
    adapter = recipe.model.adapter
    if adapter is None or adapter.save == "merged":
        return []
    saved = {
        parameter.name
        for parameter in plan.layout.parameters
        if parameter.is_adapter or parameter.group == plan.layout.head_group
    }
    rule = "must train only the adapter and the head when model.adapter.save is not merged"
    repair = f"Set model.adapter.save to merged, or train {adapter.type}."
    return [
        Problem(f"stages[{index}].train", rule, repr(stage_plan.train), repair)
        for index, stage_plan in enumerate(plan.stages)
        if not saved.issuperset(stage_plan.trainable)
    ]


def _trains_adapter(layout: Layout, plan: StagePlan) -> bool:
    chosen = set(plan.trainable)
    return any(parameter.is_adapter and parameter.name in chosen for parameter in layout.parameters)


def steps_per_epoch(examples: int, batch_size: int, accumulation: int = 1, processes: int = 1) -> int:
    """Return the number of optimizer steps in one epoch, as the Trainer counts; the last one may have fewer examples.

    Args:
        examples: Number of training examples.
        batch_size: Examples per process and forward pass.
        accumulation: Forward passes per optimizer step.
        processes: Number of processes that share the epoch.
    """
    batches = ceil(ceil(examples / batch_size) / processes)
    return max(ceil(batches / accumulation), 1)


def _plan_stage(
    layout: Layout, spec: StageSpec, place: str, examples: int | None, processes: int
) -> StagePlan:
    trainable = select(layout, spec.train, f"{place}.train")
    if solver_of(spec):
        check_solver(layout, f"{place}.fit", spec.fit)
    chosen = set(trainable)
    trained_norms = {parameter.name for parameter in layout.parameters if parameter.is_norm} & chosen
    per_epoch = None
    if examples is not None:
        per_epoch = steps_per_epoch(examples, spec.batch_size, spec.accumulation, processes)
    steps = 0 if solver_of(spec) else spec.max_steps
    if steps is None and per_epoch is not None and spec.epochs is not None:
        steps = ceil(spec.epochs * per_epoch)
    epochs = spec.epochs
    if epochs is None and steps and per_epoch:
        epochs = steps / per_epoch
    return StagePlan(
        name=spec.name or f"stage-{place}",
        train=spec.train if isinstance(spec.train, str) else ", ".join(spec.train),
        trainable=trainable,
        groups=plan_groups(
            layout,
            trainable,
            spec.lr or 0.0,
            spec.weight_decay,
            1.0 if spec.layer_decay is None else spec.layer_decay,
            spec.schedule,
            spec.regularize.l2_sp > 0,
        ),
        trainable_size=sum(parameter.size for parameter in layout.parameters if parameter.name in chosen),
        frozen_batch_norms=tuple(
            name
            for name, _ in layout.batch_norms
            if not any(parameter_name.startswith(f"{name}.") for parameter_name in trained_norms)
        ),
        epochs=epochs,
        steps=steps,
        warmup_steps=_warmup_steps(spec.warmup, steps),
        layout=layout,
    )


def _with_carried_optimizer(plan: StagePlan, before: StagePlan, place: str) -> StagePlan:
    chosen = set(before.trainable)
    carried = tuple(name for name in plan.trainable if name in chosen)
    if not carried:
        rule = "must not be set unless the stage trains parameters of the previous stage"
        value = f"{before.train!r} and then {plan.train!r}"
        raise InputError(Problem(f"{place}.carry_optimizer", rule, value))
    return replace(plan, carried=carried)


def _warmup_steps(warmup: int | float, steps: int | None) -> int | None:
    if isinstance(warmup, int):
        return warmup
    return None if steps is None else ceil(warmup * steps)


def _settings(spec: StageSpec) -> dict:
    return spec.model_dump(exclude={"name"})
