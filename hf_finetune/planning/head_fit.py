"""Decide whether the head of a model can be fitted by a solver, without gradient steps."""

from collections.abc import Sequence

from hf_finetune.errors import InputError, Problem
from hf_finetune.planning.layers import Layout
from hf_finetune.recipe.head_fit import AUTO, BALANCES, FIELDS_WITHOUT_STEPS, GRADIENT
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets import TARGETS

__all__ = ["MAX_WORK", "check_solver", "linear_head", "resolve_head_fits"]

MAX_WORK = 10**10
"""Maximum examples x features x classes for which ``fit: auto`` uses a solver; more would take many minutes."""


def linear_head(layout: Layout) -> str:
    """Return the name of the head's only layer if it has a weight and a bias and nothing else; otherwise empty.

    Args:
        layout: Parameters and layer groups of the model.
    """
    names = {parameter.name for parameter in layout.parameters if parameter.group == layout.head_group}
    layer = next(iter(names), "").rpartition(".")[0]
    return layer if names == {f"{layer}.weight", f"{layer}.bias"} else ""


def check_solver(layout: Layout, place: str, how: str) -> None:
    """Check that a solver can fit the head of a model.

    Args:
        layout: Parameters and layer groups of the model.
        place: Location of ``fit`` in the recipe, for the error.
        how: Value of ``fit``: the requested solver.

    Raises:
        InputError: If the head is not one layer with weight and bias.
    """
    if linear_head(layout):
        return
    head = [parameter.name for parameter in layout.parameters if parameter.group == layout.head_group]
    rule = f"must be gradient unless the head is one linear layer with a bias; this one has {', '.join(head)}"
    raise InputError(Problem(place, rule, repr(how)))


def resolve_head_fits(
    stages: Sequence[StageSpec],
    layout: Layout,
    target: str,
    examples: int | None = None,
    is_single_task: bool = True,
) -> tuple[tuple[StageSpec, ...], tuple[str, ...]]:
    """Decide for each stage with ``fit: auto`` whether a solver fits its head or gradient steps train it.

    If a solver fits the head of a stage, the settings that only affect gradient steps are reset to their defaults.

    Args:
        stages: Stages of a recipe.
        layout: Parameters and layer groups of the model.
        target: Label type, which determines the solver.
        examples: Number of training examples; None if it is not known.
        is_single_task: Whether the model has a single task.

    Returns:
        The stages, and a sentence for each decision.
    """
    resolved, notes = [], []
    for index, spec in enumerate(stages):
        if spec.fit != AUTO:
            resolved.append(spec)
            continue
        reason = _reason_for_gradient(spec, layout, target, examples, is_single_task)
        if reason:
            resolved.append(spec.model_copy(update={"fit": GRADIENT}))
            notes.append(f"stages[{index}].fit: auto is gradient, because {reason}.")
            continue
        fields = {
            name: getattr(spec, name) for name in FIELDS_WITHOUT_STEPS if name in StageSpec.model_fields
        }
        solver = TARGETS[target].linear_solver
        resolved.append(StageSpec(**{**fields, "fit": solver}))
        notes.append(f"stages[{index}].fit: auto is {solver}, because the head is one linear layer.")
    return tuple(resolved), tuple(notes)


def _reason_for_gradient(
    spec: StageSpec, layout: Layout, target: str, examples: int | None, is_single_task: bool
) -> str:
    """Return the reason why no solver fits the head of a stage; empty if one does."""
    head = [parameter for parameter in layout.parameters if parameter.group == layout.head_group]
    if not is_single_task:
        return "solvers fit only the head of a single task"
    if TARGETS[target].linear_solver is None:
        return f"no solver supports the loss of {target} labels"
    if not linear_head(layout):
        return f"the head is more than one linear layer ({', '.join(parameter.name for parameter in head)})"
    if spec.balance.method not in BALANCES:
        return f"balance {spec.balance.method} needs optimizer steps"
    if spec.teacher is not None:
        return "the stage has a teacher"
    if (examples or 0) * max(parameter.size for parameter in head) > MAX_WORK:
        return f"{examples:,} examples and {head[0].size:,} weights take too long to fit"
    return ""
