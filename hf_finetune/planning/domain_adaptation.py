"""Domain adaptation in a plan: the stages that align features with the target domain, checks, and notes."""

from collections.abc import Sequence

from hf_finetune.errors import Problem, suggestion
from hf_finetune.planning.stages import Plan, StagePlan
from hf_finetune.recipe.domain import Alignment, ContinuePretraining, DomainSpec
from hf_finetune.recipe.method_rules import DOMAIN_ALIGNMENT, conflicting_fields
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.tasks import TASKS

__all__ = ["PRETRAINING", "domain_notes", "domain_problems", "is_aligned"]

PRETRAINING = "pretraining"
"""Title of the pretraining stage before the first stage."""


def is_aligned(domain: DomainSpec | None, spec: StageSpec, plan: StagePlan) -> bool:
    """Return whether a stage aligns the features of the training domain and the target domain.

    Args:
        domain: ``domain_adaptation`` of the recipe; None without any.
        spec: Stage of the recipe.
        plan: Plan of the stage.
    """
    if not isinstance(domain, Alignment):
        return False
    return spec.name in domain.stages if domain.stages else _trains_below_the_head(plan)


def domain_problems(recipe: Recipe, plan: Plan) -> list[Problem]:
    """Return the problems of a domain alignment that can have no effect or conflicts with other fields of a stage.

    Args:
        recipe: Recipe of the run.
        plan: Plan of its stages.
    """
    domain = recipe.domain_adaptation
    if not isinstance(domain, Alignment):
        return []
    problems = []
    place, known = "domain_adaptation.stages", [stage_plan.name for stage_plan in plan.stages]
    below = [stage_plan.name for stage_plan in plan.stages if _trains_below_the_head(stage_plan)]
    rule = "must be a stage that trains layers below the head"
    for index, name in enumerate(domain.stages):
        if name not in known:
            where = f"{place}[{index}]"
            problems.append(
                Problem(where, "must be the name of a stage", repr(name), suggestion(name, known))
            )
        elif name not in below:
            repair = "Domain alignment trains only layers below the head."
            problems.append(Problem(f"{place}[{index}]", rule, repr(name), repair))
    if not domain.stages and not below:
        repair = "Add a stage that trains them, for example train: last:1."
        problems.append(
            Problem("stages", f"must train layers below the head for {domain.method}", "", repair)
        )
    for index, (spec, stage_plan) in enumerate(zip(recipe.stages, plan.stages, strict=True)):
        if not is_aligned(domain, spec, stage_plan):
            continue
        rule = f"must not be set in a stage that uses {domain.method}"
        repair = "List only the other stages in domain_adaptation.stages."
        problems += [
            Problem(f"stages[{index}].{field}", rule, "", repair)
            for field in conflicting_fields(DOMAIN_ALIGNMENT, spec)
        ]
    return problems


def domain_notes(recipe: Recipe, stages: Sequence[StagePlan], examples: int | None) -> list[str]:
    """Return sentences on the use of the target domain's inputs, one per stage or one on the pretraining.

    Args:
        recipe: Recipe in which a strategy has been expanded to stages.
        stages: Plans of the stages.
        examples: Number of inputs of the target domain; None if it is not known.
    """
    domain = recipe.domain_adaptation
    inputs = f"the {examples} inputs of" if examples is not None else "the inputs of"
    if isinstance(domain, ContinuePretraining):
        epochs = domain.epochs or 1
        duration = f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
        if domain.max_steps:
            duration = f"{domain.max_steps} steps"
        masked = "tokens" if TASKS[recipe.task_type].modality.has_tokens else "patches"
        and_source = " and of the training split" if domain.source else ""
        return [
            f"Stage 0, {PRETRAINING}, before stage 1: everything below the head learns to predict masked "
            f"{masked} in {inputs} {domain.target}{and_source}, for {duration} at lr {domain.lr:g}."
        ]
    if not isinstance(domain, Alignment):
        return []
    notes = []
    for spec, plan in zip(recipe.stages, stages, strict=True):
        if is_aligned(domain, spec, plan):
            notes.append(
                f"Stage {spec.name} aligns the head's input with {inputs} {domain.target}: {domain.method}, "
                f"weight {domain.weight:g}."
            )
        else:
            why = "it is not in domain_adaptation.stages" if domain.stages else "it trains only the head"
            notes.append(f"Stage {spec.name} has no domain alignment: {why}.")
    return notes


def _trains_below_the_head(plan: StagePlan) -> bool:
    head = plan.layout.head_group
    groups = {parameter.name: parameter.group for parameter in plan.layout.parameters}
    return any(groups[name] < head for name in plan.trainable)
