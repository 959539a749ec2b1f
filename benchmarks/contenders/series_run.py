"""A recipe for time series: test metrics of its model, or of the mean of several, and of other forecasts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_finetune.data.recipe_data import load_data
from hf_finetune.evaluation.compare import paired_difference
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics
from hf_finetune.evaluation.predictions import BASELINE_FOLDER, Predictions, read_predictions
from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run
from hf_finetune.targets.forecast import Forecast
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices

__all__ = ["measure", "summary"]

METRICS = Forecast.default_metrics


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]`` for each of ``work["seeds"]``.

    With ``work["pretraining"]``, the overrides of a run on other data, its model is the checkpoint: first the head is
    trained alone, then all layers.

    Returns:
        The attributes of ``benchmarks.series.measure.Row`` besides setting and seed.
    """
    folder, seconds = Path(work["folder"]), 0.0
    runs: list[Path] = []
    for seed in work["seeds"]:
        overrides = [*work["overrides"], f"seed={seed}"]
        if runs:
            overrides.append("evaluation.linear_probe=null")  # the baselines are those of the first run
        if work["pretraining"]:
            seconds += _train(
                work["recipe"], [*work["pretraining"], f"seed={seed}"], folder / f"pretraining-{seed}"
            )
            checkpoint = folder / f"pretraining-{seed}" / "model"
            overrides += [f"model={checkpoint}", f"stages={_two_stages(work['recipe'])}"]
        runs.append(folder / f"run-{seed}")
        seconds += _train(work["recipe"], overrides, runs[-1])
    data = load_data(load_recipe(work["recipe"], [*work["overrides"]]))
    return {**summary(runs), "windows": len(data.train), "seconds": seconds}


def _two_stages(recipe: str) -> list[dict[str, Any]]:
    """Return the stages of fine-tuning: those of the recipe after one epoch of the head alone."""
    (stage,) = load_recipe(recipe, []).model_dump(mode="json")["stages"]
    common = {name: stage[name] for name in ("lr", "warmup", "batch_size")}
    return [
        {"name": "head", "train": "head", "epochs": 1, **common},
        {"name": "all", "train": "all", "epochs": stage["epochs"], **common},
    ]


def _train(recipe: str, overrides: Sequence[str], folder: Path) -> float:
    metrics = run(load_recipe(recipe, overrides), folder).metrics
    return sum(stage["train_seconds"] for stage in metrics["stages"])


def summary(runs: Sequence[Path]) -> dict[str, Any]:
    """Return the attributes of a row that follow from the files of finished runs.

    Args:
        runs: Run directories, the first of which has the baselines.
    """
    first = read_predictions(runs[0] / "predictions.parquet")
    mean = np.mean(
        [np.asarray(read_predictions(each / "predictions.parquet").scores) for each in runs], axis=0
    )
    model = _examples(first, mean)
    baselines = {
        path.stem: _examples(first, np.asarray(read_predictions(path).scores))
        for path in sorted((runs[0] / BASELINE_FOLDER).glob("*.parquet"))
    }
    return {
        "series": len(first.ids),
        "validation": float(
            np.mean([_json(each / "metrics.json")["stages"][-1]["validation"]["mase"] for each in runs])
        ),
        "test": compute_metrics(METRICS, model),
        "interval": {name: list(found or ()) for name, found in intervals(METRICS, model, seed=0).items()},
        "baselines": {name: compute_metrics(METRICS, examples) for name, examples in baselines.items()},
        "differences": {
            name: {metric: _difference(metric, examples, model) for metric in METRICS}
            for name, examples in baselines.items()
        },
    }


def _examples(predictions: Predictions, scores: np.ndarray) -> ScoredExamples:
    examples = ScoredExamples(predictions.labels, scores, predictions.target)
    return replace(examples, groups=group_indices(predictions.groups))


def _difference(metric: str, baseline: ScoredExamples, model: ScoredExamples) -> Mapping[str, Any]:
    found = paired_difference(metric, baseline, model, seed=0)
    return {
        "difference": found.value - found.first,
        "interval": list(found.interval or ()),
        "verdict": found.verdict,
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
