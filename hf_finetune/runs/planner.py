"""Plan of a run with the examples, the loaded model and the estimated duration of each stage."""

from collections.abc import Iterator
from dataclasses import replace

from hf_finetune.distributed import start_processes
from hf_finetune.errors import format_seconds
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.estimates import estimate_seconds
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.prepared import PlanReport, with_input_notes
from hf_finetune.runs.start import load_start

__all__ = ["plan"]


@quiet_libraries()
def plan(recipe: Recipe, *, trust_remote_code: bool = False) -> PlanReport:
    """Plan the stages of a recipe, and check everything that ``run`` checks before it writes.

    Trains nothing and writes nothing. Data on the Hub is not checked if the Hub cannot be reached; the number of steps
    is unknown then.

    Args:
        recipe: Recipe to plan.
        trust_remote_code: Whether code of checkpoints and metrics may run; a recipe can only declare the need.

    Returns:
        Report with the ``plan`` of the stages as ``build_plan`` returns it, the number of training ``examples``, and
        ``notes`` for the user.

    Raises:
        InputError: If ``run`` would raise the same error.

    Example:
        >>> from hf_finetune import load_recipe, plan
        >>> report = plan(load_recipe("reviews.yaml"))
        >>> [(stage.name, stage.trainable_size, stage.steps) for stage in report.plan.stages]
        [('head', 34, 4), ('all', 5442, 80)]
    """
    report = plan_stages(recipe, trust_remote_code=trust_remote_code)
    if report.prepared is None:
        return report
    start = load_start(report.prepared, None, start_processes())
    seconds = estimate_seconds(start.built.model, report.plan.stages, report.recipe, start.inputs)
    input_notes = with_input_notes(report.prepared, start.inputs).data.notes[
        len(report.prepared.data.notes) :
    ]
    notes = (*report.notes, *input_notes, *start.built.notes, *_limit_notes(report.recipe, sum(seconds)))
    return replace(report, notes=notes, seconds=seconds)


def _limit_notes(recipe: Recipe, seconds: float) -> Iterator[str]:
    """Yield what a time limit means for stages that are estimated to take ``seconds``."""
    if recipe.limit is not None:
        yield (
            f"limit.time: {recipe.limit.time} for the whole run, with its evaluation. The stages would take up to "
            f"{format_seconds(seconds)} in all; when a stage starts, its steps are timed, and it is laid out for those "
            "that fit."
        )
