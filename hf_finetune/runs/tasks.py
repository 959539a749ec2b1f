"""Multi-task runs: the labels of the tasks, the validation metrics, and the results of each task."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EvalPrediction, PreTrainedModel

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.evaluation.metrics import (
    compute_metrics,
    greater_is_better,
    groups_of,
    probabilities,
    without_nan,
)
from hf_finetune.files import atomic_file, atomic_folder
from hf_finetune.methods.base import TaskLabels
from hf_finetune.models.joining import extract_task_weights
from hf_finetune.publishing.card import write_card
from hf_finetune.publishing.portable_recipe import MULTI_TASK_RECIPE_FILE
from hf_finetune.recipe.load import dump_recipe
from hf_finetune.report.page import write_report
from hf_finetune.report.run_record import DATA_FILE
from hf_finetune.report.verdict import BASELINES
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.joint import MEAN, examples_per_epoch, task_column_ranges
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks import Inputs
from hf_finetune.training.manifest import Manifest, write_json
from hf_finetune.training.validation_loss import require_finite_logits

__all__ = [
    "joint_metrics",
    "score_tasks",
    "task_folder",
    "task_inputs",
    "task_labels",
    "task_model",
    "task_stage_result",
    "write_joint_data",
    "write_task_run",
]

TASKS_FOLDER = "tasks"
PER_TASK = ("test", "test_interval")
"""Keys of ``metrics.json`` whose content is stored as ``TASK/METRIC``."""


def task_labels(prepared: PreparedRun) -> tuple[TaskLabels, ...]:
    """Return the labels of each task on which the stages train."""
    recipe, data_by_task = prepared.recipe, {name: task.data for name, task in prepared.tasks.items()}
    counts = examples_per_epoch(recipe, data_by_task.values())
    return tuple(
        TaskLabels(name, data.target, data.label_names, data.train["label"], count, recipe.task_weight(name))
        for (name, data), count in zip(data_by_task.items(), counts, strict=True)
    )


def score_tasks(prepared: PreparedRun) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the function that computes the validation metrics of all tasks.

    It returns ``TASK/METRIC`` of each task that has validation examples, and as ``mean`` the mean over the tasks of
    their first metric.

    Args:
        prepared: Checked run of several tasks.
    """
    columns = task_column_ranges({name: task_run.data for name, task_run in prepared.tasks.items()})
    groups = {name: groups_of(task_run.data.validation) for name, task_run in prepared.tasks.items()}
    best_metrics = [spec.best.metric for spec in prepared.recipe.stages if spec.best and spec.best.metric]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = require_finite_logits(prediction)
        labels = np.asarray(prediction.label_ids)
        metrics: dict[str, dict[str, float]] = {}
        for task in columns:
            task_run, rows = prepared.tasks[task.name], ~np.isnan(labels[:, task.labels[0]])
            if not rows.any():
                continue
            values = task.select_labels(labels[rows])
            values = values if TARGETS[task.target].has_several_classes else values[:, 0]
            scores = probabilities(task.select_logits(logits[rows]), task.target)
            prefix = f"{task.name}/"
            names = [
                *task_run.metric_names,
                *(name[len(prefix) :] for name in best_metrics if name.startswith(prefix)),
            ]
            names = [name for name in dict.fromkeys(names) if name != "loss"]
            targets = values.astype(np.int64 if TARGETS[task.target].has_classes else np.float64)
            examples = ScoredExamples(
                *(targets, scores, task.target, task_run.decision_rule),
                *(groups[task.name], task_run.metric_settings),
            )
            metrics[task.name] = compute_metrics(names, examples)
        return {**_flatten(metrics), MEAN: _mean(metrics, prepared.tasks)}

    return compute


def _flatten(metrics_by_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{task}/{name}": value for task, values in metrics_by_task.items() for name, value in values.items()
    }


def _mean(metrics_by_task: Mapping[str, Mapping[str, Any]], task_runs: Mapping[str, PreparedRun]) -> float:
    """Return the mean over the tasks of their first metric, errors negated; nan if one is undefined."""
    values = []
    for task, metrics in metrics_by_task.items():
        first = next(name for name in task_runs[task].metric_names if name != "loss")
        value = metrics.get(first)
        signed = float("nan") if value is None else value if greater_is_better(first) else -value
        values.append(signed)
    return float(np.mean(values)) if values else float("nan")


def task_folder(folder: Path, task: str) -> Path:
    """Create the folder of a task in a run directory, and return it; it is a run directory itself."""
    task_dir = folder / TASKS_FOLDER / task
    task_dir.mkdir(parents=True, exist_ok=True)
    return task_dir


def task_model(model: PreTrainedModel, name: str, task: PreparedRun) -> PreTrainedModel:
    """Return the classifier of one task of a multi-task model.

    Args:
        model: Model of all tasks.
        name: Name of the task.
        task: Checked run of the task.
    """
    alone = load_pretrained(task).model
    alone.load_state_dict(extract_task_weights(model, name))
    return alone


