"""Finished run, read from its directory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.metrics import default_metrics
from hf_finetune.evaluation.predictions import Predictions, read_predictions
from hf_finetune.files import is_valid_path
from hf_finetune.recipe.model import model_title
from hf_finetune.targets.decision_rule import DecisionRule

__all__ = ["DATA_FILE", "ERRORS_FILE", "SEARCH_FILE", "RunRecord", "StageLog", "listed_metrics", "read_run"]

SEARCH_FILE = "search/result.json"
"""File of a run with the trials of the search that selected its recipe, and the score that was expected."""
DATA_FILE = "data.json"
"""File of a run with counts of examples and notes on the data."""
ERRORS_FILE = "mistakes.json"
"""File of a run with its most confident errors."""


@dataclass(frozen=True)
class StageLog:
    """Training log of a stage.

    Attributes:
        steps: ``step``, ``epoch``, ``loss`` and learning rates of each logged step.
        evaluations: ``step``, ``epoch`` and ``eval_...`` metrics of each evaluation.
    """

    steps: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class RunRecord:
    """Finished run.

    Attributes:
        name: Name of the run directory.
        recipe: Recipe with all defaults filled in.
        manifest: Content of ``manifest.json``.
        metrics: Content of ``metrics.json``.
        metric_names: Names of the metrics of the recipe, which are shown first.
        logs: Training log of each stage.
        predictions: Predictions for the test split; None if there is none.
        data: Content of ``data.json``: numbers of examples in each split and class, and notes on the data.
        mistakes: Content of ``mistakes.json``.
        search: Content of ``search/result.json``: the search that selected the recipe; empty if there was none.
    """

    name: str
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    metric_names: tuple[str, ...]
    logs: tuple[StageLog, ...]
    predictions: Predictions | None
    data: Mapping[str, Any]
    mistakes: Sequence[Mapping[str, Any]]
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> DecisionRule:
        """Rule that decides the classes of multi-label examples."""
        names = self.predictions.label_names if self.predictions is not None else ()
        top_k = (self.recipe.get("evaluation") or {}).get("top_k")
        return DecisionRule.of_run(self.metrics.get("thresholds"), names, top_k)

    @property
    def model_title(self) -> str:
        """Checkpoint, or a description of the new model."""
        return model_title(self.recipe["model"])

    @property
    def is_pretrained(self) -> bool:
        """Whether the model began with the weights of a checkpoint."""
        return self.recipe["model"].get("new") is None


def read_run(folder: Path) -> RunRecord:
    """Read a finished run from its directory.

    Args:
        folder: Run directory.

    Returns:
        Recipe, metrics, logs, predictions and errors of the run.

    Raises:
        InputError: If the folder is not a run, or the run is not finished.
    """
    if not is_valid_path(folder):
        raise InputError(Problem(str(folder), "must be a run directory", "an invalid folder name"))
    manifest = _json(folder / "manifest.json")
    if not isinstance(manifest, dict):
        value = "a folder without manifest.json" if folder.is_dir() else "a folder that does not exist"
        raise InputError(Problem(str(folder), "must be a run directory", value))
    metrics = _json(folder / "metrics.json")
    if manifest.get("state") != "done" or not isinstance(metrics, dict):
        repair = f"Finish it: hf-finetune run {folder / 'recipe.yaml'} --output-dir {folder} --resume."
        raise InputError(Problem(str(folder), "must be a finished run", str(manifest.get("state")), repair))
    file = folder / "predictions.parquet"
    predictions = read_predictions(file) if file.is_file() else None
    recipe = manifest["recipe"]
    return RunRecord(
        name=folder.resolve().name,
        recipe=recipe,
        manifest=manifest,
        metrics=metrics,
        metric_names=listed_metrics(recipe, metrics),
        logs=tuple(
            _log(folder / "stages" / f"{number:02d}-{stage['name']}")
            for number, stage in enumerate(manifest["stages"], 1)
        ),
        predictions=predictions,
        data=_json(folder / DATA_FILE) or {"splits": {}, "notes": []},
        mistakes=_json(folder / ERRORS_FILE) or [],
        search=_json(folder / SEARCH_FILE) or {},
    )


def listed_metrics(recipe: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the test metrics that a run shows first, the primary one before the others.

    Args:
        recipe: Recipe with all defaults filled in.
        metrics: Content of ``metrics.json``.

    Returns:
        Metrics of the recipe, else the default ones of the label type; none of a run without a test split.
    """
    target = metrics.get("target")
    names = metrics.get("headline") or recipe.get("metrics") or (default_metrics(target) if target else ())
    return tuple(name for name in names if name != "loss")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _log(stage: Path) -> StageLog:
    """Return the log of a stage; of several trainings, that of the first one."""
    paths = [stage / "log.jsonl", stage / "seed-1" / "log.jsonl"]
    path = next((path for path in paths if path.is_file()), paths[0])
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines]
    return StageLog(
        tuple(entry for entry in entries if "loss" in entry),
        tuple(entry for entry in entries if any(name.startswith("eval_") for name in entry)),
    )
