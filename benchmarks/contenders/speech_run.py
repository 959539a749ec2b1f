"""A recipe of speech recognition: test metrics of its model and of the checkpoint before training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run

__all__ = ["measure", "summary"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        The attributes of ``benchmarks.speech.measure.Row`` besides setting and seed.
    """
    recipe = load_recipe(work["recipe"], work["overrides"])
    return summary(run(recipe, Path(work["folder"]) / "run").metrics)


def summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a row besides setting and seed.

    Args:
        metrics: Metrics of a finished run.
    """
    names = tuple(metrics["test_interval"])
    known = {
        row["name"]: {"examples": row["examples"], "wer": row["metrics"]["wer"]}
        for row in metrics.get("slices", {}).get("sentence", {}).get("slices", ())
    }
    stage = metrics["stages"][-1]
    return {
        "utterances": metrics["test_examples"],
        "levels": metrics["test_groups"]["groups"],
        "test": {name: metrics["test"][name] for name in names},
        "intervals": {name: metrics["test_interval"][name] for name in names},
        "untrained": {name: metrics["baselines"]["untrained"][name] for name in names},
        "differences": {name: metrics["baseline_differences"]["untrained"][name] for name in names},
        "validation": {"start": stage["start"]["wer"], "end": stage["validation"]["wer"]},
        "sentences": known,
        "seconds": round(metrics["wall_seconds"], 1),
    }
