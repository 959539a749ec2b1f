"""From a recipe to a saved, evaluated classifier: the one place where the rooms meet."""

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, TrainerCallback

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
from hf_finetune.files import replacing, replacing_folder
from hf_finetune.models.adapters import merge_adapter
from hf_finetune.models.export import export_adapter, export_model
from hf_finetune.models.layout import head_names
from hf_finetune.plan.stages import StagePlan
from hf_finetune.processes import start_processes
from hf_finetune.ready import Ready, get_ready, load_pretrained, try_forward
from hf_finetune.recipe import Recipe, StageSpec, dump_recipe
from hf_finetune.staging.callbacks import DivergedError
from hf_finetune.staging.manifest import Manifest, StageRecord, library_versions, read_manifest, write_json
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
        callbacks: Further callbacks for the Trainer of each stage.
        progress: Called with the number of test examples done.
    Raises:
        InputError: If recipe, data, checkpoint or run directory cannot be used; nothing is written then.
        DivergedError: If a stage's loss is no longer a number.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.
    """
    started = perf_counter()
    state = start_processes()
    folder = _choose_folder(output_dir, recipe, resume, state)
    before = read_manifest(folder / "manifest.json") if resume else None
    if before is None:
        _check_folder(folder)
    ready = get_ready(recipe, state)
    built = load_pretrained(ready)
    inputs = ready.task.prepare(ready.data, ready.processor, recipe.data, recipe.seed)
    try_forward(built.model, ready, inputs)
    manifest = _begin(folder, ready, before, state)
    for note in (*ready.data.notes, *built.notes):
        logger.info(note)
    model = built.model
    for index, stage in enumerate(recipe.stages):
        if manifest.stages[index].state == "done":
            logger.info("Stage %s is done already.", stage.name)
            continue
        if index > 0:
            model = load_pretrained(ready).model
            load_weights(model, stage_folder(folder, index - 1, recipe.stages[index - 1].name) / WEIGHTS)
        manifest = _run_stage(model, index, ready, inputs, manifest, folder, state, callbacks)
    metrics: dict[str, Any] = {}
    if state.is_main_process:
        last = len(recipe.stages) - 1
        load_weights(model, stage_folder(folder, last, recipe.stages[last].name) / WEIGHTS)
        _export(model, ready, folder)
        metrics = _evaluate(ready, manifest, folder, perf_counter() - started, progress)
        if ready.saves == "adapter":
            shutil.rmtree(folder / "model")
        _write(replace(manifest, state="done"), folder, state)
    state.wait_for_everyone()
    return RunResult(folder, metrics, ready.headline)


def _run_stage(
    model: PreTrainedModel,
    index: int,
    ready: Ready,
    inputs: Inputs,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    callbacks: Sequence[TrainerCallback],
) -> Manifest:
    """Train one stage, or go on with it, and write down how far it is."""
    recipe, stage, planned = ready.recipe, ready.recipe.stages[index], ready.plan.stages[index]
    resumes = manifest.stages[index].state == "running"
    manifest = manifest.with_stage(index, state="running")
    _write(manifest, folder, state)
    logger.info(_first_line(index, stage, planned, ready, resumes))
    best = _best_metric(stage, ready)
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
            evaluation_batch_size=recipe.evaluation.batch_size,
            speed=recipe.speed,
            workers=recipe.data.workers,
            seed=(recipe.seed + index) % 2**32,
            resume=resumes,
            callbacks=callbacks,
        )
    finally:
        spent = manifest.stages[index].seconds + perf_counter() - begun
        manifest = manifest.with_stage(index, seconds=round(spent, 3))
        _write(manifest, folder, state)
    manifest = manifest.with_stage(index, state="done", result=_stage_entry(planned, result, spent, ready))
    _write(manifest, folder, state)
    return manifest


def _choose_folder(output_dir: str | Path | None, recipe: Recipe, resume: bool, state: PartialState) -> Path:
    if output_dir is not None:
        return Path(output_dir).expanduser()
    if resume:
        raise InputError(Problem("--resume", "must come with the run's folder", "", "Add --output-dir RUN."))
    names = [f"runs/{recipe.task}-{datetime.now():%Y%m%d-%H%M%S}"]
    if state.num_processes > 1:
        broadcast_object_list(names)
    return Path(names[0])


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, or cannot be made."""
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem("--output-dir", "must be a folder", f"the file {folder}"))
    if folder.exists() and any(folder.iterdir()):
        repair = "Name another folder."
        if (folder / "manifest.json").is_file():
            repair = "Name another folder, or add --resume to go on with the run in it."
        raise InputError(Problem("--output-dir", "must be empty or not exist", str(folder), repair))
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        rule = "must be in a folder that can be written to"
        raise InputError(Problem("--output-dir", rule, str(existing)))


