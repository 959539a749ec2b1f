"""From a recipe to a saved, evaluated classifier: the one place where the rooms meet."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import EvalPrediction, PreTrainedModel, TrainerCallback

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.checkpoint import load_classifier
from hf_finetune.evaluation.evaluate import EvaluationResult, evaluate_model
from hf_finetune.evaluation.metrics import (
    compute_metrics,
    greater_is_better,
    label_array,
    probabilities,
)
from hf_finetune.evaluation.predictions import write_predictions
from hf_finetune.files import replacing_folder
from hf_finetune.models.adapters import merge_adapter
from hf_finetune.models.export import export_adapter, export_model
from hf_finetune.models.layout import head_names
from hf_finetune.plan.stages import StagePlan
from hf_finetune.processes import (
    computes_on_cpu,
    count_workers,
    naming_lost_processes,
    start_processes,
    wait_for_all,
)
from hf_finetune.ready import Ready, get_ready, load_pretrained, try_forward
from hf_finetune.recipe import Recipe, StageSpec
from hf_finetune.run_changes import spread_recipe
from hf_finetune.run_folder import begin_run, check_folder, choose_folder, resume_run, write_manifest
from hf_finetune.run_speed import cache_settings, decode_images
from hf_finetune.speed.allocator import give_back_memory, keep_freed_memory
from hf_finetune.speed.prefix_cache import CacheSettings
from hf_finetune.staging.callbacks import DivergedError
from hf_finetune.staging.manifest import Manifest, read_manifest, write_json
from hf_finetune.staging.stage import StageResult, load_weights, stage_folder, train_stage
from hf_finetune.tasks import Inputs

__all__ = ["RunResult", "run"]

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: The run directory.
        metrics: The content of ``metrics.json``.
        headline: Names of the metrics that the recipe asks for, the leading one first.
    """

    folder: Path
    metrics: dict[str, Any]
    headline: tuple[str, ...]


def run(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    progress: Callable[[int], None] | None = None,
) -> RunResult:
    """Fine-tune stage by stage, evaluate on the test split, and save.

    Under ``accelerate launch`` every process calls this; the first one writes.

    Args:
        recipe: What to do.
        output_dir: The run directory; it must be empty or not exist, unless the run is resumed. None makes
            ``runs/TASK-DATE``.
        resume: Go on with the run in ``output_dir`` at the last checkpoint of the stage it was in.
        allow_changes: Resume with a recipe, data or checkpoint that has changed; the manifest says what has.
        callbacks: Further callbacks for the Trainer of each stage.
        progress: Called with the number of test examples done.
    Raises:
        InputError: If recipe, data, checkpoint or run directory cannot be used; nothing is written then.
        DivergedError: If a stage's loss is no longer a number.
        LostProcessError: If another process of the launch is gone.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.
    """
    state = start_processes()
    if computes_on_cpu():
        keep_freed_memory()
    try:
        with naming_lost_processes(state):
            return _run(recipe, output_dir, resume, allow_changes, callbacks, progress, state)
    finally:
        give_back_memory()


