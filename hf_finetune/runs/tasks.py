"""Multi-task runs: the labels of the tasks, the validation metrics, and the results of each task."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedModel

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.evaluation.metrics import compute_metrics, greater_is_better, probabilities, without_nan
from hf_finetune.files import replacing, replacing_folder
from hf_finetune.methods.base import TaskLabels
from hf_finetune.models.joining import weights_of_task
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.publishing.card import write_card
from hf_finetune.publishing.portable_recipe import JOINT
from hf_finetune.recipe import dump_recipe
from hf_finetune.report.page import write_report
from hf_finetune.report.run_record import DATA
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.joint import MEAN, columns_of, examples_of_tasks
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.results import evaluate_run, finish_model, write_data
from hf_finetune.targets import TARGETS
from hf_finetune.training.loss import finite_logits
from hf_finetune.training.manifest import Manifest, write_json

__all__ = ["finish_tasks", "score_tasks", "task_labels"]

TASKS_FOLDER = "tasks"
PER_TASK = ("test", "test_interval")


def task_labels(prepared: PreparedRun) -> tuple[TaskLabels, ...]:
    """Return the labels of each task on which the stages train."""
    recipe, datas = prepared.recipe, {name: task.data for name, task in prepared.tasks.items()}
    counts = examples_of_tasks(recipe, datas.values())
    return tuple(
        TaskLabels(
            *(name, data.target, data.label_names, data.train["label"], count), recipe.task_weight(name)
        )
        for (name, data), count in zip(datas.items(), counts, strict=True)
    )


def score_tasks(prepared: PreparedRun) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the function that computes the validation metrics of all tasks.

    It returns ``TASK/METRIC`` of each task that has validation examples, and as ``mean`` the mean over the tasks of
    their first metric.
    """
    columns = columns_of({name: part.data for name, part in prepared.tasks.items()})
    best_metrics = [stage.best.metric for stage in prepared.recipe.stages if stage.best and stage.best.metric]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = finite_logits(prediction)
        labels = np.asarray(prediction.label_ids)
        metrics: dict[str, dict[str, float]] = {}
        for task in columns:
            part, rows = prepared.tasks[task.name], ~np.isnan(labels[:, task.labels[0]])
            if not rows.any():
                continue
            task_labels = task.labels_of(labels[rows])
            task_labels = task_labels if TARGETS[task.target].has_several_classes else task_labels[:, 0]
            scores = probabilities(task.logits_of(logits[rows]), task.target)
            prefix = f"{task.name}/"
            names = [
                *part.primary_metrics,
                *(name[len(prefix) :] for name in best_metrics if name.startswith(prefix)),
            ]
            names = [name for name in dict.fromkeys(names) if name != "loss"]
            targets = task_labels.astype(np.float64 if not TARGETS[task.target].has_classes else np.int64)
            metrics[task.name] = compute_metrics(
                *(names, task.target, scores, targets), settings=part.metric_settings
            )
        return {**_flat(metrics), MEAN: _mean(metrics, prepared.tasks)}

    return compute


