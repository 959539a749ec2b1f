"""Estimates of a stage: how often its frozen layers are computed, and how long it takes."""

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_finetune.cache.estimate import CacheEstimate, estimate_cache_size
from hf_finetune.cache.views import reason_not_to_cache
from hf_finetune.errors import InputError
from hf_finetune.methods import cache_blocker
from hf_finetune.models.build import build_skeleton, load_processor
from hf_finetune.models.compression import apply_pruned_shapes
from hf_finetune.models.layer_sum import has_layer_sum
from hf_finetune.performance.execution_modes import ExecutionMode, benchmark_steps
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.head_fit import selects_pooling_by_cv, solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.caching import cached_views
from hf_finetune.runs.checkpoint import add_recipe_adapter, build_joint_skeleton
from hf_finetune.runs.prepared import PlanReport
from hf_finetune.tasks import TASKS, Inputs
from hf_finetune.training.freezing import freeze_all_but, release_eval_mode

__all__ = ["describe_prefix_caches", "estimate_seconds", "time_examples", "time_inference", "typical_rows"]

TIMED_EXAMPLES, TIMED_STEPS = 8, 2
"""Number of examples in a step, and number of steps, that are timed to estimate the duration of a stage."""

POOLING_NOTE = (
    "token pooling: chosen by cross-validation when the run starts. A pooling other than the architecture's own "
    "requires trust_remote_code=True in plain transformers; model.head: {pool: own} keeps the architecture's own"
)

LAYER_NOTE = (
    "layer that the head reads: chosen by cross-validation when the run starts; model.head: {layers: last} keeps the "
    "last one"
)
ModelAndExample = tuple[PreTrainedModel, dict[str, torch.Tensor]]


def describe_prefix_caches(report: PlanReport, strategy: str | None = None) -> list[str]:
    """Return a sentence for each stage: how often its frozen layers are computed, and the size of their cache.

    Args:
        report: Plan.
        strategy: Name of the strategy that the stages come from; None if the recipe lists them.
    """
    model_and_example = cache(lambda: _model_and_example(report))
    stages = enumerate(zip(report.recipe.stages, report.plan.stages, strict=True))
    sentences = [
        _describe_prefix_cache(report, index, spec, plan, model_and_example) for index, (spec, plan) in stages
    ]
    note = POOLING_NOTE if TASKS[report.recipe.task_type].modality.has_tokens else ""
    if any(has_layer_sum(config) for config in report.configs.values()):
        note = LAYER_NOTE
    if note and selects_pooling_by_cv(report.recipe.model, report.recipe.stages, strategy):
        sentences[0] = "\n".join([*filter(None, sentences[:1]), note])
    return sentences


def _describe_prefix_cache(
    report: PlanReport,
    index: int,
    spec: StageSpec,
    plan: StagePlan,
    model_and_example: Callable[[], ModelAndExample],
) -> str:
    recipe, cache_spec = report.recipe, report.recipe.speed.prefix_cache
    if plan.trainable_size == plan.layout.size:
        return ""
    if cache_spec is None:
        return "prefix cache: not used (turned off in the recipe)"
    views, epochs = cached_views(recipe, cache_spec, spec, plan)
    if reason := cache_blocker(recipe, spec, plan) or reason_not_to_cache(views, epochs):
        return f"prefix cache: not used ({reason})"
    try:
        skeleton, example = model_and_example()
    except InputError:
        return ""  # without a processor no example can be built, so nothing can be estimated
    estimate = estimate_cache_size(
        apply_pruned_shapes(skeleton, recipe.stages[: index + 1]), plan.trainable, example
    )
    if estimate.reason:
        return f"prefix cache: not used ({estimate.reason})"
    return _format_estimate(estimate, views, report.examples)


def _model_and_example(report: PlanReport) -> ModelAndExample:
    """Return the model without weights, and the inputs of one example."""
    recipe, model = report.recipe, report.recipe.model
    modality, configs = TASKS[recipe.task_type].modality, copy.deepcopy(report.configs)
    processor = load_processor(
        model.path, modality, revision=model.revision, trust_remote_code=report.trust_remote_code
    )
    for config in configs.values():
        built = partial(build_skeleton, config, TASKS[recipe.task_type])
        modality.configure(processor, config, recipe.data, built)
    skeleton = build_joint_skeleton(recipe, configs)
    add_recipe_adapter(skeleton, recipe)
    return skeleton, modality.synthetic_batch(processor)


