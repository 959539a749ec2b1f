"""A recipe, run as on the command line: its test metrics, and the cost of the whole run."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from benchmarks.watch import peak_bytes
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run ``work["recipe"]`` and return its test metrics, labels, and correct predictions, sorted by example id.

    ``work["task"]`` is the name of one of several tasks, or None.
    """
    recipe = parse_recipe(work["recipe"])
    start = perf_counter()
    done = run(recipe, Path(work["folder"]) / "run")
    seconds = perf_counter() - start
    task = work["task"]
    folder = done.folder / "tasks" / task if task else done.folder
    prefix = f"{task}/" if task else ""
    labels, right = _judged(folder / "predictions.parquet")
    return {
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "test": {
            name.removeprefix(prefix): value
            for name, value in done.metrics["test"].items()
            if name.startswith(prefix)
        },
        "labels": labels.tolist(),
        "right": right.tolist(),
    }


def _judged(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = parquet.read_table(path, columns=["id", "label", "prediction"]).sort_by("id")
    labels = np.asarray(table["label"].to_pylist())
    return labels, labels == np.asarray(table["prediction"].to_pylist())
