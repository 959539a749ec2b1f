"""One split as a table of canonical columns, with what the checks need to know of each row beside it."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, Features, Image, List, Value

from hf_finetune.data.column_types import guess_features
from hf_finetune.data.columns import IMAGE_NAMES, Columns, find_columns
from hf_finetune.data.formatting import quoted
from hf_finetune.data.image_column import as_images
from hf_finetune.data.image_files import NoImageError, source_of
from hf_finetune.data.label_places import holds_places
from hf_finetune.data.labels import (
    TRAINING_LABEL,
    UNKNOWN,
    Target,
    label_feature,
    read_labels,
    training_labels,
)
from hf_finetune.data.load import Source
from hf_finetune.data.locate import SPLITS, Modality
from hf_finetune.data.slices import add_group, add_slices, slice_problems, text_slices
from hf_finetune.errors import InputError, Problem

__all__ = [
    "Table",
    "agree_on_columns",
    "content_keys",
    "hash_image",
    "hash_rows",
    "is_unlabelled",
    "map_images",
    "read_table",
]

_IMAGES_AT_ONCE = 16  # undecoded
_ROWS_LOOKED_AT = 1000
_COLUMNS_SHOWN = 20
_THREADS = min(8, os.cpu_count() or 1)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """One split, row by row.

    Attributes:
        dataset: Columns ``id``, ``image`` or ``text`` (and ``text_pair``), and ``label`` once it is encoded.
        ids: The name of each row.
        labels: The label of each row: plain values, or encoded ones once the targets are settled.
        declared: Class names that the label column declares.
        groups: The group of each row.
        weights: The weight of each row in the loss; None where all count alike.
        unknown: Of each row the classes of which the data does not say whether they hold; None if it always does.
        shares: Of each row the probability of each class; None where labels are no probabilities.
        contents: SHA-256 of each example, exactly as it is. None for an image file that cannot be read.
            Empty until ``hash_rows`` fills it in.
        keys: The same for examples that count as the same: for texts, case and white space do not
            matter. None for what cannot be compared.
        notes: How paths of images were understood.
        whole: The dataset before rows were taken; None where none can be.
        rows: Their numbers in it.
    """

    dataset: Dataset
    ids: tuple[str, ...]
    labels: tuple[Any, ...]
    declared: tuple[str, ...] | None
    groups: tuple[Any, ...] | None = None
    weights: tuple[Any, ...] | None = None
    unknown: tuple[Sequence[str], ...] | None = None
    shares: tuple[Mapping[str, float] | None, ...] | None = None
    contents: tuple[str | None, ...] = ()
    keys: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()
    whole: Dataset | None = None
    rows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Table":
        """Keep these rows, in this order."""
        chosen = [int(row) for row in rows]

        def pick(values: Any) -> Any:
            return tuple(values[row] for row in chosen) if values else values

        return replace(
            self,
            dataset=self.dataset.select(chosen),
            ids=pick(self.ids),
            labels=pick(self.labels),
            groups=pick(self.groups),
            weights=pick(self.weights),
            unknown=pick(self.unknown),
            shares=pick(self.shares),
            contents=pick(self.contents),
            keys=pick(self.keys),
            rows=pick(self.rows),
        )

    def with_labels(self, labels: Sequence[Any], target: Target, label_names: Sequence[str]) -> "Table":
        """Set the encoded labels, in the table and as the ``label`` column.

        Multi-label data with unknown classes gets a column ``unknown``; single-label data with weights or
        probabilities a column ``training_label``, the probability of each class times the weight of the example.
        """
        feature = label_feature(target, label_names)
        columns: dict[str, tuple[list[Any], Any]] = {"label": (list(labels), feature)}
        if target == "multi_label" and self.unknown is not None:
            places = {name: index for index, name in enumerate(label_names)}
            columns[UNKNOWN] = [sorted(places[name] for name in names) for names in self.unknown], feature
        elif target == "single_label" and (self.weights is not None or self.shares is not None):
            weighted = training_labels(labels, label_names, self.weights, self.shares)
            columns[TRAINING_LABEL] = weighted, List(Value("float32"))
        # a column added to chosen rows would have datasets write all of their images anew
        whole = self.whole if self.whole is not None and len(self.whole) > len(self) > 0 else None
        dataset = self.dataset if whole is None else whole
        for name, (values, kind) in columns.items():
            filled = values
            if whole is not None:
                filled = [values[0]] * len(whole)
                for row, value in zip(self.rows, values, strict=True):
                    filled[row] = value
            dataset = dataset.add_column(name, filled, feature=kind)
        if whole is not None:
            dataset = dataset.select(self.rows)
        return replace(self, dataset=dataset, labels=tuple(labels))


def agree_on_columns(
    source: Source,
    modality: Modality,
    named: Mapping[str, str | None],
    group: str | None,
    slices: Sequence[str] = (),
) -> tuple[Columns, tuple[str, ...]]:
    """Find the columns in train, or the first split there is, and check that the others have them."""
    empty = [split for split, dataset in source.splits.items() if len(dataset) == 0]
    if empty:
        raise InputError([Problem(f"The {split} split", "must hold at least one example") for split in empty])
    ordered = {split: source.splits[split] for split in SPLITS if split in source.splits}
    features = guess_features(ordered, source.of_text)
    for name, feature in next(iter(ordered.values())).features.items():
        # The names of pictures may be numbers, as 17 for 17.png; so may texts, if the recipe says that they are texts.
        if name in (named.get(key) for key in ("image", "text", "text_pair")) or (
            modality == "image" and name.lower() in IMAGE_NAMES
        ):
            features[name] = feature
    try:
        used, notes = find_columns(features, modality, _without_blanks(named, features), group)
    except InputError as error:
        found = [_with_class_columns(problem, ordered.values()) for problem in error.problems]
        raise InputError([*found, *source.header_doubts]) from error
    needed = [name for name in (*used.inputs(), used.group) if name is not None]
    problems = slice_problems(source.splits, slices)
    problems += _label_column_problems(source, used)
    in_use = (*needed, used.label, *used.labels, used.weight, *slices)
    problems += [doubt for name, doubt in source.doubts.items() if name in in_use]
    problems += [
        Problem(
            f"The {split} split", f"must have the column {name!r}", f"only {quoted(dataset.column_names)}"
        )
        for split, dataset in source.splits.items()
        for name in needed
        if name not in dataset.column_names
    ]
    if problems:
        raise InputError(problems)
    return replace(used, slices=tuple(slices), texts=text_slices(source.splits, slices)), notes


def _with_class_columns(problem: Problem, splits: Iterable[Dataset]) -> Problem:
    """Add to the problem that no column looks like labels which columns look like one class each."""
    if problem.place != "data.columns.label" or "no column" not in problem.rule:
        return problem
    dataset = next(iter(splits))
    some = dataset.select(range(min(len(dataset), _ROWS_LOOKED_AT)))
    names = [name for name in dataset.column_names if holds_places(some[name][:])]
    if len(names) < 2:
        return problem
    shown = ", ".join(names[:_COLUMNS_SHOWN]) + (", ..." if len(names) > _COLUMNS_SHOWN else "")
    repair = f"If each class has a column of its own, list them: columns: {{label: [{shown}]}}."
    return replace(problem, repair=repair)


def _without_blanks(named: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """Return names without the blanks around them where only that makes them columns of the data."""
    return {
        key: name.strip()
        if isinstance(name, str) and name not in features and name.strip() in features
        else name
        for key, name in named.items()
    }


def _label_column_problems(source: Source, used: Columns) -> list[Problem]:
    """Refuse a split that has some of the columns of the classes, and a training split without weights."""
    problems = []
    for split, dataset in source.splits.items():
        absent = [name for name in used.labels if name not in dataset.column_names]
        if absent and len(absent) < len(used.labels):
            rule = "must have all columns of data.columns.label, or none"
            repair = "A class of which nothing is known has a column of empty cells."
            problems.append(Problem(f"The {split} split", rule, f"no {quoted(absent)}", repair))
        if split == "train" and used.weight is not None and used.weight not in dataset.column_names:
            problems.append(Problem("The train split", f"must have the column {used.weight!r}"))
    return problems


def read_table(
    dataset: Dataset, columns: Columns, split: str, root: Path | None, files: Sequence[str] | None = None
) -> Table:
    """Bring one split into its canonical columns. Labels stay plain, contents are not hashed yet.

    Args:
        dataset: The split as it was loaded.
        columns: The columns to use. A split without the label column has None for every label.
        split: Its name: examples without a file of their own are called ``train:0``, ``train:1``, ...
        root: The folder that relative image paths start from.
        files: Names of texts that are files of their own.
    """
    labels: list[Any] = [None] * len(dataset)
    declared = None
    if columns.labels and columns.label in dataset.column_names:
        labels = _rows_of(dataset, columns.labels)
    elif columns.label in dataset.column_names:
        labels, declared = read_labels(dataset, columns.label)
    weights = None
    if columns.weight is not None and columns.weight in dataset.column_names:
        weights = tuple(dataset[columns.weight][:])
    groups = tuple(dataset[columns.group][:]) if columns.group is not None else None
    notes: list[str] = []
    inputs = dataset.select_columns(list(columns.inputs()))
    if columns.image is not None:
        inputs, paths, notes = as_images(inputs.rename_columns({columns.image: "image"}), root, split)
    else:
        names = {old: new for old, new in ((columns.text, "text"), (columns.text_pair, "text_pair")) if old}
        inputs = inputs.rename_columns(names)
        strings = Features({name: Value("string") for name in inputs.column_names})
        if inputs.features != strings:  # large strings, or the untyped column of a split without a text
            inputs = inputs.cast(strings, keep_in_memory=True)
        paths = [None] * len(dataset) if files is None else list(files)
    ids = tuple(path if path is not None else f"{split}:{row}" for row, path in enumerate(paths))
    inputs = inputs.add_column("id", list(ids), feature=Value("string"))
    inputs = add_slices(inputs, dataset, columns.slices, columns.texts)
    if groups is not None:
        inputs = add_group(inputs, str(columns.group), groups)
    rows = tuple(range(len(ids)))
    made = Table(inputs, ids, tuple(labels), declared, groups, weights, notes=tuple(notes))
    return replace(made, whole=inputs, rows=rows)


def _rows_of(dataset: Dataset, columns: Sequence[str]) -> list[Any]:
    """Return the values of several columns for each row; None where all are missing."""
    read = [read_labels(dataset, name)[0] for name in columns]
    rows = zip(*read, strict=True)
    return [None if all(value is None for value in row) else row for row in rows]


def is_unlabelled(table: Table) -> bool:
    """Say whether no row has a label. Benchmarks publish -1 for every label of their test split."""
    return all(
        value is None or value in (-1, "-1")
        for label in table.labels
        for value in (label if isinstance(label, tuple) else (label,))
    )


def hash_rows(table: Table) -> Table:
    """Fill in ``contents`` and ``keys``. Reads every image file once, decodes none."""
    if "image" in table.dataset.column_names:
        contents = tuple(map_images(table.dataset, hash_image))
        return replace(table, contents=contents, keys=contents)
    names = _inputs(table.dataset)
    exact, keys = [], []
    for batch in table.dataset.select_columns(names).iter(batch_size=1000):
        for texts in zip(*(batch[name] for name in names), strict=True):
            exact.append(_hash_texts(texts, lambda text: text))
            keys.append(_hash_texts(texts, _normalise) if any(texts) else None)
    return replace(table, contents=tuple(exact), keys=tuple(keys))


def content_keys(dataset: Dataset) -> tuple[str | None, ...]:
    """Return the keys by which inputs count as the same: SHA-256 of image files, or of normalized texts.

    Args:
        dataset: A split, with the columns of ``LabelledData``.
    """
    return hash_rows(Table(dataset, tuple(dataset["id"]), (None,) * len(dataset), None)).keys


def map_images(dataset: Dataset, function: Callable[[dict[str, Any]], Result]) -> Iterator[Result]:
    """Apply a function to each undecoded image, in order, holding few of them at a time.

    Args:
        dataset: Has an ``image`` column.
        function: Takes ``{"bytes": ..., "path": ...}``. Called from several threads.
    """
    undecoded = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in undecoded.iter(batch_size=_IMAGES_AT_ONCE):
            yield from pool.map(function, batch["image"])


def hash_image(image: dict[str, Any] | None) -> str | None:
    """Return the SHA-256 of an undecoded image's file, or None if there is none that can be read."""
    try:
        source = source_of(image)
        if isinstance(source, bytes):
            return hashlib.sha256(source).hexdigest()
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, NoImageError):
        return None


def _inputs(dataset: Dataset) -> list[str]:
    return [name for name in ("image", "text", "text_pair") if name in dataset.column_names]


def _hash_texts(texts: Sequence[str | None], form: Callable[[str], str]) -> str:
    """Hash one text or a pair. Lengths are hashed too, so that no text can run over into its pair."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = form(text or "").encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def _normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