def _format_estimate(estimate: CacheEstimate, views: int, examples: int | None) -> str:
    size = " and ".join(
        f"{number:,} bytes per {unit}"
        for number, unit in ((estimate.example_bytes, "example"), (estimate.token_bytes, "token"))
        if number
    )
    if examples is not None and not estimate.token_bytes:
        size = f"{views * examples * estimate.example_bytes:,} bytes"
    shown_views = "" if views == 1 else f"{views} views of each example, "
    return f"prefix cache: outputs of {estimate.place}, {shown_views}{size}; used if it saves time"


def estimate_seconds(
    model: PreTrainedModel, stages: Sequence[StagePlan], recipe: Recipe, inputs: Inputs
) -> tuple[float, ...]:
    """Return an upper bound of each stage's training time on this machine, in seconds.

    A few steps are timed on a few examples, in fp32 and without any cache; evaluation is not included. The weights of
    the model do not change, but its ``requires_grad`` flags do.

    Args:
        model: Pretrained model with its new head.
        stages: Plan of each stage.
        recipe: Recipe with its stages expanded.
        inputs: Examples as model inputs.
    """
    seconds = time_examples(model, stages, recipe, inputs)
    counts = (_examples(spec, plan, inputs) for spec, plan in zip(recipe.stages, stages, strict=True))
    return tuple(count * example for count, example in zip(counts, seconds, strict=True))


def time_examples(
    model: PreTrainedModel, stages: Sequence[StagePlan], recipe: Recipe, inputs: Inputs
) -> tuple[float, ...]:
    """Return the seconds in which each stage trains on one example, measured as for ``estimate_seconds``.

    Args:
        model: Model on the device of the training.
        stages: Plan of each stage.
        recipe: Recipe with its stages expanded.
        inputs: Examples as model inputs.
    """
    batch, preparation = _timed_batch(model, inputs)
    seconds = []
    for spec, plan in zip(recipe.stages, stages, strict=True):
        freeze_all_but(model, plan.trainable)
        seconds.append(preparation + _time_example(model, batch, plan.trainable, bool(solver_of(spec))))
        release_eval_mode(model)
    return tuple(seconds)


def time_inference(model: PreTrainedModel, inputs: Inputs) -> float:
    """Return the seconds in which a model prepares and predicts one example.

    Args:
        model: Model on the device of the evaluation.
        inputs: Examples as model inputs.
    """
    batch, preparation = _timed_batch(model, inputs)
    return preparation + _time_example(model, batch, (), forward_only=True)


def _timed_batch(model: PreTrainedModel, inputs: Inputs) -> tuple[dict[str, torch.Tensor], float]:
    """Return a batch on the device of the model, and the seconds in which each of its examples was prepared."""
    count = min(TIMED_EXAMPLES, len(inputs.train))
    start = perf_counter()
    batch = inputs.collate([inputs.train[row] for row in typical_rows(inputs, count)])
    preparation = (perf_counter() - start) / count
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}, preparation


def typical_rows(inputs: Inputs, count: int) -> list[int]:
    """Return rows of typical training examples: texts of about the mean length, or rows from everywhere in the data.

    The mean is the quadratic one, because attention compares all pairs of tokens.

    Args:
        inputs: Examples as model inputs.
        count: Number of rows.
    """
    examples = len(inputs.train)
    if inputs.lengths is None:
        return [number * examples // count for number in range(count)]
    lengths = np.asarray(inputs.lengths)
    typical = np.sqrt(np.square(lengths, dtype=float).mean())
    return np.argsort(np.abs(lengths - typical), kind="stable")[:count].tolist()


def _time_example(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], trainable: Sequence[str], forward_only: bool
) -> float:
    """Return the seconds of a step, divided by the number of its examples."""
    with benchmark_steps(model, batch, _surrogate_loss, trainable, forward_only=forward_only) as bench:
        bench.step(ExecutionMode())  # the first use of each kernel is slower
        step = min(bench.step(ExecutionMode()) for _ in range(TIMED_STEPS))
    return step / len(batch["labels"])


def _examples(spec: StageSpec, plan: StagePlan, inputs: Inputs) -> float:
    """Return the number of examples that a stage trains on, each counted as often as it is used."""
    examples = (plan.epochs or 0.0) * len(inputs.train)
    if plan.steps is not None and not solver_of(spec):
        examples = float(plan.steps * spec.batch_size * spec.accumulation)
    return (spec.seeds or 1) * (examples or len(inputs.train))


def _surrogate_loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return a loss of the logits whose gradient costs about the same as that of any other loss."""
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    return logits.float().square().mean()
