"""Predictions of a run as a Parquet file, with labels and probabilities."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from hf_finetune.data.slices import GROUP, SLICE
from hf_finetune.errors import MAX_LISTED_PROBLEMS, InputError, Problem, join_quoted
from hf_finetune.evaluation.prediction_columns import (
    LABEL_MIDDLE_RANK,
    LABEL_PROBABILITY,
    LABEL_RANK,
    PROBABILITY,
    TOP_CLASSES,
    TOP_PROBABILITIES,
)
from hf_finetune.files import atomic_file
from hf_finetune.targets import TARGETS
from hf_finetune.targets import Target as Kind
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.decisions import decide
from hf_finetune.targets.labels import UNKNOWN, TargetName
from hf_finetune.targets.top_scores import MANY_CLASSES, Scores, TopScores, keep_top
from hf_finetune.targets.unknown_labels import has_unknown, is_known
from hf_finetune.tasks.installed import register_installed

__all__ = ["BASELINE_FOLDER", "Predictions", "read_predictions", "write_predictions"]

BASELINE_FOLDER = "baselines"
"""Folder of a run with the predictions of its baselines."""

CLASSES = "classes"
"""Key of the file metadata with the class names in order, as JSON, if there is no column for each class."""
TARGET = "target"
"""Key of the file metadata with the label type, if the type of the label column is ambiguous."""


@dataclass(frozen=True)
class Predictions:
    """Labels and scores of examples, in the form that metrics take.

    Attributes:
        ids: Id of each example.
        labels: Class indices [examples], zeros and ones [examples, classes], or regression targets [examples].
        scores: Probabilities [examples, classes], only the highest of them (``TopScores``), or regression predictions
            [examples].
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        label_names: Class names in the order of the model; ``("label",)`` for regression.
        groups: Group of each example, for grouped resampling; None if the data has no groups.
        group_column: Column of the data that contains the groups.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    scores: Scores
    target: TargetName
    label_names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    group_column: str | None = None


def write_predictions(
    path: Path,
    predictions: Predictions,
    rule: DecisionRule = DEFAULT_RULE,
    slices: Mapping[str, Sequence[str]] | None = None,
    probabilities: Literal["top", "all"] = "top",
) -> None:
    """Write predictions with the columns id, label, prediction, a probability for each class, slices and groups.

    Labels and predictions are class names, lists of them (multi_label), or numbers (regression, which has no
    probability columns). The probabilities of a class ``soup`` are in ``probability:soup``. If any labels are unknown,
    the column ``unknown`` lists their classes.

    With more than 200 classes only the 20 most probable of each example are written, unless ``probabilities`` is
    ``all``: in ``top_classes`` and ``top_probabilities``, and for single-label data ``label_probability`` and
    ``label_rank``, from which log loss and top-k accuracy are computed. The file metadata then contains the class
    names.

    Args:
        path: File to write, in an existing folder.
        predictions: Labels and scores; the groups, if there are any, are written to ``group:NAME``.
        rule: Rule that decides the classes of multi-label examples.
        slices: Slice of each example, by column; written to ``slice:NAME``.
        probabilities: Probabilities to write if there are more than 200 classes.

    Raises:
        ValueError: If ids, labels and scores differ in length.
    """
    ids, labels, scores = predictions.ids, predictions.labels, predictions.scores
    label_names, kind = predictions.label_names, TARGETS[predictions.target]
    if not len(ids) == len(labels) == len(scores):
        raise ValueError(
            f"ids, labels and scores must have the same length. Got {len(ids)}, {len(labels)}, {len(scores)}."
        )
    decisions = decide(scores, predictions.target, rule)
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array([kind.decode(label, label_names) for label in labels], kind.arrow_type),
        "prediction": pa.array([kind.decode(row, label_names) for row in decisions], kind.arrow_type),
    }
    top_scores = None
    if isinstance(scores, TopScores):
        top_scores = scores
    elif kind.has_classes and len(label_names) > MANY_CLASSES and probabilities == "top":
        top_scores = keep_top(scores, labels, decisions)
    if top_scores is not None:
        columns |= _top_columns(top_scores, label_names)
    elif kind.has_classes:
        columns |= {
            PROBABILITY + name: pa.array(column, pa.float64())
            for name, column in zip(label_names, scores.T, strict=True)
        }
    else:
        columns |= {name: pa.array(values) for name, values in kind.stored_columns(labels, scores).items()}
    if has_unknown(labels):
        names = [[label_names[index] for index in np.flatnonzero(~row)] for row in is_known(labels)]
        columns[UNKNOWN] = pa.array(names, pa.list_(pa.string()))
    columns |= {SLICE + name: pa.array(values, pa.string()) for name, values in (slices or {}).items()}
    if predictions.groups is not None:
        columns[f"{GROUP}{predictions.group_column}"] = pa.array(predictions.groups, pa.string())
    with atomic_file(Path(path)) as temporary:
        metadata = {}
        if top_scores is not None:
            metadata[CLASSES] = json.dumps(list(label_names))
        if _default_target_for(kind.arrow_type) is not kind:
            metadata[TARGET] = kind.name
        table = pa.table(columns)
        pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, temporary)


