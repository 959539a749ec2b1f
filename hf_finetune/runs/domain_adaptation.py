"""Domain adaptation in a run: pretraining on masked inputs before the first stage, or alignment in the stages."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from safetensors.torch import save_file
from transformers import PreTrainedModel, TrainerCallback

from hf_finetune.distributed import count_workers, wait_for_all
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import replacing
from hf_finetune.methods import Method
from hf_finetune.methods.base import LossMethod
from hf_finetune.methods.domain_alignment import DomainAlignment
from hf_finetune.models.find_head import head_names
from hf_finetune.models.layout import read_layout
from hf_finetune.models.masked_models import (
    backbone_weights,
    build_masked_model,
    recount_statistics,
)
from hf_finetune.models.vocabulary import embedding_rows
from hf_finetune.planning.domain_adaptation import PRETRAINING
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.stages import PlannedStage, StagePlan, steps_per_epoch
from hf_finetune.recipe import DomainSpec, StageSpec
from hf_finetune.runs.folder import write_manifest
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.weights import BACKBONE, pretraining_folder
from hf_finetune.tasks import Inputs
from hf_finetune.tasks.examples import MaskedInputs
from hf_finetune.tasks.masked_examples import WrappedClassifier
from hf_finetune.tasks.seeded_augmentation import set_epoch
from hf_finetune.training.manifest import Manifest
from hf_finetune.training.stage import train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_result import StageResult

__all__ = ["Pretraining", "load_alignments", "prepare_pretraining", "pretrain"]

logger = logging.getLogger(__name__)

WARMUP = 0.06
"""Share of the optimizer steps used for warmup. Source: Gururangan et al. 2020, Don't Stop Pretraining, table 13."""


@dataclass(frozen=True)
class Pretraining:
    """Model, settings and data of the pretraining before the first stage.

    Attributes:
        model: Model that predicts masked tokens or pixels.
        stage: Settings, in the form of a stage.
        planned: Plan: trained parameters, steps and learning rates.
        masked: Masked examples.
        notes: Notes for the user.
    """

    model: PreTrainedModel
    stage: StageSpec
    planned: StagePlan
    masked: MaskedInputs
    notes: tuple[str, ...]


def load_alignments(prepared: PreparedRun) -> dict[int, Method]:
    """Return the domain alignment of each stage that has one, by the index of the stage.

    The inputs of the target domain are preprocessed like training examples.
    """
    spec, target = prepared.recipe.domain_adaptation, prepared.target
    if spec is None or target is None or spec.method == "continue_pretraining":
        return {}
    examples = _prepared(prepared, target.dataset).train
    stages = enumerate(zip(prepared.recipe.stages, prepared.plan.stages, strict=True))
    return {
        index: DomainAlignment(examples, spec.method, spec.weight)
        for index, (stage, planned) in stages
        if DomainAlignment.is_used(prepared.recipe, stage, planned)
    }


def prepare_pretraining(
    prepared: PreparedRun, classifier: PreTrainedModel, before: Manifest | None, state: PartialState
) -> Pretraining | None:
    """Build the pretraining of a run.

    Args:
        prepared: Checked run.
        classifier: Checkpoint with its new head; for images its weights are trained in place by ``pretrain``.
        before: Manifest of the run if it is resumed, else None.
        state: Process state.

    Returns:
        The pretraining; None if the recipe has none, or if it is done.

    Raises:
        InputError: If the checkpoint cannot be pretrained on masked inputs, or if an unfinished pretraining is resumed
            on another number of processes.
    """
    spec, target = prepared.recipe.domain_adaptation, prepared.target
    if spec is None or target is None or spec.method != "continue_pretraining":
        return None
    if before is not None and before.pretraining.get("state") == "done":
        return None
    if before is not None and before.pretraining and before.processes != state.num_processes:
        rule = f"must use {before.processes} processes until the pretraining is finished"
        raise InputError(Problem("--resume", rule, str(state.num_processes)))
    dataset = _inputs_of(prepared, target.dataset, spec)
    seed, spec_of_model, notes = prepared.recipe.seed, prepared.recipe.model, list[str]()
    splits = replace(prepared.data, train=dataset, validation=None, test=None, pool=None)
    masked = prepared.task.modality.masked(splits, prepared.processor, prepared.recipe.data, seed, spec.mask)
    if masked.wrap is not None:
        model = masked.wrap(classifier, seed)
    else:
        model, notes = build_masked_model(
            spec_of_model.path,
            str(masked.auto_model),
            revision=spec_of_model.revision,
            dropout=spec_of_model.dropout,
            seed=seed,
            trust_remote_code=prepared.trust_remote_code,
            rows=embedding_rows(prepared.config),
        )
    stage = _stage_of(spec)
    planned = _plan_of(model, stage, len(masked.train), state.num_processes)
    return Pretraining(model, stage, planned, masked, tuple(notes))


def pretrain(
    found: Pretraining | None,
    prepared: PreparedRun,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
) -> Manifest:
    """Train on masked inputs, or resume that training, and save the backbone for the classifier.

    Args:
        found: Pretraining from ``prepare_pretraining``; None does nothing.
        prepared: Checked run.
        manifest: Manifest of the run.
        folder: Run directory.
        state: Process state.
        callbacks: Additional Trainer callbacks.

    Returns:
        Manifest with the result of the pretraining.
    """
    if found is None:
        return manifest
    for note in found.notes:
        logger.info(note)
    place, resumes = pretraining_folder(folder), bool(manifest.pretraining)
    spent = manifest.pretraining.get("seconds", 0.0)
    manifest = _written(manifest, folder, state, {"state": "running", "seconds": spent})
    verb = "resumes" if resumes else "begins"
    logger.info(
        f"Stage 0, {PRETRAINING}, {verb}: {len(found.masked.train)} inputs, {found.planned.steps} steps, "
        f"lr {found.stage.lr:.2g}."
    )
    begun = perf_counter()
    try:
        result = _train(found, prepared, place, state, callbacks, resumes)
        if state.is_main_process:
            _leave_backbone(found, prepared, place)
        wait_for_all(state)
    finally:
        spent = round(spent + perf_counter() - begun, 3)
        manifest = _written(manifest, folder, state, {"state": "running", "seconds": spent})
    entry = {"state": "done", "seconds": spent, "result": _entry(found, result, prepared, spent)}
    return _written(manifest, folder, state, entry)


