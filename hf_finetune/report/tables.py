"""What the tables of a report show, row by row: metrics, stages, classes and confusions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from hf_finetune.evaluation.metrics import decide, greater_is_better
from hf_finetune.evaluation.predictions import Predictions
from hf_finetune.evaluation.unknown_labels import fill_unknown
from hf_finetune.report.run_record import RunRecord
from hf_finetune.report.verdict import BASELINES

__all__ = ["Bar", "ClassRow", "class_rows", "confusion_rows", "headline_bars", "metric_rows", "stage_rows"]

CONFUSIONS = 15
LAST = 10
"""Logged steps whose mean loss is what a stage ends with."""


@dataclass(frozen=True)
class ClassRow:
    """How well a class is recognised.

    Attributes:
        name: The class.
        train: Its training examples; None if that is not known.
        test: Its test examples.
        precision: Share of the answers of this class that are right.
        recall: Share of its examples that are found.
        f1: Harmonic mean of the two.
    """

    name: str
    train: int | None
    test: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Bar:
    """A value between 0 and 1 that is shown beside others.

    Attributes:
        name: What has it.
        value: The value.
        interval: Its 95 % interval; None for a baseline.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None


def headline_bars(record: RunRecord) -> list[Bar]:
    """Give the first metric of the model and of the baselines; nothing if it has no interval or is no share."""
    if not record.headline:
        return []
    name = record.headline[0]
    value, ends = record.metrics["test"].get(name), record.metrics.get("test_interval", {}).get(name)
    if value is None or not ends or not greater_is_better(name):
        return []
    bars = [Bar("this model", value, (ends[0], ends[1]))]
    for baseline, said in BASELINES.items():
        found = record.metrics.get("baselines", {}).get(baseline, {}).get(name)
        if found is not None:
            bars.append(Bar(said, found))
    shares = [share for bar in bars for share in (bar.value, *(bar.interval or ()))]
    return bars if all(0 <= share <= 1 for share in shares) else []


def metric_rows(record: RunRecord) -> list[dict[str, Any]]:
    """Give each test metric with its interval and those of the baselines; the headline first."""
    test = record.metrics.get("test", {})
    if not test:
        return []
    names = [*record.headline, *(name for name in test if name not in record.headline)]
    baselines = record.metrics.get("baselines", {})
    return [
        {
            "name": name,
            "value": test.get(name),
            "interval": record.metrics.get("test_interval", {}).get(name),
            "baselines": [baselines[each].get(name) for each in BASELINES if each in baselines],
            "headline": name in record.headline,
        }
        for name in names
    ]


def stage_rows(record: RunRecord) -> list[dict[str, Any]]:
    """Give of each stage what was trained, at which rates, when and for how long, and what came of it."""
    headline = record.headline[0] if record.headline else ""
    whole = sum(stage["train_seconds"] for stage in record.metrics["stages"]) or 1.0
    rows: list[dict[str, Any]] = []
    start = 0.0
    for spec, found, log in zip(record.recipe["stages"], record.metrics["stages"], record.logs, strict=True):
        losses = [each["loss"] for each in log.steps]
        layers = {layer for layer, _ in log.steps[0].get("learning_rates", ())} if log.steps else set()
        rows.append(
            {
                **found,
                "train": spec["train"] if isinstance(spec["train"], str) else ", ".join(spec["train"]),
                "optimizer": spec["optimizer"]["name"],
                "lr": spec["lr"],
                "fit": found.get("fit"),
                "layer_decay": spec["layer_decay"],
                "groups": len(layers),
                "first_loss": losses[0] if losses else None,
                "last_loss": math.fsum(losses[-LAST:]) / len(losses[-LAST:]) if losses else None,
                "validation_value": found["validation"].get(headline),
                "start_value": found.get("start", {}).get(headline),
                "trained_value": found.get("trained", {}).get(headline),
                "start": start / whole,
                "share": found["train_seconds"] / whole,
            }
        )
        start += found["train_seconds"]
    return rows


def class_rows(
    predictions: Predictions | None, data: Mapping[str, Any], thresholds: Mapping[str, float] | None = None
) -> list[ClassRow]:
    """Give precision, recall and F1 of each class that occurs in the test split or among the answers.

    Args:
        predictions: Of the test split; None gives no rows.
        data: The content of ``data.json``.
        thresholds: Of multi-label data, by class.
    """
    if predictions is None or predictions.target == "regression":
        return []
    names = predictions.label_names
    chosen = tuple(thresholds[name] for name in names) if thresholds else None
    decisions = decide(predictions.scores, predictions.target, chosen)
    found = precision_recall_fscore_support(
        *fill_unknown(predictions.labels, decisions),
        labels=np.arange(len(names)),
        average=None,
        zero_division=0,
    )
    counts = data["splits"].get("train", {}).get("classes", {})
    columns = zip(names, *found, strict=True)
    return [
        ClassRow(name, counts.get(name), int(support), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, support in columns
    ]


def confusion_rows(predictions: Predictions | None) -> list[tuple[str, str, int]]:
    """Give the pairs of classes that are confused most often: label, answer, how often."""
    if predictions is None or predictions.target != "single_label":
        return []
    names, classes = predictions.label_names, len(predictions.label_names)
    decisions = decide(predictions.scores, predictions.target)
    wrong = predictions.labels != decisions
    pairs, counts = np.unique(predictions.labels[wrong] * classes + decisions[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSIONS]
    return [
        (names[pair // classes], names[pair % classes], int(count))
        for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]