def _begin(folder: Path, ready: Ready, before: Manifest | None, state: PartialState) -> Manifest:
    """Begin a run directory, or make sure that the run in it is of this recipe, data and checkpoint."""
    text = dump_recipe(ready.recipe)
    fingerprints = {
        "recipe": hashlib.sha256(text.encode()).hexdigest(),
        "data": ready.data.fingerprint,
        "checkpoint": _checkpoint_fingerprint(ready.recipe.model.path, ready.config),
    }
    if before is not None:
        _check_unchanged(folder, ready.recipe, before, fingerprints)
        return before
    stages = tuple(StageRecord(stage.name) for stage in ready.recipe.stages)
    manifest = Manifest(stages, fingerprints, library_versions(), ready.recipe.seed)
    state.wait_for_everyone()
    if state.is_main_process:
        _make_folder(folder)
        try:
            with replacing(folder / "recipe.yaml") as temporary:
                temporary.write_text(text, encoding="utf-8")
            _write(manifest, folder, state)
        except BaseException:
            (folder / "recipe.yaml").unlink(missing_ok=True)
            raise
    state.wait_for_everyone()
    return manifest


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        rule = "must be a folder that can be made"
        raise InputError(Problem("--output-dir", rule, str(folder), f"{error.strerror}.")) from error


def _check_unchanged(
    folder: Path, recipe: Recipe, manifest: Manifest, fingerprints: Mapping[str, str]
) -> None:
    """Refuse to go on with something else: the result would be of neither recipe."""
    problems = []
    if manifest.fingerprints["recipe"] != fingerprints["recipe"]:
        before = (folder / "recipe.yaml").read_text(encoding="utf-8").splitlines()
        after = dump_recipe(recipe).splitlines()
        changed = next(
            (
                f"{old.strip()!r} where it was {new.strip()!r}"
                for new, old in zip(before, after, strict=False)
                if old != new
            ),
            "more fields",
        )
        repair = f"Resume with {folder / 'recipe.yaml'}, or begin a new run."
        problems.append(
            Problem("--resume", "must go on with the recipe that the run began with", changed, repair)
        )
    same_recipe = not problems
    for name in ("data", "checkpoint"):
        if same_recipe and manifest.fingerprints[name] != fingerprints[name]:
            problems.append(
                Problem(
                    "--resume",
                    f"must go on with the {name} that the run began with",
                    "",
                    "Begin a new run.",
                )
            )
    if problems:
        raise InputError(problems)


def _checkpoint_fingerprint(path: str, config: PreTrainedConfig) -> str:
    digest = hashlib.sha256()
    folder = Path(path)
    if folder.is_dir():
        for file in (
            sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")) + [folder / "config.json"]
        ):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        digest.update(f"{path}@{getattr(config, '_commit_hash', None)}".encode())
    return digest.hexdigest()


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


def _stage_entry(planned: StagePlan, result: StageResult, seconds: float, ready: Ready) -> dict[str, Any]:
    return {
        "name": planned.name,
        "epochs": result.epochs,
        "steps": result.steps,
        "best_step": result.best_step,
        "train_seconds": round(seconds, 3),
        "trainable_parameters": planned.trainable_size,
        "total_parameters": ready.plan.layout.size,
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


def _write(manifest: Manifest, folder: Path, state: PartialState) -> None:
    if state.is_main_process:
        manifest.write(folder / "manifest.json")