def _run(
    recipe: Recipe,
    output_dir: str | Path | None,
    resume: bool,
    allow_changes: bool,
    callbacks: Sequence[TrainerCallback],
    progress: Callable[[int], None] | None,
    state: PartialState,
) -> RunResult:
    started = perf_counter()
    if allow_changes and not resume:
        raise InputError(Problem("--allow-changes", "must come with --resume"))
    folder = choose_folder(output_dir, recipe, resume, state)
    before = read_manifest(folder / "manifest.json") if resume else None
    if before is None:
        check_folder(folder)
    spread = partial(spread_recipe, manifest=before, processes=state.num_processes) if before else None
    ready = get_ready(recipe, state, spread)
    recipe = ready.recipe
    built = load_pretrained(ready)
    inputs = ready.task.prepare(ready.data, ready.processor, recipe.data, recipe.seed)
    try_forward(built.model, ready, inputs)
    settings = [cache_settings(ready, planned) for planned in ready.plan.stages]
    if before is None:
        manifest = begin_run(folder, ready, state)
    else:
        manifest = resume_run(folder, ready, before, state, allow_changes=allow_changes)
    for note in (*ready.data.notes, *built.notes, *filter(None, [ready.plan.layout.note])):
        logger.info(note)
    inputs = decode_images(inputs, ready, settings)
    model = built.model
    for index, stage in enumerate(recipe.stages):
        if manifest.stages[index].state == "done":
            logger.info("Stage %s is done already.", stage.name)
            continue
        if index > 0:
            model = load_pretrained(ready).model
            load_weights(model, stage_folder(folder, index - 1, recipe.stages[index - 1].name) / WEIGHTS)
        manifest = _run_stage(
            model, index, ready, inputs, settings[index], manifest, folder, state, callbacks
        )
    metrics: dict[str, Any] = {}
    if state.is_main_process:
        last = len(recipe.stages) - 1
        model = load_pretrained(ready).model  # that of the last stage may be divided, or compiled
        load_weights(model, stage_folder(folder, last, recipe.stages[last].name) / WEIGHTS)
        _export(model, ready, folder)
        metrics = _evaluate(ready, manifest, folder, perf_counter() - started, progress)
        if ready.saves == "adapter":
            shutil.rmtree(folder / "model")
        write_manifest(replace(manifest, state="done"), folder, state)
    wait_for_all(state)
    return RunResult(folder, metrics, ready.headline)


def _run_stage(
    model: PreTrainedModel,
    index: int,
    ready: Ready,
    inputs: Inputs,
    cache: CacheSettings | None,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
) -> Manifest:
    """Train one stage, or go on with it, and write down how far it is."""
    recipe, stage, planned = ready.recipe, ready.recipe.stages[index], ready.plan.stages[index]
    resumes = manifest.stages[index].state == "running"
    manifest = manifest.with_stage(index, state="running")
    write_manifest(manifest, folder, state)
    logger.info(_first_line(index, stage, planned, ready, resumes))
    best = _best_metric(stage, ready)
    carries = stage.carry_optimizer
    following = recipe.stages[index + 1 : index + 2]
    begun = perf_counter()
    try:
        result = train_stage(
            model,
            stage,
            planned,
            folder=stage_folder(folder, index, stage.name),
            target=ready.data.target,
            train=inputs.train,
            validation=inputs.validation,
            collate=inputs.collate,
            compute_metrics=_trainer_metrics(ready),
            best_metric=best,
            greater_is_better=best not in (None, "loss") and greater_is_better(str(best)),
            lengths=inputs.lengths,
            evaluation_batch_size=recipe.evaluation.batch_size,
            speed=recipe.speed,
            workers=count_workers(recipe.data.workers, state),
            seed=(recipe.seed + index) % 2**32,
            resume=resumes,
            callbacks=callbacks,
            carry_from=stage_folder(folder, index - 1, recipe.stages[index - 1].name) if carries else None,
            keep_optimizer=any(other.carry_optimizer for other in following),
            cache=cache,
        )
    finally:
        spent = manifest.stages[index].seconds + perf_counter() - begun
        manifest = manifest.with_stage(index, seconds=round(spent, 3))
        write_manifest(manifest, folder, state)
    manifest = manifest.with_stage(index, state="done", result=_stage_entry(planned, result, spent, ready))
    write_manifest(manifest, folder, state)
    if result.best_step is not None:
        logger.info(_last_line(stage, result, best))
    return manifest


def _best_metric(stage: StageSpec, ready: Ready) -> str | None:
    if stage.best is None or ready.data.validation is None:
        return None
    return stage.best.metric or ready.headline[0]


def _trainer_metrics(ready: Ready) -> Callable[[EvalPrediction], dict[str, float]]:
    target = ready.data.target
    wanted = [*ready.headline, *(s.best.metric for s in ready.recipe.stages if s.best and s.best.metric)]
    names = [name for name in dict.fromkeys(wanted) if name != "loss"]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = (
            prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        )
        if not np.isfinite(logits).all():
            raise DivergedError(
                "The model's output on the validation split is not finite. In a new run lower lr, or use fp32."
            )
        return compute_metrics(names, target, probabilities(logits, target), np.asarray(prediction.label_ids))

    return compute


