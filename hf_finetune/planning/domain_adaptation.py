"""Domain adaptation in a plan: the stages that align features with the target domain, checks, and notes."""

from collections.abc import Sequence

from hf_finetune.errors import Problem, suggestion
from hf_finetune.planning.stages import Plan, StagePlan
from hf_finetune.recipe.domain import Alignment, ContinuePretraining, DomainSpec
from hf_finetune.recipe.method_rules import DOMAIN_ALIGNMENT, conflicting_fields
from hf_finetune.recipe.schema import Recipe, StageSpec
from hf_finetune.tasks import TASKS

__all__ = ["PRETRAINING", "domain_notes", "domain_problems", "is_aligned"]

PRETRAINING = "pretraining"
"""Title of the pretraining stage before the first stage."""


def is_aligned(spec: DomainSpec | None, stage: StageSpec, planned: StagePlan) -> bool:
    """Return whether a stage aligns the features of the training domain and the target domain.

    Args:
        spec: ``domain_adaptation`` of the recipe; None without any.
        stage: Stage of the recipe.
        planned: Plan of the stage.
    """
    if not isinstance(spec, Alignment):
        return False
    return stage.name in spec.stages if spec.stages else _trains_below_the_head(planned)


def domain_problems(recipe: Recipe, plan: Plan) -> list[Problem]:
    """Return the problems of a domain alignment that can have no effect or conflicts with other fields of a stage.

    Args:
        recipe: Recipe of the run.
        plan: Plan of its stages.
    """
    spec = recipe.domain_adaptation
    if not isinstance(spec, Alignment):
        return []
    problems = []
    place, known = "domain_adaptation.stages", [stage.name for stage in plan.stages]
    below = [stage.name for stage in plan.stages if _trains_below_the_head(stage)]
    rule = "must be a stage that trains layers below the head"
    for index, name in enumerate(spec.stages):
        if name not in known:
            where = f"{place}[{index}]"
            problems.append(
                Problem(where, "must be the name of a stage", repr(name), suggestion(name, known))
            )
        elif name not in below:
            repair = "Domain alignment trains only layers below the head."
            problems.append(Problem(f"{place}[{index}]", rule, repr(name), repair))
    if not spec.stages and not below:
        repair = "Add a stage that trains them, for example train: last:1."
        problems.append(Problem("stages", f"must train layers below the head for {spec.method}", "", repair))
    for index, (stage, planned) in enumerate(zip(recipe.stages, plan.stages, strict=True)):
        if not is_aligned(spec, stage, planned):
            continue
        rule = f"must not be set in a stage that uses {spec.method}"
        repair = "List only the other stages in domain_adaptation.stages."
        problems += [
            Problem(f"stages[{index}].{field}", rule, "", repair)
            for field in conflicting_fields(DOMAIN_ALIGNMENT, stage)
        ]
    return problems


def domain_notes(recipe: Recipe, stages: Sequence[StagePlan], examples: int | None) -> list[str]:
    """Return sentences on the use of the target domain's inputs, one per stage or one on the pretraining.

    Args:
        recipe: Recipe in which a strategy has been expanded to stages.
        stages: Plans of the stages.
        examples: Number of inputs of the target domain; None if it is not known.
    """
    spec = recipe.domain_adaptation
    inputs = f"the {examples} inputs of" if examples is not None else "the inputs of"
    if isinstance(spec, ContinuePretraining):
        epochs = spec.epochs or 1
        duration = f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
        if spec.max_steps:
            duration = f"{spec.max_steps} steps"
        masked = "tokens" if TASKS[recipe.task_type].modality.has_tokens else "patches"
        and_source = " and of the training split" if spec.source else ""
        return [
            f"Stage 0, {PRETRAINING}, before stage 1: everything below the head learns to predict masked "
            f"{masked} in {inputs} {spec.target}{and_source}, for {duration} at lr {spec.lr:g}."
        ]
    if not isinstance(spec, Alignment):
        return []
    notes = []
    for stage, planned in zip(recipe.stages, stages, strict=True):
        if is_aligned(spec, stage, planned):
            notes.append(
                f"Stage {stage.name} aligns the head's input with {inputs} {spec.target}: {spec.method}, "
                f"weight {spec.weight:g}."
            )
        else:
            why = "it is not in domain_adaptation.stages" if spec.stages else "it trains only the head"
            notes.append(f"Stage {stage.name} has no domain alignment: {why}.")
    return notes


def _trains_below_the_head(planned: StagePlan) -> bool:
    head = planned.layout.backbone_groups
    groups = {parameter.name: parameter.group for parameter in planned.layout.parameters}
    return any(groups[name] < head for name in planned.trainable)
