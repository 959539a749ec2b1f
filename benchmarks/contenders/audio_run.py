"""A recipe on recordings in groups: correct test predictions of its model and of the baselines."""

from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.contenders.small_run import right_by_id
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        ``model``, ``majority`` and ``log_mel``: whether the prediction is correct for each test
        example, in the order of the ids. ``kits``: their groups. ``seconds``: of the whole run.
    """
    start = perf_counter()
    done = run(load_recipe(work["recipe"], work["overrides"]), Path(work["folder"]) / "run")
    seconds = perf_counter() - start
    predictions = done.folder / "predictions.parquet"
    baselines = {
        name: right_by_id(done.folder / "baselines" / f"{name}.parquet") for name in ("majority", "log_mel")
    }
    stored = read_predictions(predictions)
    order = sorted(range(len(stored.ids)), key=stored.ids.__getitem__)
    groups = [(stored.groups or ())[row] for row in order]
    return {"seconds": seconds, "model": right_by_id(predictions), "kits": groups, **baselines}
