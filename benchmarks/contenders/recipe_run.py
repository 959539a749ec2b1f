"""A recipe on a dataset, and its correct test predictions."""

from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.contenders.small_run import right_by_id
from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        ``right``: whether the prediction is correct for each test example, in the order of the ids. ``seconds``: of the
        whole run.
    """
    start = perf_counter()
    done = run(load_recipe(work["recipe"], work["overrides"]), Path(work["folder"]) / "run")
    return {"seconds": perf_counter() - start, "right": right_by_id(done.folder / "predictions.parquet")}
