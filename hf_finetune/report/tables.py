"""Rows of the tables of a report: metrics, stages, classes and confusions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from hf_finetune.evaluation.metrics import decide, greater_is_better
from hf_finetune.evaluation.predictions import Predictions
from hf_finetune.report.run_record import RunRecord
from hf_finetune.report.verdict import BASELINES, baseline_name
from hf_finetune.targets import TARGETS
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.unknown_labels import fill_unknown

__all__ = [
    "Bar",
    "ClassRow",
    "class_rows",
    "confusion_rows",
    "metric_rows",
    "primary_metric_bars",
    "stage_rows",
]

MAX_CONFUSIONS = 15
"""Maximum number of confusions in the table."""
LAST_STEPS = 10
"""Number of logged steps over which the final training loss of a stage is averaged."""


@dataclass(frozen=True)
class ClassRow:
    """Test metrics of a class.

    Attributes:
        name: Name of the class.
        train: Number of training examples; None if it is not known.
        test: Number of test examples.
        precision: Fraction of the predictions of this class that are right, in [0, 1].
        recall: Fraction of the examples of this class that are predicted as it, in [0, 1].
        f1: Harmonic mean of precision and recall.
    """

    name: str
    train: int | None
    test: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Bar:
    """Bar of a chart that compares the model with its baselines.

    Attributes:
        name: Name of the model or baseline.
        value: Value of the metric, in [0, 1].
        interval: 95 % interval of the value; None for a baseline.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None


def primary_metric_bars(record: RunRecord) -> list[Bar]:
    """Return the first primary metric of the model and its baselines as bars.

    Returns:
        Bars of the model and of each baseline; empty if lower values are better, there is no interval, or a value is
        outside [0, 1].
    """
    if not record.metric_names:
        return []
    name = record.metric_names[0]
    value, ends = record.metrics["test"].get(name), record.metrics.get("test_interval", {}).get(name)
    if value is None or not ends or not greater_is_better(name):
        return []
    bars = [Bar("this model", value, (ends[0], ends[1]))]
    target = record.predictions.target if record.predictions is not None else None
    for baseline in BASELINES:
        score = record.metrics.get("baselines", {}).get(baseline, {}).get(name)
        if score is not None:
            bars.append(Bar(baseline_name(baseline, target), score))
    bounds = [bound for bar in bars for bound in (bar.value, *(bar.interval or ()))]
    return bars if all(0 <= bound <= 1 for bound in bounds) else []


def metric_rows(record: RunRecord) -> list[dict[str, Any]]:
    """Return a row for each test metric, with its interval and the values of the baselines; primary metrics first."""
    test = record.metrics.get("test", {})
    if not test:
        return []
    names = [*record.metric_names, *(name for name in test if name not in record.metric_names)]
    baselines = record.metrics.get("baselines", {})
    return [
        {
            "name": name,
            "value": test.get(name),
            "interval": record.metrics.get("test_interval", {}).get(name),
            "baselines": [baselines[baseline].get(name) for baseline in BASELINES if baseline in baselines],
            "is_in_recipe": name in record.metric_names,
        }
        for name in names
    ]


def stage_rows(record: RunRecord) -> list[dict[str, Any]]:
    """Return a row for each stage: trained parameters, learning rates, start, duration, losses and validation metric.

    ``start`` and ``share`` (the duration) are fractions of the training time of all stages.
    """
    primary_metric = record.metric_names[0] if record.metric_names else ""
    total_seconds = sum(stage["train_seconds"] for stage in record.metrics["stages"]) or 1.0
    rows: list[dict[str, Any]] = []
    start = 0.0
    for spec, result, log in zip(record.recipe["stages"], record.metrics["stages"], record.logs, strict=True):
        losses = [entry["loss"] for entry in log.steps]
        layers = {layer for layer, _ in log.steps[0].get("learning_rates", ())} if log.steps else set()
        rows.append(
            {
                **result,
                "train": spec["train"] if isinstance(spec["train"], str) else ", ".join(spec["train"]),
                "optimizer": spec["optimizer"]["name"],
                "lr": spec["lr"],
                "fit": result.get("fit"),
                "limit": result.get("limit"),
                "seeds": result.get("seeds", ()),
                "seed_values": _seed_values(result, primary_metric),
                "layer_decay": spec["layer_decay"],
                "groups": len(layers),
                "first_loss": losses[0] if losses else None,
                "last_loss": math.fsum(losses[-LAST_STEPS:]) / len(losses[-LAST_STEPS:]) if losses else None,
                "validation_value": result["validation"].get(primary_metric),
                "start_value": result.get("start", {}).get(primary_metric),
                "trained_value": result.get("trained", {}).get(primary_metric),
                "start": start / total_seconds,
                "share": result["train_seconds"] / total_seconds,
            }
        )
        start += result["train_seconds"]
    return rows


def _seed_values(result: Mapping[str, Any], metric: str) -> list[float]:
    """Return the validation metric of each training of a stage with ``seeds``; empty without a validation split."""
    values = (training["validation"].get(metric) for training in result.get("seeds", ()))
    return [value for value in values if value is not None]


def class_rows(
    predictions: Predictions | None, data: Mapping[str, Any], rule: DecisionRule = DEFAULT_RULE
) -> list[ClassRow]:
    """Return precision, recall and F1 of each class on the test split.

    Args:
        predictions: Predictions for the test split; without any, or without classes, there are no rows.
        data: Content of ``data.json``.
        rule: Rule that decides the classes of multi-label examples.
    """
    if predictions is None or not TARGETS[predictions.target].has_classes:
        return []
    names = predictions.label_names
    decisions = decide(predictions.scores, predictions.target, rule)
    class_metrics = precision_recall_fscore_support(
        *fill_unknown(predictions.labels, decisions),
        labels=np.arange(len(names)),
        average=None,
        zero_division=0,
    )
    counts = data["splits"].get("train", {}).get("classes", {})
    columns = zip(names, *class_metrics, strict=True)
    return [
        ClassRow(name, counts.get(name), int(support), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, support in columns
    ]


def confusion_rows(predictions: Predictions | None) -> list[tuple[str, str, int]]:
    """Return the 15 most frequent confusions, each as label, predicted class and number of examples."""
    if predictions is None or not TARGETS[predictions.target].is_exclusive:
        return []
    names, classes = predictions.label_names, len(predictions.label_names)
    decisions = decide(predictions.scores, predictions.target)
    wrong = predictions.labels != decisions
    pairs, counts = np.unique(predictions.labels[wrong] * classes + decisions[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_CONFUSIONS]
    return [
        (names[pair // classes], names[pair % classes], int(count))
        for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]
