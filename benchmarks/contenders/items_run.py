"""A recipe for recommendation: test metrics of its model and of the other recommenders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_finetune.data.recipe_data import load_data
from hf_finetune.recipe.load import load_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.run import run
from hf_finetune.tasks.items.new_model import item_vocabulary

__all__ = ["measure", "summary"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        The attributes of ``benchmarks.items.measure.Row`` besides setting and seed.
    """
    recipe = load_recipe(work["recipe"], work["overrides"])
    return summary(recipe, run(recipe, Path(work["folder"]) / "run").metrics)


def summary(recipe: Recipe, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a row besides setting and seed.

    Args:
        recipe: Recipe of a finished run.
        metrics: Its metrics.
    """
    data = load_data(recipe)
    assert data.test is not None
    known = set(item_vocabulary(data.train))
    labels = [data.label_names[index] for index in data.test["label"]]
    return {
        "items": len(data.label_names),
        "examples": len(labels),
        "new": sum(label not in known for label in labels),
        "validation": metrics["stages"][-1]["validation"],
        "test": {name: metrics["test"][name] for name in recipe.metrics},
        "interval": {name: metrics["test_interval"][name] for name in recipe.metrics},
        "baselines": metrics["baselines"],
        "differences": metrics["baseline_differences"],
    }
