"""Examples of the splits of a run, even after the data has changed."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from hf_finetune.data.content_hashes import HASHES, read_hashes, short_hash
from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.recipe_data import load_data
from hf_finetune.data.tables import content_keys
from hf_finetune.errors import InputError, MissingSplitError, Problem, join_quoted
from hf_finetune.evaluation.classifier import Classifier
from hf_finetune.recipe.schema import Recipe
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TRAINING_LABEL, UNKNOWN

__all__ = ["RunSplit", "load_run_split", "match_rows"]

_REPAIR = "Restore the data of the run, or evaluate on other data with --data."


@dataclass(frozen=True)
class RunSplit:
    """Examples of a split of a run.

    Attributes:
        dataset: Examples, with the columns of ``LabeledData``.
        changed: Note for the user if the data has changed since the run (how the examples were found, and how many
            are ignored), or if it is not known whether it has. None if the split is certainly unchanged.
    """

    dataset: Dataset
    changed: str | None = None


def load_run_split(run: Path, recipe: Recipe, classifier: Classifier, split: str) -> RunSplit:
    """Load the examples that a run had in a split.

    The data is split again according to the recipe. If the result differs from the examples of the run, these are
    looked up in the whole data by the hashes in ``RUN/examples.npz``.

    Args:
        run: Run directory.
        recipe: Recipe of the run.
        classifier: Model of the run.
        split: Name of the split: train, validation or test.

    Returns:
        The examples, with a note if the data has changed.

    Raises:
        MissingSplitError: If the run has no such split.
        InputError: If the data cannot be used, or if none of the examples of the split are found.
    """
    known = read_hashes(run / HASHES)
    try:
        prepared = load_data(recipe)
    except InputError as error:
        # Added or removed examples may prevent splitting again: a single example of a new class is enough.
        if known is None:
            raise
        if split not in known:
            raise _missing_split(split, known) from None
        if not len(known[split]):
            raise
        try:
            full_data = load_data(_without_split(recipe))
        except InputError:
            raise error from None
        return _find_split(full_data, classifier, known, split)
    dataset = _splits(prepared).get(split)
    if dataset is None or (known is not None and split not in known):
        names = [name for name in _splits(prepared) if known is None or name in known]
        raise _missing_split(split, names)
    if known is None:
        return _split_without_hashes(run, recipe, prepared, split, HASHES)
    if not len(known[split]) and len(dataset):  # inputs that are not identified by their content
        return _split_without_hashes(run, recipe, prepared, split, "hashes")
    if _same_inputs(prepared.hashes[split], known[split]):
        return RunSplit(dataset, _label_change_note(run, recipe, prepared, split))
    return _find_split(load_data(_without_split(recipe)), classifier, known, split)


def match_rows(
    keys: Sequence[str | None], known: Mapping[str, np.ndarray], split: str
) -> tuple[list[int], int]:
    """Find the examples of a split by their content.

    Duplicates are matched at most as often as they occurred in the run.

    Args:
        keys: SHA-256 of each input as hexadecimal text; None for an input without one.
        known: Hashes of the inputs of each split.
        split: Split whose examples are looked up.

    Returns:
        Rows of the examples found, in ascending order, and the number of rows that are in none of the splits.
    """
    hashes = [None if key is None else short_hash(key) for key in keys]
    remaining = Counter(known[split].tolist())
    unmatched = Counter(number for new_index in known.values() for number in new_index.tolist())
    rows, new_count = [], 0
    for row, number in enumerate(hashes):
        if number is not None and remaining[number] > 0:
            remaining[number] -= 1
            rows.append(row)
        if number is not None and unmatched[number] > 0:
            unmatched[number] -= 1
        else:
            new_count += 1
    return rows, new_count


def _missing_split(split: str, names: Iterable[str]) -> MissingSplitError:
    repair = f"Known: {join_quoted(names)}."
    return MissingSplitError(Problem("--split", "must be a split of the run", repr(split), repair))


def _same_inputs(hashes: np.ndarray, known: np.ndarray) -> bool:
    """Return whether a split has the same inputs as in the run; both arrays are sorted."""
    return np.array_equal(hashes, known)


def _splits(data: LabeledData) -> dict[str, Dataset]:
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: dataset for name, dataset in splits.items() if dataset is not None}


def _without_split(recipe: Recipe) -> Recipe:
    """Return the recipe that loads all examples, in the splits that the data itself has."""
    split = recipe.data.split.model_copy(update={"validation": 0.0, "test": 0.0, "fold": None})
    data = recipe.data.model_copy(update={"split": split, "limit": None})
    return recipe.model_copy(update={"data": data})


def _split_without_hashes(
    run: Path, recipe: Recipe, prepared: LabeledData, split: str, missing: str
) -> RunSplit:
    """Return a new split of the data, for a run without hashes to identify its examples.

    Args:
        run: Run directory.
        recipe: Recipe of the run.
        prepared: The data, split again.
        split: Name of the split.
        missing: What the run lacks, for messages.

    Raises:
        InputError: If the fingerprint of the run shows that the data has changed.
    """
    dataset, fingerprint = _splits(prepared)[split], _fingerprint(run)
    if fingerprint == prepared.fingerprint:
        return RunSplit(dataset)
    # with domain adaptation the fingerprint of the run covers the inputs of both domains
    if fingerprint is None or recipe.domain_adaptation is not None:
        return RunSplit(
            dataset,
            f"The run has no {missing}, so it is unknown whether the examples of its {split} split have changed.",
        )
    rule = f"has changed since the run, which stores no {missing} to identify its examples"
    raise InputError(Problem("The data", rule, "", _REPAIR))


def _label_change_note(run: Path, recipe: Recipe, prepared: LabeledData, split: str) -> str | None:
    """Return a note if the data has changed since the run, but not the inputs of the split; None otherwise."""
    before = _fingerprint(run)
    # with domain adaptation the fingerprint of the run covers the inputs of both domains
    if before in (None, prepared.fingerprint) or recipe.domain_adaptation is not None:
        return None
    return (
        f"The data has changed since the run, but not the inputs of its {split} split, which is evaluated with the "
        "current labels."
    )


def _fingerprint(run: Path) -> str | None:
    """Return the fingerprint of the data of a run; None if the run has not stored it."""
    try:
        content = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        return str(content["fingerprints"]["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_split(
    full_data: LabeledData, classifier: Classifier, known: Mapping[str, np.ndarray], split: str
) -> RunSplit:
    """Find the examples of a split in data that has changed."""
    splits = _splits(full_data)
    keys = [key for dataset in splits.values() for key in content_keys(dataset)]
    rows, new_count = match_rows(keys, known, split)
    total = len(known[split])
    if not rows:
        rule = f"contains none of the {total:,} examples of the run's {split} split"
        raise InputError(Problem("The data", rule, "", _REPAIR))
    parts, start = [], 0
    for dataset in splits.values():
        chosen = [row - start for row in rows if start <= row < start + len(dataset)]
        start += len(dataset)
        if chosen:
            parts.append(_in_classes(dataset.select(chosen), full_data, classifier))
    return RunSplit(
        parts[0] if len(parts) == 1 else concatenate_datasets(parts),
        _change_note(split, len(rows), total, new_count),
    )


def _change_note(split: str, matched_count: int, total: int, new_count: int) -> str:
    count = (
        f"all {total:,}"
        if matched_count == total
        else f"{matched_count:,} of {total:,}; the rest was removed or edited"
    )
    sentence = (
        f"The data has changed since the run. The examples of the run's {split} split are identified by their content: "
        f"{count}."
    )
    if new_count == 1:
        sentence += " 1 new example is ignored; use --data to include it."
    elif new_count:
        sentence += f" {new_count:,} new examples are ignored; use --data to include them."
    return sentence


def _in_classes(dataset: Dataset, full_data: LabeledData, classifier: Classifier) -> Dataset:
    """Convert the labels to the class indices of the model, in case the classes of the data have changed.

    Raises:
        InputError: If the labels are of another type, or of a class that the model does not know.
    """
    if full_data.target != classifier.target:
        rule = f"must be {classifier.target}, like those of the model"
        raise InputError(Problem("The labels", rule, full_data.target, _REPAIR))
    if TRAINING_LABEL in dataset.column_names:  # used in training only
        dataset = dataset.remove_columns(TRAINING_LABEL)
    if not TARGETS[full_data.target].has_classes or full_data.label_names == classifier.label_names:
        return dataset
    model_index = {name: index for index, name in enumerate(classifier.label_names)}
    new_index = [model_index.get(name) for name in full_data.label_names]
    labels = dataset["label"][:]
    if unknown := sorted(
        {index for label in labels for index in _indices(label) if new_index[index] is None}
    ):
        rule = "must be classes of the model"
        names = join_quoted(full_data.label_names[index] for index in unknown)
        raise InputError(Problem("The labels of the run's examples", rule, names, _REPAIR))
    feature = TARGETS[full_data.target].feature(classifier.label_names)
    columns: dict[str, list[Any]] = {
        "label": [
            sorted(new_index[index] for index in label) if isinstance(label, list) else new_index[label]
            for label in labels
        ]
    }
    if UNKNOWN in dataset.column_names:
        columns[UNKNOWN] = [
            sorted(number for index in row if (number := new_index[index]) is not None)
            for row in dataset[UNKNOWN][:]
        ]
    for name, values in columns.items():
        dataset = dataset.remove_columns(name).add_column(name, values, feature=feature)
    return dataset


def _indices(label: int | list[int]) -> list[int]:
    return label if isinstance(label, list) else [label]
