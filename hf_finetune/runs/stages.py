"""Train and evaluate the stages of a run, and record each one in the manifest."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import EvalPrediction, PreTrainedModel, TrainerCallback

from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.distributed import resolve_workers
from hf_finetune.evaluation.metrics import (
    compute_metrics,
    greater_is_better,
    groups_of,
    labels_of,
    probabilities,
    without_nan,
)
from hf_finetune.evaluation.registry import needs_all_scores
from hf_finetune.methods import Method, StageContext, build_methods
from hf_finetune.models.compression import compress
from hf_finetune.models.layer_sum import has_layer_sum
from hf_finetune.planning.stages import PlannedStage, StagePlan
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.folder import write_manifest
from hf_finetune.runs.pooling_choice import chosen_kind
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.start import RunStart
from hf_finetune.runs.tasks import score_tasks, task_labels
from hf_finetune.runs.time_limit import RunLimit, limit_cache
from hf_finetune.runs.weights import load_stage_weights
from hf_finetune.targets import TARGETS
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import (
    Scores,
    keep_top,
    needs_reduction,
    pack_top,
    predicted_classes,
    unpack_top,
)
from hf_finetune.tasks import Inputs
from hf_finetune.tasks.examples import SequenceOutputs
from hf_finetune.training.averaged_stage import train_averaged
from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.head_fit import FIT_PHRASES
from hf_finetune.training.manifest import Manifest
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_result import StageResult, result_lines
from hf_finetune.training.validation_loss import require_finite_logits

__all__ = ["train_stages"]

logger = logging.getLogger(__name__)


def train_stages(
    prepared: PreparedRun,
    start: RunStart,
    checkpoint_weights: Mapping[str, torch.Tensor],
    caches: Sequence[CacheSettings | None],
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
    limit: RunLimit | None = None,
) -> Manifest:
    """Train the stages of a run that are not done, each on the weights of the stage before.

    Args:
        prepared: Checked run.
        start: Pretrained model and the other inputs of the stages.
        checkpoint_weights: Weights of the checkpoint to which L2-SP pulls.
        caches: Cache settings of each stage; None where nothing is cached.
        manifest: Progress of the run.
        folder: Run directory.
        state: State of the process; all processes call this function.
        callbacks: Further callbacks for the Trainer of each stage.
        limit: Time limit of the run; None for no limit.

    Returns:
        The manifest with every stage done.
    """
    recipe = prepared.recipe
    model = start.built.model
    for index, spec in enumerate(recipe.stages):
        if manifest.stages[index].state == "done":
            logger.info("Stage %s is already finished.", spec.name)
            continue
        if index > 0 or prepared.pretrains:
            model = load_stage_weights(prepared, folder, index)
        model = compress(model, spec)
        context = _context(model, index, prepared, checkpoint_weights, folder)
        manifest = _train_stage(
            context,
            index,
            prepared,
            start,
            caches[index],
            manifest=manifest,
            folder=folder,
            state=state,
            callbacks=callbacks,
            limit=limit,
        )
    return manifest


def _context(
    model: PreTrainedModel,
    index: int,
    prepared: PreparedRun,
    checkpoint_weights: Mapping[str, torch.Tensor],
    folder: Path,
) -> StageContext:
    """Return stage, model and labels, from which the methods of the stage are built."""
    recipe, spec = prepared.recipe, prepared.recipe.stages[index]
    best = None
    if spec.best is not None and prepared.data.validation is not None:
        best = spec.best.metric or prepared.metric_names[0]
    return StageContext(
        PlannedStage(spec, prepared.plan.stages[index], (recipe.seed + index) % 2**32),
        model,
        task_labels(prepared),
        earlier=recipe.stages[:index],
        previous=stage_folder(folder, index - 1, recipe.stages[index - 1].name) if index else folder,
        pretrained=checkpoint_weights,
        best_metric=best,
        greater_is_better=best is not None and _greater_is_better(best),
    )


def _train_stage(
    context: StageContext,
    index: int,
    prepared: PreparedRun,
    start: RunStart,
    cache: CacheSettings | None,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
    limit: RunLimit | None,
) -> Manifest:
    """Train one stage, or resume it, and record its progress in the manifest."""
    recipe, spec, plan = prepared.recipe, context.stage.spec, context.stage.plan
    resumes = manifest.stages[index].state == "running"
    manifest = manifest.with_stage(index, state="running")
    write_manifest(manifest, folder, state)
    logger.info(_start_message(index, spec, plan, prepared, resumes))
    next_stage = recipe.stages[index + 1] if index + 1 < len(recipe.stages) else None
    keep_optimizer = next_stage is not None and next_stage.carry_optimizer
    start_time = perf_counter()

    def build_anew(model: PreTrainedModel) -> list[Method]:
        return build_methods(
            replace(context, model=model), [copy.copy(method) for method in start.methods[index]]
        )

    def build(model: PreTrainedModel) -> list[Method]:
        return build_anew(model) if spec.seeds else build_methods(context, start.methods[index])

    stage_limit = None
    if limit is not None:
        stage_limit, callbacks = limit.stage(index, build_anew), [*callbacks, limit.clock]
    try:
        result = train_averaged(
            context.model,
            context.stage,
            _stage_data(prepared, start.inputs, state),
            output=StageOutput(stage_folder(folder, index, spec.name), resumes, keep_optimizer, recipe.track),
            evaluation=_evaluation(prepared, context, start.inputs.sequences),
            execution=ExecutionSettings(
                recipe.speed, limit_cache(cache, stage_limit, state), limit=stage_limit
            ),
            build_methods=build,
            callbacks=callbacks,
        )
    finally:
        spent = manifest.stages[index].seconds + perf_counter() - start_time
        manifest = manifest.with_stage(index, seconds=round(spent, 3))
        write_manifest(manifest, folder, state)
        if limit is not None:
            limit.clock.save()
    manifest = manifest.with_stage(index, state="done", result=_metrics_entry(plan, result, spent, prepared))
    if result.limit is not None:
        manifest = manifest.with_obstacle(
            f"the number of steps of stage {spec.name} is chosen by a benchmark"
        )
    write_manifest(manifest, folder, state)
    best = context.best_metric
    leading = best or prepared.metric_names[0]
    greater = _greater_is_better(leading)
    for line in result_lines(spec.name, result, best, leading=leading, greater_is_better=greater):
        logger.info(line)
    return manifest


def _stage_data(prepared: PreparedRun, inputs: Inputs, state: PartialState) -> StageData:
    return StageData(
        prepared.data.target,
        inputs.train,
        inputs.collate,
        inputs.validation,
        inputs.lengths,
        resolve_workers(prepared.recipe.data.workers, state),
        prepared.data.train_groups,
        inputs.sequences,
    )


def _evaluation(
    prepared: PreparedRun, context: StageContext, sequences: SequenceOutputs | None
) -> StageEvaluation:
    if sequences is not None:
        compute = _sequence_metrics(prepared, sequences)
    else:
        compute = score_tasks(prepared) if prepared.is_joint else _trainer_metrics(prepared)
    return StageEvaluation(
        prepared.recipe.evaluation.batch_size,
        compute,
        context.best_metric,
        context.greater_is_better,
        partial(_keep_top, prepared.data.target) if _keeps_top_scores(prepared) else None,
    )


def _trainer_metrics(prepared: PreparedRun) -> Callable[[EvalPrediction], dict[str, float]]:
    target, settings, names = prepared.data.target, prepared.metric_settings, _stage_metrics(prepared)
    rule = prepared.decision_rule
    keeps_top, classes = _keeps_top_scores(prepared), len(prepared.data.label_names)
    groups = groups_of(prepared.data.validation)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = require_finite_logits(prediction)
        scores: Scores = unpack_top(logits, classes) if keeps_top else probabilities(logits, target)
        labels = np.asarray(prediction.label_ids)
        return compute_metrics(names, ScoredExamples(labels, scores, target, rule, groups, settings))

    return compute


def _sequence_metrics(
    prepared: PreparedRun, sequences: SequenceOutputs
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the function that computes the metrics of written sequences; see ``_trainer_metrics``."""
    target, names = prepared.data.target, _stage_metrics(prepared)
    kind, groups, validation = TARGETS[target], groups_of(prepared.data.validation), prepared.data.validation

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        scores = kind.stored_scores(sequences.texts(np.asarray(prediction.predictions)))
        labels = labels_of(validation, target, 1) if validation is not None else scores
        if len(labels) != len(scores):  # a sample of the split
            labels = kind.label_array(sequences.label_texts(np.asarray(prediction.label_ids)), 1)
        return compute_metrics(names, ScoredExamples(labels, scores, target, groups=groups))

    return compute


