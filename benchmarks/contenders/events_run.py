"""A recipe on histories of events: test metrics of its model and of the baselines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score

from hf_finetune.data.recipe_data import load_data
from hf_finetune.recipe.load import load_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.run import run
from hf_finetune.tasks.events.history import parse_history

__all__ = ["measure", "summary"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        The attributes of ``benchmarks.events.measure.Row`` besides setting and seed.
    """
    recipe = load_recipe(work["recipe"], work["overrides"])
    return summary(recipe, run(recipe, Path(work["folder"]) / "run").metrics)


def summary(recipe: Recipe, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a row besides setting and seed.

    Args:
        recipe: Recipe of a finished run.
        metrics: Its metrics.
    """
    test = load_data(recipe).test
    assert test is not None
    labels, recency = test["label"][:], [-(parse_history(text)[0].days or 0.0) for text in test["events"]]
    return {
        "customers": len(labels),
        "positive": sum(labels) / len(labels),
        "test": {name: metrics["test"][name] for name in recipe.metrics},
        "interval": metrics["test_interval"]["roc_auc"],
        "baselines": metrics["baselines"],
        "differences": {name: tested["roc_auc"] for name, tested in metrics["baseline_differences"].items()},
        "recency": float(roc_auc_score(labels, recency)),
    }