def _first_line(index: int, stage: StageSpec, planned: StagePlan, ready: Ready, resumes: bool) -> str:
    rates = ", ".join(dict.fromkeys(f"{group.layers} {group.lr:.2g}" for group in planned.groups))
    share = f"{planned.trainable_size:,} of {ready.plan.layout.size:,} parameters"
    verb = "goes on" if resumes else "begins"
    return f"Stage {index + 1} of {len(ready.recipe.stages)}, {stage.name}, {verb}: {share}, lr {rates}."


def _last_line(stage: StageSpec, result: StageResult, metric: str | None) -> str:
    epoch = round(result.epochs * (result.best_step or 0) / result.steps, 2)
    value = result.validation.get(str(metric))
    shown = f", the best {metric}: {value:.4f}" if value is not None else ""
    return f"Stage {stage.name} keeps epoch {epoch:g} of {result.epochs:g}{shown}."


def _stage_entry(planned: StagePlan, result: StageResult, seconds: float, ready: Ready) -> dict[str, Any]:
    return {
        "name": planned.name,
        "epochs": result.epochs,
        "steps": result.steps,
        "best_step": result.best_step,
        "train_seconds": round(seconds, 3),
        "trainable_parameters": planned.trainable_size,
        "total_parameters": ready.plan.layout.size,
        "speed": asdict(result.way),
        "prefix_cache": asdict(result.cache),
        "validation": _without_nan(result.validation),
    }


def _export(model: PreTrainedModel, ready: Ready, folder: Path) -> None:
    """Write ``RUN/model``, its adapter merged in, and ``RUN/adapter`` where the recipe wants it."""
    spec = ready.recipe.model
    if spec.adapter is not None:
        model.cpu()
        if ready.saves != "merged":
            with replacing_folder(folder / "adapter") as partial:
                export_adapter(model, head_names(model), partial, base=spec.path, revision=spec.revision)
        change = merge_adapter(model, ready.task.dummy(ready.processor))
        logger.info(f"The adapter is merged: no logit changes by more than {change:.1g} of the largest.")
    with replacing_folder(folder / "model") as partial:
        export_model(model, ready.processor, partial)


def _evaluate(
    ready: Ready, manifest: Manifest, folder: Path, seconds: float, progress: Callable[[int], None] | None
) -> dict[str, Any]:
    """Evaluate what was saved, as others will load it, and write ``metrics.json`` and ``predictions.parquet``."""
    content: dict[str, Any] = {
        "task": ready.recipe.task,
        "wall_seconds": 0.0,
        "stages": [record.result for record in manifest.stages],
        "test": {},
        "baselines": {},
    }
    began = perf_counter()
    if ready.data.test is not None:
        extra = [name for name in ready.headline if name != "loss"]
        classifier = load_classifier(
            folder / "model",
            batch_size=ready.recipe.evaluation.batch_size,
            trust_remote_code=ready.recipe.model.trust_remote_code,
        )
        found = evaluate_model(classifier, ready.data.test, metrics=extra, progress=progress)
        write_predictions(
            folder / "predictions.parquet",
            found.ids,
            found.labels,
            found.scores,
            found.target,
            found.label_names,
        )
        content["test"] = _without_nan(found.metrics)
        content["baselines"] = {"majority": _without_nan(_majority(ready, found))}
    content["wall_seconds"] = round(seconds + perf_counter() - began, 3)
    write_json(folder / "metrics.json", content)
    return content


def _majority(ready: Ready, found: EvaluationResult) -> dict[str, float]:
    """Score the answer that ignores the input: the training split's class frequencies, or its mean amount."""
    train = label_array(ready.data.train["label"], ready.data.target, len(ready.data.label_names))
    if ready.data.target == "single_label":
        answer: Any = np.bincount(train, minlength=len(ready.data.label_names)) / len(train)
    else:
        answer = train.mean(axis=0)
    scores = np.broadcast_to(answer, found.scores.shape)
    return compute_metrics(ready.headline, ready.data.target, scores, found.labels)


def _without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}
