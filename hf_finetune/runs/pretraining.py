"""Pretraining on masked inputs of the target domain, before the first stage."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_finetune.distributed import resolve_workers, wait_for_all
from hf_finetune.files import atomic_file
from hf_finetune.methods.base import LossMethod
from hf_finetune.models.find_head import head_names
from hf_finetune.models.masked_models import backbone_weights, recompute_batch_norm_statistics
from hf_finetune.planning.domain_adaptation import PRETRAINING
from hf_finetune.runs.domain_adaptation import Pretraining
from hf_finetune.runs.folder import write_manifest
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.time_limit import PRETRAINING_INDEX, RunLimit
from hf_finetune.runs.weights import BACKBONE, pretraining_folder
from hf_finetune.tasks import Inputs
from hf_finetune.tasks.masked_examples import WrappedClassifier
from hf_finetune.tasks.seeded_augmentation import set_epoch
from hf_finetune.training.manifest import Manifest
from hf_finetune.training.stage import train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_limit import StageLimit
from hf_finetune.training.stage_result import StageResult

__all__ = ["continue_pretraining"]

logger = logging.getLogger(__name__)


def continue_pretraining(
    pretraining: Pretraining | None,
    prepared: PreparedRun,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
    limit: RunLimit | None = None,
) -> Manifest:
    """Train on masked inputs, or resume that training, and save the backbone for the classifier.

    Args:
        pretraining: Pretraining from ``prepare_pretraining``; None does nothing.
        prepared: Checked run.
        manifest: Manifest of the run.
        folder: Run directory.
        state: Process state.
        callbacks: Additional Trainer callbacks.
        limit: Time limit of the run; None for no limit.

    Returns:
        Manifest with the result of the pretraining.
    """
    if pretraining is None:
        return manifest
    for note in pretraining.notes:
        logger.info(note)
    stage_dir = pretraining_folder(folder)
    resumes = bool(manifest.pretraining)
    spent = manifest.pretraining.get("seconds", 0.0)
    manifest = _write_entry(manifest, folder, state, {"state": "running", "seconds": spent})
    verb = "resumes" if resumes else "starts"
    logger.info(
        f"Stage 0 ({PRETRAINING}) {verb}: {len(pretraining.masked.train)} inputs, "
        f"{pretraining.stage.plan.steps} steps, learning rate {pretraining.stage.spec.lr:.2g}."
    )
    start = perf_counter()
    stage_limit = None
    if limit is not None:
        stage_limit = limit.stage(PRETRAINING_INDEX, lambda model: [LossMethod(pretraining.masked.loss)])
        callbacks = [*callbacks, limit.clock]
    try:
        result = _train(pretraining, prepared, stage_dir, state, callbacks, resumes, stage_limit)
        if state.is_main_process:
            _save_backbone(pretraining, prepared, stage_dir)
        wait_for_all(state)
    finally:
        spent = round(spent + perf_counter() - start, 3)
        manifest = _write_entry(manifest, folder, state, {"state": "running", "seconds": spent})
        if limit is not None:
            limit.clock.save()
    if result.limit is not None:
        manifest = manifest.with_obstacle("the number of steps of the pretraining is chosen by a benchmark")
    entry = {
        "state": "done",
        "seconds": spent,
        "result": _metrics_entry(pretraining, result, prepared, spent),
    }
    return _write_entry(manifest, folder, state, entry)


def _train(
    pretraining: Pretraining,
    prepared: PreparedRun,
    stage_dir: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
    resumes: bool,
    limit: StageLimit | None,
) -> StageResult:
    recipe, masked = prepared.recipe, pretraining.masked
    workers = resolve_workers(recipe.data.workers, state)
    data = StageData("", masked.train, masked.collate, lengths=masked.lengths, workers=workers)
    return train_stage(
        pretraining.model,
        pretraining.stage,
        data,
        output=StageOutput(stage_dir, resumes, track=recipe.track),
        evaluation=StageEvaluation(recipe.evaluation.batch_size),
        execution=ExecutionSettings(recipe.speed, limit=limit),
        methods=[LossMethod(masked.loss)],
        callbacks=callbacks,
    )


def _save_backbone(pretraining: Pretraining, prepared: PreparedRun, stage_dir: Path) -> None:
    """Save the backbone for the classifier, with BatchNorm statistics recomputed on unmasked images."""
    model = pretraining.model
    if isinstance(model, WrappedClassifier):
        model.classifier.to(memory_format=torch.contiguous_format)
        if (unmasked := pretraining.masked.unmasked) is not None:
            recompute_batch_norm_statistics(
                model.classifier, _batches(unmasked, pretraining.stage.spec.batch_size)
            )
        head = set(head_names(model.classifier))
        names = [name for name in model.classifier.state_dict() if name not in head]
    else:
        layout = prepared.plan.layout
        names = [parameter.name for parameter in layout.parameters if parameter.group < layout.head_group]
    weights = backbone_weights(model, names)
    with atomic_file(stage_dir / BACKBONE) as temporary:
        save_file({name: value.clone() for name, value in weights.items()}, temporary)


def _batches(inputs: Inputs, size: int) -> Iterator[Any]:
    set_epoch(inputs.train, 0)
    for start in range(0, len(inputs.train), size):
        rows = range(start, min(start + size, len(inputs.train)))
        if len(rows) > 1 or start == 0:
            yield inputs.collate([inputs.train[row] for row in rows])


def _write_entry(manifest: Manifest, folder: Path, state: PartialState, entry: dict[str, Any]) -> Manifest:
    manifest = replace(manifest, pretraining=entry)
    write_manifest(manifest, folder, state)
    return manifest


def _metrics_entry(
    pretraining: Pretraining, result: StageResult, prepared: PreparedRun, seconds: float
) -> dict[str, Any]:
    return {
        "name": PRETRAINING,
        "examples": len(pretraining.masked.train),
        "epochs": result.epochs,
        "steps": result.steps,
        "train_seconds": seconds,
        "trainable_parameters": pretraining.stage.plan.trainable_size,
        "total_parameters": pretraining.stage.plan.layout.size,
        "speed": asdict(result.mode),
        **({"limit": result.limit} if result.limit else {}),
    }