def _flat(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{task}/{name}": value for task, values in found.items() for name, value in values.items()}


def _mean(found: Mapping[str, Mapping[str, Any]], parts: Mapping[str, PreparedRun]) -> float:
    """Return the mean over the tasks of their first metric, errors negated; nan if one is undefined."""
    values = []
    for task, metrics in found.items():
        first = next(name for name in parts[task].primary_metrics if name != "loss")
        value = metrics.get(first)
        signed = float("nan") if value is None else value if greater_is_better(first) else -value
        values.append(signed)
    return float(np.mean(values)) if values else float("nan")


def finish_tasks(
    model: PreTrainedModel,
    prepared: PreparedRun,
    manifest: Manifest,
    folder: Path,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Save and evaluate the model of each task, and write the files of a finished run for it.

    ``RUN/tasks/NAME`` is then a finished run of that task, and ``RUN/model/NAME`` is its model.

    Args:
        model: Multi-task model.
        prepared: Checked run.
        manifest: Manifest of the run; its stages are done.
        folder: Run directory.
        device: Device on which the linear probes compute their features.
        progress: Function called with the number of test examples done.

    Returns:
        The content of ``metrics.json``.
    """
    stages = [record.result for record in manifest.stages]
    tasks: dict[str, dict[str, Any]] = {}
    descriptions = {}
    for name, part in prepared.tasks.items():
        place = folder / TASKS_FOLDER / name
        place.mkdir(parents=True, exist_ok=True)
        write_data(part, place)
        metrics = {
            "task": part.recipe.task,
            "wall_seconds": 0.0,
            "stages": [_seen_by(name, stage) for stage in stages],
        }
        metrics |= _finish_task(model, name, part, place, stages, device, progress)
        write_json(place / "metrics.json", metrics)
        _write_run(place, part, prepared, manifest)
        write_report(place)
        write_card(place)
        _link(place / "model", folder / "model" / name)
        descriptions[name] = _described(place)
        tasks[name] = {key: value for key, value in metrics.items() if key not in ("stages", "wall_seconds")}
    write_json(folder / DATA, _all_data(descriptions, prepared))
    return _joint_metrics(tasks, stages, prepared)


def _finish_task(
    model: PreTrainedModel,
    name: str,
    part: PreparedRun,
    place: Path,
    stages: list[Any],
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    alone = load_pretrained(part).model
    alone.load_state_dict(weights_of_task(model, name))
    inputs = prepare_inputs(part.task, part.data, part.processor, part.recipe.data, part.recipe.seed)
    ways = [ExecutionMode(**stage["speed"]) for stage in stages]
    return finish_model(alone, part, place) | evaluate_run(part, inputs, place, ways, device, progress)


def _seen_by(task: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a stage with only the validation metrics of one task, without the ``TASK/`` prefix."""
    prefix = f"{task}/"
    judged = {name: stage[name] for name in ("validation", "start", "trained") if name in stage}
    task_metrics = {
        name: {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}
        for name, values in judged.items()
    }
    return {**stage, **task_metrics}


def _write_run(place: Path, part: PreparedRun, prepared: PreparedRun, manifest: Manifest) -> None:
    """Write recipe and manifest of a finished single-task run, and next to them the recipe of all tasks."""
    for file, recipe in (("recipe.yaml", part.requested), (JOINT, prepared.requested)):
        with replacing(place / file) as partial:
            partial.write_text(dump_recipe(recipe), encoding="utf-8")
    task_manifest = replace(
        manifest,
        recipe=part.requested.model_dump(mode="json"),
        fingerprints={**manifest.fingerprints, "data": part.data.fingerprint},
        state="done",
    )
    task_manifest.write(place / "manifest.json")


def _link(source: Path, place: Path) -> None:
    """Copy a folder, with hard links to its files where the file system supports them."""
    place.parent.mkdir(exist_ok=True)
    with replacing_folder(place) as partial:
        partial.mkdir()
        for file in source.iterdir():
            try:
                os.link(file, partial / file.name)
            except OSError:
                shutil.copy2(file, partial / file.name)


def _described(place: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads((place / DATA).read_text(encoding="utf-8"))
    return content


def _all_data(descriptions: Mapping[str, Mapping[str, Any]], prepared: PreparedRun) -> dict[str, Any]:
    splits = {
        f"{name}, {split}": description
        for name, content in descriptions.items()
        for split, description in content["splits"].items()
    }
    return {"splits": splits, "notes": list(prepared.data.notes)}


def _joint_metrics(
    tasks: Mapping[str, Mapping[str, Any]], stages: list[Any], prepared: PreparedRun
) -> dict[str, Any]:
    """Return the content of ``metrics.json`` of the whole run, with the metrics of all tasks as ``TASK/METRIC``."""
    judged = {name: metrics for name, metrics in tasks.items() if metrics["test"]}
    content: dict[str, Any] = {
        "task": prepared.recipe.task,
        "wall_seconds": 0.0,
        "stages": stages,
        "headline": [name for name in prepared.primary_metrics if not name.endswith("/loss")],
        "tasks": tasks,
    }
    for key in PER_TASK:
        content[key] = _flat({name: metrics[key] for name, metrics in judged.items()})
    content["baselines"] = {}
    for baseline in ("majority", "linear_probe"):
        metrics = {
            name: task_metrics["baselines"][baseline]
            for name, task_metrics in judged.items()
            if baseline in task_metrics["baselines"]
        }
        if metrics:
            content["baselines"][baseline] = _flat(metrics)
            if len(metrics) == len(judged):
                content["baselines"][baseline] |= without_nan({MEAN: _mean(metrics, prepared.tasks)})
    if judged:
        mean = _mean({name: metrics["test"] for name, metrics in judged.items()}, prepared.tasks)
        content["test"] = without_nan({MEAN: mean}) | content["test"]
    return content
