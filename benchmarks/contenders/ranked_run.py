"""A multi-label recipe: set metrics of each test example, of its model and of the baselines."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.evaluation.registry import find_metric
from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run
from hf_finetune.targets.decision_rule import DecisionRule
from hf_finetune.targets.metric import NO_SETTINGS
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``, whose ``evaluation.top_k`` is ``work["top_k"]``.

    Returns:
        ``values``: each of ``work["metrics"]`` of each test example, by the name of the model or the baseline.
        ``seconds``: of the whole run.
    """
    start = perf_counter()
    done = run(load_recipe(work["recipe"], work["overrides"]), Path(work["folder"]) / "run")
    seconds = perf_counter() - start
    tables = {"model": done.folder / "predictions.parquet"}
    tables |= {path.stem: path for path in (done.folder / "baselines").glob("*.parquet")}
    rule = DecisionRule(top_k=work["top_k"])
    return {
        "seconds": seconds,
        "values": {name: _values(path, work["metrics"], rule) for name, path in tables.items()},
    }


def _values(path: Path, metrics: list[str], rule: DecisionRule) -> dict[str, list[float]]:
    stored = read_predictions(path)
    order = np.argsort(stored.ids)
    examples = ScoredExamples(stored.labels, stored.scores, stored.target, rule)[order]
    values = {}
    for name in metrics:
        metric = find_metric(name, NO_SETTINGS, stored.target)
        assert metric is not None and metric.per_example is not None
        values[name] = [round(float(value), 3) for value in metric.per_example(examples)]
    return values