def task_inputs(task: PreparedRun) -> Inputs:
    """Return the examples of one of several tasks as model inputs."""
    return prepare_inputs(task.task, task.data, task.processor, task.recipe.data, task.recipe.seed)


def task_stage_result(task: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a stage with only the validation metrics of one task, without the ``TASK/`` prefix.

    Args:
        task: Name of the task.
        stage: Result of a stage in ``metrics.json``.
    """
    prefix = f"{task}/"
    evaluations = {name: stage[name] for name in ("validation", "start", "trained") if name in stage}
    task_metrics = {
        name: {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}
        for name, values in evaluations.items()
    }
    return {**stage, **task_metrics}


def write_task_run(
    folder: Path,
    name: str,
    task: PreparedRun,
    metrics: Mapping[str, Any],
    prepared: PreparedRun,
    manifest: Manifest,
) -> None:
    """Write ``RUN/tasks/NAME`` as a finished single-task run, and copy its model to ``RUN/model/NAME``.

    The recipe of all tasks is stored next to that of the task.

    Args:
        folder: Run directory of all tasks.
        name: Name of the task.
        task: Checked run of the task.
        metrics: Content of ``metrics.json`` of the task.
        prepared: Checked run of all tasks.
        manifest: Manifest of the run; its stages are done.
    """
    task_dir = task_folder(folder, name)
    write_json(task_dir / "metrics.json", metrics)
    for file, recipe in (("recipe.yaml", task.requested), (MULTI_TASK_RECIPE_FILE, prepared.requested)):
        with atomic_file(task_dir / file) as partial:
            partial.write_text(dump_recipe(recipe), encoding="utf-8")
    task_manifest = replace(
        manifest,
        recipe=task.requested.model_dump(mode="json"),
        fingerprints={**manifest.fingerprints, "data": task.data.fingerprint},
        state="done",
    )
    task_manifest.write(task_dir / "manifest.json")
    write_report(task_dir)
    write_card(task_dir)
    _copy_with_hard_links(task_dir / "model", folder / "model" / name)


def _copy_with_hard_links(source: Path, task_dir: Path) -> None:
    """Copy a folder, with hard links to its files where the file system supports them."""
    task_dir.parent.mkdir(exist_ok=True)
    with atomic_folder(task_dir) as partial:
        partial.mkdir()
        for file in source.iterdir():
            try:
                os.link(file, partial / file.name)
            except OSError:
                shutil.copy2(file, partial / file.name)


def write_joint_data(folder: Path, prepared: PreparedRun) -> None:
    """Write the description of the data of all tasks into the run directory.

    Args:
        folder: Run directory, which has a finished run of each task.
        prepared: Checked run of all tasks.
    """
    splits: dict[str, Any] = {}
    for name in prepared.tasks:
        content = json.loads((task_folder(folder, name) / DATA_FILE).read_text(encoding="utf-8"))
        splits |= {f"{name}, {split}": description for split, description in content["splits"].items()}
    write_json(folder / DATA_FILE, {"splits": splits, "notes": list(prepared.data.notes)})


def joint_metrics(
    metrics: Mapping[str, Mapping[str, Any]], stages: list[Any], prepared: PreparedRun
) -> dict[str, Any]:
    """Return the content of ``metrics.json`` of the whole run, with the metrics of all tasks as ``TASK/METRIC``.

    Args:
        metrics: Content of ``metrics.json`` of each task.
        stages: Results of the stages.
        prepared: Checked run of all tasks.
    """
    run_level_keys = ("stages", "wall_seconds")
    tasks = {
        name: {key: value for key, value in content.items() if key not in run_level_keys}
        for name, content in metrics.items()
    }
    tested_tasks = {name: metrics for name, metrics in tasks.items() if metrics["test"]}
    content: dict[str, Any] = {
        "task": prepared.recipe.task,
        "wall_seconds": 0.0,
        "stages": stages,
        "headline": [name for name in prepared.metric_names if not name.endswith("/loss")],
        "tasks": tasks,
    }
    for key in PER_TASK:
        content[key] = _flatten({name: metrics[key] for name, metrics in tested_tasks.items()})
    content["baselines"] = {}
    for baseline in BASELINES:
        metrics_by_task = {
            name: task_metrics["baselines"][baseline]
            for name, task_metrics in tested_tasks.items()
            if baseline in task_metrics["baselines"]
        }
        if metrics_by_task:
            content["baselines"][baseline] = _flatten(metrics_by_task)
            if len(metrics_by_task) == len(tested_tasks):
                content["baselines"][baseline] |= without_nan({MEAN: _mean(metrics_by_task, prepared.tasks)})
    if tested_tasks:
        mean = _mean({name: metrics["test"] for name, metrics in tested_tasks.items()}, prepared.tasks)
        content["test"] = without_nan({MEAN: mean}) | content["test"]
    return content
