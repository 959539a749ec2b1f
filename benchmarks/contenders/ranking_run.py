"""A recipe for the ranking of texts: test metrics of its model and of the baselines."""

from pathlib import Path
from time import perf_counter
from typing import Any

from hf_finetune.data.recipe_data import load_data
from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        The attributes of ``benchmarks.ranking.measure.Row`` besides setting and seed.
    """
    start, recipe = perf_counter(), load_recipe(work["recipe"], work["overrides"])
    metrics = run(recipe, Path(work["folder"]) / "run").metrics
    seconds = perf_counter() - start
    test = load_data(recipe).test
    assert test is not None
    return {
        "queries": len(set(test["query"][:])),
        "pairs": len(test),
        "test": {name: metrics["test"][name] for name in recipe.metrics},
        "interval": {name: metrics["test_interval"][name] for name in recipe.metrics},
        "baselines": metrics["baselines"],
        "differences": metrics["baseline_differences"],
        "seconds": seconds,
    }
