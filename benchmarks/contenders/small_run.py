"""A shipped recipe on a small dataset: validation metrics of its last stage, and its correct test predictions."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow.parquet as parquet

from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run

__all__ = ["measure", "right_by_id"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        ``start`` and ``trained``: ``accuracy`` and ``loss`` on the validation split before the last stage, and at its
        best epoch. ``training`` and ``validation``: numbers of examples. ``right`` and ``features_right``: whether the
        prediction of the model, and of the linear probe, is correct for each test example, in the order of the ids.
        ``seconds``: of the whole run.
    """
    began = perf_counter()
    done = run(load_recipe(work["recipe"], work["overrides"]), Path(work["folder"]) / "run")
    seconds = perf_counter() - began
    last = done.metrics["stages"][-1]
    trained = last.get(
        "trained", last["validation"]
    )  # if the initial weights are kept, the best epoch is recorded separately
    splits = json.loads((done.folder / "data.json").read_text(encoding="utf-8"))["splits"]
    return {
        "seconds": seconds,
        "start": {name: last["start"][name] for name in ("accuracy", "loss")},
        "trained": {name: trained[name] for name in ("accuracy", "loss")},
        "training": splits["train"]["examples"],
        "validation": splits["validation"]["examples"],
        "right": right_by_id(done.folder / "predictions.parquet"),
        "features_right": right_by_id(done.folder / "baselines" / "linear_probe.parquet"),
    }


def right_by_id(path: Path) -> list[bool]:
    """Return whether each prediction of a table is correct, in the order of the ids."""
    table = parquet.read_table(path, columns=["id", "label", "prediction"]).sort_by("id")
    pairs = zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)
    return [label == prediction for label, prediction in pairs]
