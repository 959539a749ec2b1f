"""Queries with candidates: tables with one row per query are split into one row per pair."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import InputError, Problem, counted
from hf_finetune.tasks.columns import ColumnRole, is_string
from hf_finetune.tasks.examples import JoinedRows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["LABEL_NAMES", "holds_lists", "join_lists"]

LABEL_NAMES = ("label", "labels", "relevance", "relevant", "grade", "score")
"""Usual names of the column of the relevance, in lower case."""


def holds_lists(feature: Any) -> bool:
    """Return whether a column contains lists of texts.

    Args:
        feature: Feature type of the column.
    """
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return inner is not None and is_string(inner)


def join_lists(
    splits: "Mapping[str, Dataset]", roles: Sequence[ColumnRole], columns: Mapping[str, Any]
) -> JoinedRows | None:
    """Return one row for each candidate of a table with one row per query, whose candidates and labels are lists.

    Args:
        splits: Tables as loaded.
        roles: Roles of the query and the candidate.
        columns: Column names by role, as in a recipe.

    Returns:
        The pairs; None if the candidates are not lists.

    Raises:
        InputError: If a query has not as many labels as candidates.
    """
    query, candidate = roles
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
    text = columns.get(candidate.name) or _usual(train, candidate.usual_names)
    if not isinstance(text, str) or text not in train.column_names or not holds_lists(train.features[text]):
        return None
    asked = columns.get(query.name) or _usual(train, query.usual_names)
    label = columns.get("label") or _usual(train, LABEL_NAMES)
    if not isinstance(asked, str) or asked not in train.column_names or not isinstance(label, str):
        return None
    pairs = {split: _pairs(split, dataset, asked, text, label) for split, dataset in splits.items()}
    note = f"{counted(len(train), 'query', 'queries')} of train with lists: {len(pairs['train']):,} pairs."
    return JoinedRows(pairs, {query.name: asked, candidate.name: text, "label": label}, {}, notes=(note,))


def _usual(dataset: "Dataset", names: Sequence[str]) -> str | None:
    """Return the only column with a usual name; None if there are none or several."""
    found = [name for name in dataset.column_names if name.lower() in names]
    return found[0] if len(found) == 1 else None


def _pairs(split: str, dataset: "Dataset", query: str, candidate: str, label: str) -> "Dataset":
    """Return one row for each candidate; the other columns are repeated."""
    from datasets import Dataset

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(dataset):
            candidates, labels = row[candidate] or [], row.get(label)
            if labels is not None and (not isinstance(labels, list) or len(labels) != len(candidates)):
                rule = "must be a list with a label for each candidate"
                count = counted(len(labels), "label") if isinstance(labels, list) else "no list"
                value = f"{count} for {counted(len(candidates), 'candidate')} in {split}:{number}"
                raise InputError(Problem("data.columns.label", rule, value))
            for place, text in enumerate(candidates):
                grade = None if labels is None else labels[place]
                yield {**row, candidate: text, label: grade}

    return Dataset.from_list(list(rows()))
