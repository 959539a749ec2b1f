"""From a recipe to a saved, evaluated classifier: the one place where the rooms meet."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, TrainerCallback

from hf_finetune.data.prepare import LabelledData, prepare_data
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.checkpoint import load_classifier
from hf_finetune.evaluation.evaluate import EvaluationResult, evaluate_model
from hf_finetune.evaluation.metrics import (
    compute_metrics,
    default_metrics,
    greater_is_better,
    label_array,
    metric_problem,
    probabilities,
)
from hf_finetune.evaluation.predictions import write_predictions
from hf_finetune.models.build import BuiltModel, build_model, build_skeleton, load_processor, read_config
from hf_finetune.models.export import export_model
from hf_finetune.models.layout import read_layout
from hf_finetune.plan.stages import Plan, StagePlan, build_plan
from hf_finetune.recipe import Recipe, StageSpec, dump_recipe
from hf_finetune.staging.manifest import Manifest, StageRecord, library_versions, read_manifest, write_json
from hf_finetune.staging.stage import StageResult, load_weights, stage_folder, train_stage
from hf_finetune.staging.trainer import check_optimizer_name
from hf_finetune.tasks import TASKS, Task

__all__ = ["PlanReport", "RunResult", "plan", "run"]

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


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


@dataclass(frozen=True)
class _Ready:
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
        data = _load_data(recipe, task)
        notes += data.notes
    except InputError as error:
        if Path(recipe.data.path).exists() or not all(problem.place == "data.path" for problem in error.problems):
            raise
        notes.append(f"The data {recipe.data.path!r} is not at hand: its labels are counted as 2, its steps are unknown.")
    names, target = (data.label_names, data.target) if data else (("0", "1"), "single_label")
    config = _read_config(recipe, names, target)
    layout = read_layout(build_skeleton(config, task.modality))
    examples = len(data.train) if data else None
    return PlanReport(build_plan(layout, recipe.stages, examples, PartialState().num_processes), tuple(notes), examples)


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
    state = PartialState()
    folder = _choose_folder(output_dir, recipe, resume, state)
    ready = _get_ready(recipe, state)
    manifest = _open_run(folder, ready, resume, state)
    for note in ready.data.notes:
        logger.info(note)
    built = _build(ready)
    for note in built.notes:
        logger.info(note)
    _try_forward(built.model, ready)
    inputs = ready.task.prepare(ready.data, ready.processor, recipe.data, recipe.seed)
    model: PreTrainedModel = built.model
    for index, (stage, planned) in enumerate(zip(recipe.stages, ready.plan.stages, strict=True)):
        place = stage_folder(folder, index, stage.name)
        if manifest.stages[index].state == "done":
            logger.info("Stage %s is done already.", stage.name)
            continue
        if index > 0:
            model = _build(ready).model
            load_weights(model, stage_folder(folder, index - 1, recipe.stages[index - 1].name) / WEIGHTS)
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
                folder=place,
                target=ready.data.target,
                train=inputs.train,
                validation=inputs.validation,
                collate=inputs.collate,
                compute_metrics=_trainer_metrics(ready),
                best_metric=best,
                greater_is_better=best != "loss" and best is not None and greater_is_better(best),
                evaluation_batch_size=recipe.evaluation.batch_size,
                speed=recipe.speed,
                workers=recipe.data.workers,
                seed=recipe.seed + index,
                resume=resumes,
                callbacks=callbacks,
            )
        finally:
            spent = manifest.stages[index].seconds + perf_counter() - begun
            manifest = manifest.with_stage(index, seconds=round(spent, 3))
            _write(manifest, folder, state)
        manifest = manifest.with_stage(index, state="done", result=_stage_entry(planned, result, spent, ready))
        _write(manifest, folder, state)
    metrics: dict[str, Any] = {}
    if state.is_main_process:
        last = len(recipe.stages) - 1
        load_weights(model, stage_folder(folder, last, recipe.stages[last].name) / WEIGHTS)
        _export(model, ready.processor, folder / "model")
        metrics = _evaluate(ready, manifest, folder, perf_counter() - started, progress)
        manifest = Manifest(**{**manifest.__dict__, "state": "done"})
        _write(manifest, folder, state)
    state.wait_for_everyone()
    return RunResult(folder, metrics, ready.headline)


def _choose_folder(output_dir: str | Path | None, recipe: Recipe, resume: bool, state: PartialState) -> Path:
    if output_dir is not None:
        return Path(output_dir).expanduser()
    if resume:
        raise InputError(Problem("--resume", "must come with the run's folder", "", "Add --output-dir RUN."))
    names = [f"runs/{recipe.task}-{datetime.now():%Y%m%d-%H%M%S}"]
    if state.num_processes > 1:
        broadcast_object_list(names)
    return Path(names[0])


def _get_ready(recipe: Recipe, state: PartialState) -> _Ready:
    """Check everything before anything is written. Problems of data, checkpoint and recipe are told together."""
    task = TASKS[recipe.task]
    problems: list[Problem] = []
    data, processor, config, made = None, None, None, None
    with _collected(problems), state.main_process_first():
        data = _load_data(recipe, task)
    names, target = (data.label_names, data.target) if data else (("0", "1"), "single_label")
    with _collected(problems):
        config = _read_config(recipe, names, target)
        processor = load_processor(
            recipe.model.path,
            task.modality,
            revision=recipe.model.revision,
            trust_remote_code=recipe.model.trust_remote_code,
        )
        task.configure(processor, config, recipe.data)
    headline = recipe.metrics or default_metrics(target)
    if data is not None:
        problems += _recipe_problems(recipe, data, headline)
    if config is not None:
        with _collected(problems):
            layout = read_layout(build_skeleton(config, task.modality))
            made = build_plan(layout, recipe.stages, len(data.train) if data else None, state.num_processes)
    if problems or data is None or made is None:
        raise InputError(problems)
    return _Ready(recipe, task, data, config, processor, made, tuple(headline))


@contextmanager
def _collected(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)


def _load_data(recipe: Recipe, task: Task) -> LabelledData:
    spec = recipe.data
    return prepare_data(
        spec.path,
        modality=task.modality,
        config=spec.config,
        revision=spec.revision,
        columns=spec.columns.model_dump(),
        target=spec.target,
        validation=spec.split.validation,
        test=spec.split.test,
        stratify=spec.split.stratify,
        group=spec.split.group or spec.columns.group,
        on_error=spec.on_error,
        limit=spec.limit,
        seed=recipe.seed,
    )


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
        problems += check_optimizer_name(stage.optimizer.name, f"{place}.optimizer")
        metric = stage.best.metric if stage.best else None
        if metric is not None and metric != "loss":
            if problem := metric_problem(metric, data.target, f"{place}.best.metric", classes):
                problems.append(problem)
        if data.validation is None and (metric is not None or stage.early_stopping is not None):
            field = "early_stopping" if stage.early_stopping is not None else "best.metric"
            repair = "Set data.split.validation above 0, or leave it out."
            problems.append(Problem(f"{place}.{field}", "must have a validation split to look at", "", repair))
        if stage.label_smoothing and data.target != "single_label":
            rule = "must be 0 unless each example has one label"
            problems.append(Problem(f"{place}.label_smoothing", rule, str(stage.label_smoothing)))
    return problems


def _open_run(folder: Path, ready: _Ready, resume: bool, state: PartialState) -> Manifest:
    """Begin a run directory, or go on with one."""
    text = dump_recipe(ready.recipe)
    fingerprints = {
        "recipe": hashlib.sha256(text.encode()).hexdigest(),
        "data": ready.data.fingerprint,
        "checkpoint": _checkpoint_fingerprint(ready.recipe.model.path, ready.config),
    }
    manifest: Manifest | None = None
    if resume:
        manifest = read_manifest(folder / "manifest.json")
        _check_unchanged(folder, ready.recipe, manifest, fingerprints)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        repair = "Name another folder, or add --resume to go on with the run in it."
        raise InputError(Problem("--output-dir", "must be empty or not exist", str(folder), repair))
    else:
        _check_writable(folder)
    state.wait_for_everyone()
    if manifest is None:
        stages = tuple(StageRecord(stage.name) for stage in ready.recipe.stages)
        manifest = Manifest(stages, fingerprints, library_versions(), ready.recipe.seed)
        if state.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(text, encoding="utf-8")
            _write(manifest, folder, state)
    state.wait_for_everyone()
    return manifest


def _check_writable(folder: Path) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(Problem("--output-dir", "must be in a folder that can be written to", str(existing)))


def _check_unchanged(folder: Path, recipe: Recipe, manifest: Manifest, fingerprints: Mapping[str, str]) -> None:
    """Refuse to go on with something else: the result would be of neither recipe."""
    problems = []
    if manifest.fingerprints["recipe"] != fingerprints["recipe"]:
        before = (folder / "recipe.yaml").read_text(encoding="utf-8").splitlines()
        after = dump_recipe(recipe).splitlines()
        changed = next((f"{old.strip()!r} was {new.strip()!r}" for new, old in zip(before, after, strict=False) if old != new), "more fields")
        repair = f"Resume with {folder / 'recipe.yaml'}, or begin a new run."
        problems.append(Problem("--resume", "must go on with the recipe that the run began with", changed, repair))
    for name in ("data", "checkpoint"):
        if not problems and manifest.fingerprints[name] != fingerprints[name]:
            problems.append(Problem("--resume", f"must go on with the {name} that the run began with", f"another {name}", "Begin a new run."))
    if problems:
        raise InputError(problems)


def _checkpoint_fingerprint(path: str, config: PreTrainedConfig) -> str:
    digest = hashlib.sha256()
    folder = Path(path)
    if folder.is_dir():
        for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")) + [folder / "config.json"]:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        digest.update(f"{path}@{getattr(config, '_commit_hash', None)}".encode())
    return digest.hexdigest()


def _build(ready: _Ready) -> BuiltModel:
    spec = ready.recipe.model
    return build_model(
        spec.path,
        ready.config,
        modality=ready.task.modality,
        revision=spec.revision,
        allow_missing=spec.allow_missing,
        trust_remote_code=spec.trust_remote_code,
        seed=ready.recipe.seed,
    )


def _try_forward(model: PreTrainedModel, ready: _Ready) -> None:
    """Try one example, so that an input of the wrong size is told before anything trains."""
    try:
        with torch.no_grad():
            model.eval()(**ready.task.dummy(ready.processor))
    except (RuntimeError, ValueError, AssertionError) as error:
        size = ready.recipe.data.image_size
        place, value = ("data.image_size", str(size)) if size else ("model.path", repr(ready.recipe.model.path))
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(Problem(place, "must suit the checkpoint", value, f"The model says: {first}")) from error


def _best_metric(stage: StageSpec, ready: _Ready) -> str | None:
    if stage.best is None or ready.data.validation is None:
        return None
    return stage.best.metric or ready.headline[0]


def _trainer_metrics(ready: _Ready) -> Callable[[EvalPrediction], dict[str, float]]:
    target = ready.data.target
    wanted = [*ready.headline, *(s.best.metric for s in ready.recipe.stages if s.best and s.best.metric)]
    names = [name for name in dict.fromkeys(wanted) if name != "loss"]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        return compute_metrics(names, target, probabilities(logits, target), np.asarray(prediction.label_ids))

    return compute


def _first_line(index: int, stage: StageSpec, planned: StagePlan, ready: _Ready, resumes: bool) -> str:
    rates = ", ".join(dict.fromkeys(f"{group.layers} {group.lr:.2g}" for group in planned.groups))
    share = f"{planned.trainable_size:,} of {ready.plan.layout.size:,} parameters"
    verb = "goes on" if resumes else "begins"
    return f"Stage {index + 1} of {len(ready.recipe.stages)}, {stage.name}, {verb}: {share}, lr {rates}."


def _stage_entry(planned: StagePlan, result: StageResult, seconds: float, ready: _Ready) -> dict[str, Any]:
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


def _export(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Write ``RUN/model``; it is whole or not there."""
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    export_model(model, processor, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _evaluate(
    ready: _Ready, manifest: Manifest, folder: Path, seconds: float, progress: Callable[[int], None] | None
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
            folder / "predictions.parquet", found.ids, found.labels, found.scores, found.target, found.label_names
        )
        content["test"] = _without_nan(found.metrics)
        content["baselines"] = {"majority": _without_nan(_majority(ready, found))}
    content["wall_seconds"] = round(seconds + perf_counter() - began, 3)
    write_json(folder / "metrics.json", content)
    return content


def _majority(ready: _Ready, found: EvaluationResult) -> dict[str, float]:
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


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the ``metrics.json`` of a run."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