def _stage_metrics(prepared: PreparedRun) -> list[str]:
    """Return the metrics that stages compute besides the loss."""
    best = [spec.best.metric for spec in prepared.recipe.stages if spec.best and spec.best.metric]
    return [name for name in dict.fromkeys([*prepared.metric_names, *best]) if name != "loss"]


def _keeps_top_scores(prepared: PreparedRun) -> bool:
    """Return whether the stages store only the highest probabilities of each validation example, not all logits."""
    data = prepared.data
    return (
        not prepared.is_joint
        and TARGETS[data.target].is_exclusive
        and data.validation is not None
        and needs_reduction(len(data.validation), len(data.label_names))
        and not any(needs_all_scores(name, data.target) for name in _stage_metrics(prepared))
    )


def _keep_top(target: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Reduce single-label logits [batch, classes] to the packed scores [batch, 2 top + 3] that the metrics use."""
    scores, indices = probabilities(logits.float().cpu().numpy(), target), labels.cpu().numpy()
    top_scores = keep_top(scores, indices, predicted_classes(scores))
    return torch.as_tensor(pack_top(top_scores), device=logits.device)


def _start_message(index: int, spec: StageSpec, plan: StagePlan, prepared: PreparedRun, resumes: bool) -> str:
    size = f"{plan.trainable_size:,} of {plan.layout.size:,} parameters"
    number = f"Stage {index + 1} of {len(prepared.recipe.stages)} ({spec.name})"
    if method := solver_of(spec):
        return f"{number} {'restarts' if resumes else 'starts'}: fitting {size} {FIT_PHRASES[method]}."
    return f"{number} {'resumes' if resumes else 'starts'}: training {size}, {_learning_rates(plan)}."


def _learning_rates(plan: StagePlan) -> str:
    """Return the learning rates with their layers; of more than three, the first and the last one."""
    rates = list(dict.fromkeys(f"{group.lr:.2g} ({group.layers})" for group in plan.groups))
    if len(rates) > 3:
        return f"learning rates from {rates[0]} to {rates[-1]}"
    return f"learning rate{'s' if len(rates) > 1 else ''} {', '.join(rates)}"


def _pooling_entry(prepared: PreparedRun) -> dict[str, Any]:
    """Return the pooling or layer of a fitted head, and the loss of each compared one; empty if none was compared."""
    if prepared.pooling is None:
        return {}
    kind, losses = chosen_kind(prepared), dict(prepared.pooling.losses)
    if has_layer_sum(prepared.config):
        return {"layer": kind, "layers": losses}
    return {"pool": kind, "pooling": losses}


def _greater_is_better(metric: str) -> bool:
    """Return whether higher values of a metric are better; with several tasks, its name is ``TASK/METRIC``."""
    return metric != "loss" and greater_is_better(metric.rpartition("/")[2])


def _metrics_entry(
    plan: StagePlan, result: StageResult, seconds: float, prepared: PreparedRun
) -> dict[str, Any]:
    return {
        "name": plan.name,
        "epochs": result.epochs,
        "steps": result.steps,
        "best_step": result.best_step,
        "train_seconds": round(seconds, 3),
        "trainable_parameters": plan.trainable_size,
        "total_parameters": plan.layout.size,
        "speed": asdict(result.mode),
        "prefix_cache": asdict(result.cache),
        **({} if result.averaged is None else {"averaged": result.averaged}),
        "validation": without_nan(result.validation),
        "start": without_nan(result.start),
        **({"trained": without_nan(result.trained)} if result.trained else {}),
        **({"fit": {**result.fit, **_pooling_entry(prepared)}} if result.fit else {}),
        **({"limit": result.limit} if result.limit else {}),
        **({"seeds": [_seed_entry(each) for each in result.seeds]} if result.seeds else {}),
    }


def _seed_entry(training: Mapping[str, Any]) -> dict[str, Any]:
    return {**training, "validation": without_nan(training["validation"])}