def _top_columns(scores: TopScores, label_names: Sequence[str]) -> dict[str, pa.Array]:
    examples, top = scores.indices.shape
    ends = np.arange(0, examples * top + 1, top, dtype=np.int32)
    names = pa.DictionaryArray.from_arrays(
        pa.array(scores.indices.ravel().astype(np.int32)), pa.array(list(label_names), pa.string())
    ).cast(pa.string())
    columns = {
        TOP_CLASSES: pa.ListArray.from_arrays(ends, names),
        TOP_PROBABILITIES: pa.ListArray.from_arrays(ends, pa.array(scores.values.ravel(), pa.float64())),
    }
    if scores.label_probabilities is not None:
        columns |= {
            LABEL_PROBABILITY: pa.array(scores.label_probabilities),
            LABEL_RANK: pa.array(scores.ranks, pa.int32()),
        }
        if scores.middle_ranks is not None:
            columns[LABEL_MIDDLE_RANK] = pa.array(scores.middle_ranks, pa.float64())
    return columns


def read_predictions(path: Path) -> Predictions:
    """Read a file that ``write_predictions`` wrote.

    Args:
        path: Parquet file.

    Returns:
        The predictions.

    Raises:
        InputError: If there is no such file, or if it is not a file of predictions.
    """
    register_installed()
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(Problem(str(path), "must be a Parquet file of predictions", str(error))) from error
    if table.column_names[:3] != ["id", "label", "prediction"]:
        columns = join_quoted(table.column_names, MAX_LISTED_PROBLEMS)
        raise InputError(Problem(str(path), "must begin with the columns id, label and prediction", columns))
    predictions = _predictions_of(table)
    for name in table.column_names:
        if name.startswith(GROUP):
            groups = tuple(table[name].to_pylist())
            return replace(predictions, groups=groups, group_column=name.removeprefix(GROUP))
    return predictions


def _default_target_for(label_type: pa.DataType) -> Kind:
    """Return the label type of a file that does not state it: the first one with this type of the label column."""
    return next(kind for kind in TARGETS.values() if kind.arrow_type == label_type)


def _predictions_of(table: pa.Table) -> Predictions:
    ids, labels = tuple(table["id"].to_pylist()), table["label"].to_pylist()
    metadata = table.schema.metadata or {}
    declared = metadata.get(TARGET.encode())
    kind = TARGETS[declared.decode()] if declared else _default_target_for(table.schema.field("label").type)
    scores: Scores
    if not kind.has_classes:
        columns = {name: table[name].to_pylist() for name in table.column_names}
        encoded, scores = kind.restored(labels, columns["prediction"], columns)
        names = kind.output_names(encoded, None)
        return Predictions(ids, kind.label_array(encoded, len(names)), scores, kind.name, names)
    names = tuple(
        name.removeprefix(PROBABILITY) for name in table.column_names if name.startswith(PROBABILITY)
    )
    if TOP_CLASSES in table.column_names:
        names = tuple(json.loads(metadata[CLASSES.encode()]))
        scores = _top_scores_of(table, names, kind)
    else:
        scores = np.stack([table[PROBABILITY + name].to_numpy() for name in names], axis=1)
    unknown = _indices(table[UNKNOWN].to_pylist(), names) if UNKNOWN in table.column_names else None
    rows = kind.label_array(_indices(labels, names), len(names), unknown)
    return Predictions(ids, rows, scores, kind.name, names)


def _top_scores_of(table: pa.Table, names: Sequence[str], kind: Kind) -> TopScores:
    examples, order = table.num_rows, pa.array(list(names), pa.string())

    def class_indices(column: pa.ChunkedArray) -> np.ndarray:
        positions: np.ndarray = compute.index_in(column.combine_chunks(), value_set=order).to_numpy(
            zero_copy_only=False
        )
        return positions.astype(np.int64)

    indices = class_indices(compute.list_flatten(table[TOP_CLASSES])).reshape(examples, -1)
    values = compute.list_flatten(table[TOP_PROBABILITIES]).to_numpy().reshape(examples, -1)
    decisions = kind.label_array(_indices(table["prediction"].to_pylist(), names), len(names))
    if not kind.is_exclusive:
        return TopScores(len(names), indices, values, decisions)
    label_probabilities, ranks = (
        table[LABEL_PROBABILITY].to_numpy(),
        table[LABEL_RANK].to_numpy().astype(np.int64),
    )
    middle = table[LABEL_MIDDLE_RANK].to_numpy() if LABEL_MIDDLE_RANK in table.column_names else None
    return TopScores(len(names), indices, values, decisions, label_probabilities, ranks, middle)


def _indices(labels: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return the index of each class name, or the indices of each list of them."""
    index_of = {name: index for index, name in enumerate(names)}
    return [
        [index_of[name] for name in label] if isinstance(label, list) else index_of[label] for label in labels
    ]
