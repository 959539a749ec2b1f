"""End of a run: save the model, evaluate it as other programs will load it, and write the report."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.publishing.card import write_card
from hf_finetune.report.page import write_report
from hf_finetune.runs.compression import compare_sizes
from hf_finetune.runs.folder import write_manifest
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.results import evaluate_run, finish_model, write_data
from hf_finetune.runs.tasks import (
    joint_metrics,
    task_folder,
    task_inputs,
    task_model,
    task_stage_result,
    write_joint_data,
    write_task_run,
)
from hf_finetune.runs.weights import load_stage_weights
from hf_finetune.tasks import Inputs
from hf_finetune.training.manifest import Manifest, write_json

__all__ = ["save_and_evaluate", "write_results"]


def save_and_evaluate(
    prepared: PreparedRun,
    inputs: Inputs,
    manifest: Manifest,
    folder: Path,
    state: PartialState,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Save the model of the last stage, evaluate it, and write ``predictions.parquet``, for each task.

    Args:
        prepared: Checked run.
        inputs: Examples as model inputs.
        manifest: Progress of the run, whose stages are done.
        folder: Run directory.
        state: State of the process: its rank, the number of processes, and the device.
        progress: Callback that receives the number of test examples predicted so far.

    Returns:
        The content of ``metrics.json``.
    """
    # read from the disk: the model of the last stage in memory may be sharded, or compiled
    model = load_stage_weights(prepared, folder, len(prepared.recipe.stages))
    stages = [record.result for record in manifest.stages]
    finish = partial(
        _save_and_evaluate_task, pretraining=manifest.pretraining, device=state.device, progress=progress
    )
    if not prepared.is_joint:
        return finish(model, prepared, inputs, stages, folder)
    metrics: dict[str, dict[str, Any]] = {}
    for name, task in prepared.tasks.items():
        task_stages = [task_stage_result(name, stage) for stage in stages]
        run_folder = task_folder(folder, name)
        single_model = task_model(model, name, task)
        metrics[name] = finish(single_model, task, task_inputs(task), task_stages, run_folder)
        write_task_run(folder, name, task, metrics[name], prepared, manifest)
    write_joint_data(folder, prepared)
    return joint_metrics(metrics, stages, prepared)


def _save_and_evaluate_task(
    model: PreTrainedModel,
    prepared: PreparedRun,
    inputs: Inputs,
    stages: list[Any],
    folder: Path,
    *,
    pretraining: Mapping[str, Any] | None,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Save and evaluate the model of one task, and return the content of its ``metrics.json``."""
    metrics: dict[str, Any] = {"task": prepared.recipe.task, "wall_seconds": 0.0, "stages": stages}
    if pretraining:
        metrics["pretraining"] = pretraining["result"]
    write_data(prepared, folder)
    metrics |= finish_model(model, prepared, folder)
    modes = [ExecutionMode(**stage["speed"]) for stage in stages]
    metrics |= evaluate_run(prepared, inputs, folder, modes, device, progress)
    metrics |= compare_sizes(prepared, inputs, folder, metrics["test"])
    return metrics


def write_results(
    prepared: PreparedRun, metrics: Mapping[str, Any], manifest: Manifest, folder: Path, state: PartialState
) -> None:
    """Write the metrics, the report and the model card, and mark the run as done.

    Args:
        prepared: Checked run.
        metrics: Content of ``metrics.json``.
        manifest: Progress of the run.
        folder: Run directory.
        state: State of the process: its rank, the number of processes, and the device.
    """
    write_json(folder / "metrics.json", metrics)
    if prepared.save_format == "adapter":
        shutil.rmtree(folder / "model")
    write_manifest(manifest, folder, state)
    write_report(folder)
    if prepared.save_format != "adapter" and not prepared.is_joint:
        write_card(folder)
