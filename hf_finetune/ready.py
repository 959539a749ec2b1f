"""Check everything that a run needs, before anything is written: recipe, data and checkpoint together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_finetune.data.prepare import LabelledData
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.metrics import default_metrics, metric_problem
from hf_finetune.models.build import BuiltModel, build_model, build_skeleton, load_processor, read_config
from hf_finetune.models.layout import read_layout
from hf_finetune.plan.stages import Plan, build_plan
from hf_finetune.processes import first_process_first, start_processes
from hf_finetune.recipe import Recipe
from hf_finetune.staging.trainer import check_optimizer
from hf_finetune.tasks import TASKS, Inputs, Task, load_data

__all__ = ["PlanReport", "Ready", "get_ready", "load_pretrained", "plan", "try_forward"]


@dataclass(frozen=True)
class PlanReport:
    """A plan, and what it could not know.

    Attributes:
        plan: What each stage trains.
        notes: Sentences for the person.
        examples: Number of training examples; None if the data is not at hand.
    """

    plan: Plan
    notes: tuple[str, ...]
    examples: int | None


@dataclass(frozen=True)
class Ready:
    """Everything a run needs, checked; nothing written yet."""

    recipe: Recipe
    task: Task
    data: LabelledData
    config: PreTrainedConfig
    processor: Any
    plan: Plan
    headline: tuple[str, ...]


def plan(recipe: Recipe) -> PlanReport:
    """Say what each stage of a recipe would train. Trains nothing, loads no weights, writes nothing.

    Without the data the number of labels and steps is not known; without the checkpoint's config there is no plan.

    Raises:
        InputError: If the recipe does not fit the checkpoint or the data.
    """
    task = TASKS[recipe.task]
    notes: list[str] = []
    data: LabelledData | None = None
    try:
        data = load_data(recipe, task.modality)
        notes += data.notes
    except InputError as error:
        if Path(recipe.data.path).exists() or not all(
            problem.place == "data.path" for problem in error.problems
        ):
            raise
        notes.append(
            f"The data {recipe.data.path!r} is not at hand: its labels are counted as 2, its steps are unknown."
        )
    names, target = (data.label_names, data.target) if data else (("0", "1"), "single_label")
    config = _read_config(recipe, names, target)
    layout = read_layout(build_skeleton(config, task.modality))
    examples = len(data.train) if data else None
    return PlanReport(
        build_plan(layout, recipe.stages, examples, start_processes().num_processes), tuple(notes), examples
    )


def get_ready(recipe: Recipe, state: PartialState) -> Ready:
    """Check everything before anything is written. Problems of data, checkpoint and recipe are told together."""
    task = TASKS[recipe.task]
    problems: list[Problem] = []
    data, processor, config, layout, made = None, None, None, None, None
    with _collected(problems), first_process_first(state):
        data = load_data(recipe, task.modality)
    names, target = (data.label_names, data.target) if data else (("0", "1"), "single_label")
    with _collected(problems):
        config = _read_config(recipe, names, target)
        layout = read_layout(build_skeleton(config, task.modality))
        processor = load_processor(
            recipe.model.path,
            task.modality,
            revision=recipe.model.revision,
            trust_remote_code=recipe.model.trust_remote_code,
        )
        task.configure(processor, config, recipe.data)
    for index, stage in enumerate(recipe.stages):
        problems += check_optimizer(stage.optimizer.name, stage.optimizer.args, f"stages[{index}].optimizer")
    headline = recipe.metrics or default_metrics(target)
    if data is not None:
        problems += _recipe_problems(recipe, data, headline)
    if layout is not None:
        with _collected(problems):
            made = build_plan(layout, recipe.stages, len(data.train) if data else None, state.num_processes)
    if problems or data is None or config is None or made is None:
        raise InputError(problems)
    return Ready(recipe, task, data, config, processor, made, tuple(headline))


@contextmanager
def _collected(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)


def load_pretrained(ready: Ready) -> BuiltModel:
    """Load the checkpoint's weights under a new head; the same weights at every call."""
    spec = ready.recipe.model
    # While the TrainingArguments of an earlier stage live, transformers 5.23 would divide the model as it loads it
    # for DeepSpeed's ZeRO-3, and leave empty tensors behind. The stage's own engine divides it.
    unset_hf_deepspeed_config()
    return build_model(
        spec.path,
        ready.config,
        modality=ready.task.modality,
        revision=spec.revision,
        allow_missing=spec.allow_missing,
        trust_remote_code=spec.trust_remote_code,
        seed=ready.recipe.seed,
    )


def try_forward(model: PreTrainedModel, ready: Ready, inputs: Inputs) -> None:
    """Try one example, so that an input of the wrong size is told before anything trains.

    Raises:
        InputError: If the model cannot take what inference or training will give it.
    """
    data = ready.recipe.data
    example = inputs.collate([inputs.train[0]])
    example.pop("labels", None)
    trained_on = "train_image_size" if data.train_image_size else "image_size"
    for field, batch in (("image_size", ready.task.dummy(ready.processor)), (trained_on, example)):
        try:
            with torch.no_grad():
                model.eval()(**batch)
        except (RuntimeError, ValueError, AssertionError) as error:
            size = getattr(data, field)
            path = repr(ready.recipe.model.path)
            place, value = (f"data.{field}", str(size)) if size else ("model.path", path)
            problem = Problem(place, "must suit the checkpoint", value, _complaint(error))
            raise InputError(problem) from error


def _complaint(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "The model cannot compute with it." if "INTERNAL ASSERT" in first else f"The model says: {first}"


def _read_config(recipe: Recipe, label_names: Sequence[str], target: str) -> PreTrainedConfig:
    spec = recipe.model
    return read_config(
        spec.path,
        label_names,
        target,
        revision=spec.revision,
        dropout=spec.dropout,
        trust_remote_code=spec.trust_remote_code,
    )


def _recipe_problems(recipe: Recipe, data: LabelledData, headline: Sequence[str]) -> list[Problem]:
    """Find what only the data can tell of a recipe: metrics, optimisers, and what needs a validation split."""
    problems: list[Problem] = []
    classes = len(data.label_names)
    for index, name in enumerate(headline):
        if problem := metric_problem(name, data.target, f"metrics[{index}]", classes):
            problems.append(problem)
    for index, stage in enumerate(recipe.stages):
        place = f"stages[{index}]"
        metric = stage.best.metric if stage.best else None
        if metric not in (None, "loss"):
            problem = metric_problem(str(metric), data.target, f"{place}.best.metric", classes)
            problems += [problem] if problem else []
        if data.validation is None and (metric is not None or stage.early_stopping is not None):
            field = "early_stopping" if stage.early_stopping is not None else "best.metric"
            repair = "Set data.split.validation above 0, or leave it out."
            problems.append(
                Problem(f"{place}.{field}", "must have a validation split to look at", "", repair)
            )
        if stage.label_smoothing and data.target != "single_label":
            rule = "must be 0 unless each example has one label"
            problems.append(Problem(f"{place}.label_smoothing", rule, str(stage.label_smoothing)))
    return problems