def _train(
    found: Pretraining,
    prepared: PreparedRun,
    place: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
    resumes: bool,
) -> StageResult:
    recipe = prepared.recipe
    workers = count_workers(recipe.data.workers, state)
    data = StageData(
        "", found.masked.train, found.masked.collate, lengths=found.masked.lengths, workers=workers
    )
    return train_stage(
        found.model,
        PlannedStage(found.stage, found.planned, (recipe.seed - 1) % 2**32),
        data,
        output=StageOutput(place, resumes, track=recipe.track),
        evaluation=StageEvaluation(recipe.evaluation.batch_size),
        execution=ExecutionSettings(recipe.speed),
        methods=[LossMethod(found.masked.loss)],
        callbacks=callbacks,
    )


def _inputs_of(prepared: PreparedRun, target: Dataset, spec: DomainSpec) -> Dataset:
    """Return the inputs to mask: those of the target domain, and with ``source`` also those of the training split."""
    columns = prepared.task.modality.columns_in(prepared.data.train.column_names)
    target = target.select_columns(columns)
    if not spec.source:
        return target
    source = prepared.data.train.select_columns(columns)
    return concatenate_datasets([target, source.cast(target.features)])


def _prepared(prepared: PreparedRun, dataset: Dataset) -> Inputs:
    """Return unlabeled examples as model inputs, preprocessed like the training split, augmentation included."""
    data = replace(prepared.data, train=dataset, validation=None, test=None, pool=None)
    return prepared.task.prepare(data, prepared.processor, prepared.recipe.data, prepared.recipe.seed)


def _stage_of(spec: DomainSpec) -> StageSpec:
    epochs = spec.epochs if spec.max_steps is None else None
    return StageSpec(
        name=PRETRAINING,
        train="all",
        epochs=epochs if epochs is not None or spec.max_steps is not None else 1.0,
        max_steps=spec.max_steps,
        lr=spec.lr,
        batch_size=spec.batch_size,
        warmup=WARMUP,
        best=None,
    )


def _plan_of(model: PreTrainedModel, stage: StageSpec, examples: int, processes: int) -> StagePlan:
    """Return a plan that trains all parameters except an image classifier's head, which masked images do not reach."""
    layout = read_layout(model)
    unused = set()
    if isinstance(model, WrappedClassifier):
        unused = {f"classifier.{name}" for name in head_names(model.classifier)}
    trainable = tuple(name for name in layout.names() if name not in unused)
    per_epoch = steps_per_epoch(examples, stage.batch_size, 1, processes)
    steps = stage.max_steps or max(round((stage.epochs or 1.0) * per_epoch + 0.499999), 1)
    sizes = {parameter.name: parameter.size for parameter in layout.parameters}
    return StagePlan(
        name=PRETRAINING,
        train="all",
        trainable=trainable,
        groups=plan_groups(layout, trainable, stage.lr or 0.0, stage.weight_decay, 1.0, stage.schedule),
        trainable_size=sum(sizes[name] for name in trainable),
        frozen_batch_norms=(),
        epochs=stage.epochs or steps / per_epoch,
        steps=steps,
        warmup_steps=round(WARMUP * steps),
        layout=layout,
    )


def _leave_backbone(found: Pretraining, prepared: PreparedRun, place: Path) -> None:
    """Save the backbone for the classifier, with BatchNorm statistics recomputed on unmasked images."""
    model = found.model
    if isinstance(model, WrappedClassifier):
        model.classifier.to(memory_format=torch.contiguous_format)
        if found.masked.unmasked is not None:
            recount_statistics(model.classifier, _batches(found.masked.unmasked, found.stage.batch_size))
        head = set(head_names(model.classifier))
        names = [name for name in model.classifier.state_dict() if name not in head]
    else:
        layout = prepared.plan.layout
        names = [
            parameter.name for parameter in layout.parameters if parameter.group < layout.backbone_groups
        ]
    weights = backbone_weights(model, names)
    with replacing(place / BACKBONE) as temporary:
        save_file({name: value.clone() for name, value in weights.items()}, temporary)


def _batches(inputs: Inputs, size: int) -> Iterator[Any]:
    set_epoch(inputs.train, 0)
    for start in range(0, len(inputs.train), size):
        rows = range(start, min(start + size, len(inputs.train)))
        if len(rows) > 1 or start == 0:
            yield inputs.collate([inputs.train[row] for row in rows])


def _written(manifest: Manifest, folder: Path, state: PartialState, entry: dict[str, Any]) -> Manifest:
    manifest = replace(manifest, pretraining=entry)
    write_manifest(manifest, folder, state)
    return manifest


def _entry(found: Pretraining, result: StageResult, prepared: PreparedRun, seconds: float) -> dict[str, Any]:
    return {
        "name": PRETRAINING,
        "examples": len(found.masked.train),
        "epochs": result.epochs,
        "steps": result.steps,
        "train_seconds": seconds,
        "trainable_parameters": found.planned.trainable_size,
        "total_parameters": found.planned.layout.size,
        "speed": asdict(result.way),
    }
