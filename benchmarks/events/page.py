"""The page on the customers of CDNOW: ``docs/cdnow.md``."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from benchmarks.events.measure import DATE, SETTINGS, Row
from benchmarks.kit.compare import signed
from benchmarks.seeds import OF_SEEDS, over_seeds, verdict_of_seeds

__all__ = ["render"]

HEAD = """# CDNOW: results of the recipe for customers

Does a customer buy in the next 13 weeks? The 69,659 purchases of the {customers:,} customers who came to CDNOW, a shop
for music, in the first quarter of 1997, as the package lifetimes carries them. The recipe
[events/buys-again](../recipes/events/buys-again.yaml) trains a small transformer on their histories before 1997-07-01
and tests it on those before {date}; {positive:.1%} of the customers buy in the 13 weeks after that. The customers are
the same, at a later time. Nothing is pretrained: no checkpoint for such events exists. The number of epochs and the
batch size were chosen on the validation split.

`python -m benchmarks.events measure` takes the purchases from the package, runs all experiments and writes this page;
[benchmarks/results/events.json](../benchmarks/results/events.json) has the raw data.

Metrics on the test split, mean over {seeds}. Higher is better for ROC AUC and average precision (mean of both classes),
lower for log loss. *difference*: ROC AUC of the transformer minus that of the line (bootstrap over the test customers),
{of_seeds}.

| model | ROC AUC | average precision | log loss | difference | interval |
|---|---:|---:|---:|---:|---:|
"""
BASELINES = {
    "majority": "same probability for all",
    "rfm": "recency, frequency and amount, logistic regression",
    "rfm_boosting": "recency, frequency and amount, gradient boosting",
}
VERDICTS = {
    "rfm": "the logistic regression of recency, frequency and amount",
    "rfm_boosting": "their gradient boosting",
}
METRICS = ("roc_auc", "mean_average_precision", "log_loss")


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows."""
    first = next((name for name in SETTINGS if any(row.setting == name for row in rows)), "")
    reference = sorted((row for row in rows if row.setting == first), key=lambda row: row.seed)
    if not reference:
        return ""
    lines = []
    for name, title in BASELINES.items():
        tested = [row.differences[name] for row in reference]
        lines.append(_line(title, [row.baselines[name] for row in reference], tested))
        if name == "majority":
            recency = mean(row.recency for row in reference)
            lines.append(f"| recency alone | {recency:.3f} |  |  |  |  |")
    for setting in SETTINGS:
        of = [row for row in rows if row.setting == setting]
        if of:
            lines.append(_line(f"transformer, {setting}, from random weights", [row.test for row in of]))
    seeds = len(reference)
    head = HEAD.format(
        customers=reference[0].customers,
        date=DATE,
        positive=reference[0].positive,
        seeds=f"{seeds} seed{'s' if seeds > 1 else ''}",
        of_seeds=OF_SEEDS,
    )
    return head + "\n".join(lines) + "\n" + _foot(reference)


def _line(
    title: str, metrics: Sequence[Mapping[str, float]], tested: Sequence[Mapping[str, Any]] = ()
) -> str:
    cells = [title, *(f"{mean(values[name] for values in metrics):.3f}" for name in METRICS)]
    if tested:
        difference, low, high = over_seeds(tested)
        cells += [signed(difference), f"{signed(low)} to {signed(high)}"]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def _foot(rows: Sequence[Row]) -> str:
    """Return the verdict: whether the model is shown to be better than the simple ones."""
    scores = [row.test["roc_auc"] for row in rows]
    spread = f" (standard deviation over the seeds {stdev(scores):.4f})" if len(scores) > 1 else ""
    tested = {title: [row.differences[name] for row in rows] for name, title in VERDICTS.items()}
    return (
        f"\nThe transformer is {verdict_of_seeds(tested)}{spread}.\n"
        "With a single kind of event there is little to learn from the order of events; many kinds (clicks, pages, "
        "dishes)\nwere not measured.\n"
    )
