"""Preparation of labeled data for training: load, check and split it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from hf_finetune.data.checks import (
    check_class_counts,
    check_duplicates_across_splits,
    check_groups,
    check_labels,
    check_readable,
)
from hf_finetune.data.columns import Columns, resolved_columns
from hf_finetune.data.content_hashes import short_hashes
from hf_finetune.data.examples_of_rows import examples_of_rows
from hf_finetune.data.file_column import contains_paths, note_unlisted
from hf_finetune.data.folds import Fold, fold_tables, join_tables, number_groups
from hf_finetune.data.label_checks import note_contradictions
from hf_finetune.data.label_form import parse_label_form
from hf_finetune.data.label_tables import drop_unlabeled, parse_labels
from hf_finetune.data.load import Source, load_source
from hf_finetune.data.slices import value_problems
from hf_finetune.data.split_names import SPLITS
from hf_finetune.data.split_tables import create_split_tables, limit_tables, note_created_splits
from hf_finetune.data.table_options import TableOptions
from hf_finetune.data.tables import Table, choose_common_columns, hash_rows, is_unlabeled, read_table
from hf_finetune.data.targets import Targets, resolve_targets
from hf_finetune.errors import InputError, Problem, join_quoted, join_words
from hf_finetune.recipe.data import SplitSpec
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.tasks import Modality, find_modality

__all__ = ["LabeledData", "Pool", "prepare_data"]


@dataclass(frozen=True)
class Pool:
    """Examples that a cross-validation divides, the same for every fold, so that each example is processed once.

    Attributes:
        dataset: All examples, with the columns of a split.
        rows: Row numbers in ``dataset`` of each split of the fold.
        fingerprint: SHA-256 over the contents and labels of ``dataset``.
        groups: Group number of each example, see ``LabeledData.train_groups``.
    """

    dataset: Dataset
    rows: Mapping[str, tuple[int, ...]]
    fingerprint: str
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class LabeledData:
    """Train, validation and test splits of labeled data.

    Columns of every split:

    - ``id``: path of the file relative to the data's folder, else ``train:0``, ``train:1``, ...
    - ``image``, or ``text`` and optionally ``text_pair``
    - ``label``: a ClassLabel, a list of ClassLabels, or a float
    - ``slice:NAME`` for each column that metrics are broken down by
    - ``group:NAME`` if the examples are grouped
    - ``unknown``, only if the data has it: classes for which it states neither presence nor absence
    - ``training_label``, only if the data has weights or probabilities: probability of each class times the weight

    Attributes:
        train: Training split.
        validation: Validation split. None if the data has none and none was requested.
        test: Test split. None if the data has none and none was requested.
        target: Label type: single-label, multi-label or regression.
        label_names: Class names in index order. ``("label",)`` for regression.
        notes: Messages to the user on what was inferred, created and skipped, one sentence each.
        fingerprint: SHA-256 over the contents and labels of all splits; the same for the same data on any machine.
        pool: Examples that the splits of a fold were taken from; None if the data is not a fold.
        label_notes: Subset of ``notes`` on how labels were read and weighted.
        columns: Input and label columns, including inferred ones, from ``resolved_columns``.
        hashes: First 64 bits of the SHA-256 of each input, sorted, by split.
        train_groups: Group number of each training example: examples of one group, or copies, share a number and
            must stay in one fold of a cross-validation. Empty if unknown.
        split_fingerprints: SHA-256 over the contents and labels of the examples of each split.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    target: TargetName
    label_names: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    pool: Pool | None = None
    label_notes: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    train_groups: tuple[int, ...] = ()
    split_fingerprints: Mapping[str, str] = field(default_factory=dict)

    def source_fingerprint(self, split: str) -> str:
        """Return the SHA-256 over the examples of a split; for a fold, over those of its whole pool.

        Args:
            split: Name of a split.
        """
        if self.pool is not None:
            return self.pool.fingerprint
        unknown = hashlib.sha256(f"{split} {self.fingerprint}".encode()).hexdigest()
        return self.split_fingerprints.get(split, unknown)


def prepare_data(
    spec: DataFields,
    modality: Modality,
    *,
    slices: Sequence[str] = (),
    seed: int = 0,
    fold_seed: int | None = None,
) -> LabeledData:
    """Load labeled data, create missing validation and test splits, and check the result.

    Args:
        spec: Data of a recipe of one task: where it is, how to read it, and how to split it.
        modality: Kind of input.
        slices: Columns to break metrics down by, added to each split as ``slice:NAME``.
        seed: Seed of the created splits and of the examples that ``spec.limit`` keeps.
        fold_seed: Seed of the division into the folds of ``spec.split.fold``; None is ``seed``.

    Returns:
        Splits with encoded labels, notes, and fingerprint.

    Raises:
        InputError: If the data cannot be used; lists all problems.
    """
    tables, used, columns, notes, label_notes = _read_examples(spec, modality, slices)
    targets, problems = _resolve_targets(tables, used, spec.target)
    notes += note_contradictions(tables)
    # series are divided by time: none of their windows is taken at random
    fractions = {} if used.groups_recur else _missing_fractions(tables, spec.split)
    if used.group is not None:
        problems += check_groups(
            *(tables, 1 + len(fractions)),
            may_recur=used.groups_recur,
            is_chosen=not modality.group_role,
        )
    if targets is None:
        raise InputError([*problems, *_check_tables(tables, None, spec, modality, slices)[1]])

    notes += targets.notes
    tables = _encode(tables, targets)
    by_class = spec.split.stratify and TARGETS[targets.target].has_classes and not modality.has_rare_classes
    if by_class and used.group is None:
        problems += check_class_counts(tables["train"], targets.target, targets.label_names, fractions)
    if fractions and not problems:
        tables = create_split_tables(tables, fractions, by_class, seed)
        notes.append(note_created_splits(tables, fractions, by_class, used.group))
    if spec.limit is not None:
        tables = limit_tables(tables, targets.target, spec.limit, seed)
        counts = join_words(f"{len(table)} of {split}" for split, table in tables.items())
        notes.append(f"Limited to {spec.limit} examples of each split: {counts}.")
    check_notes, check_problems = _check_tables(tables, targets, spec, modality, slices)
    notes += check_notes
    if problems + check_problems:
        raise InputError(problems + check_problems)
    if spec.split.merge_validation and "validation" in tables:
        tables = _merge_validation(tables)
        notes.append(f"The validation split is merged: {len(tables['train']):,} training examples.")
    pool = None
    if spec.split.fold is not None:
        tables, pool, fold_note = _hold_out(
            tables, targets, spec.split, by_class, seed if fold_seed is None else fold_seed
        )
        notes.append(fold_note)
    fingerprint, split_fingerprints = _fingerprints(tables, targets)
    return LabeledData(
        train=tables["train"].dataset,
        validation=tables["validation"].dataset if "validation" in tables else None,
        test=tables["test"].dataset if "test" in tables else None,
        target=targets.target,
        label_names=targets.label_names,
        notes=tuple(notes),
        fingerprint=fingerprint,
        pool=pool,
        label_notes=tuple(label_notes),
        columns=columns,
        hashes={split: short_hashes(table.keys) for split, table in tables.items()},
        train_groups=tuple(number_groups(tables["train"]).tolist()),
        split_fingerprints=split_fingerprints,
    )


def _read_examples(
    spec: DataFields, modality: Modality, slices: Sequence[str]
) -> tuple[dict[str, Table], Columns, dict[str, Any], list[str], list[str]]:
    """Read all splits of the data, and parse and hash their examples; unusable ones are skipped if requested.

    Returns:
        The splits; the columns that are used, and the same as fields of a recipe; all notes; and those of the notes
        that concern the form of the labels.
    """
    columns = spec.columns.model_dump()
    group = spec.split.group or spec.columns.group
    source = load_source(
        spec.path,
        modality=modality,
        config=spec.config,
        revision=spec.revision,
        metadata=bool(slices or group or spec.split.time),
        columns=columns,
        nested=spec.nested,
        options=TableOptions(spec.encoding, spec.separator, spec.decimal),
        values=slices,
    )
    if "train" not in source.splits:
        value = f"only {join_quoted(source.splits)}"
        raise InputError(Problem("data.path", "must have a train split", value))
    source, columns, sources = examples_of_rows(source, modality, spec)
    used, column_notes = choose_common_columns(source, modality, columns, group, slices)
    tables, table_notes = _read_tables(source, used, Path(spec.path).expanduser().is_dir())
    tables, type_notes, label_notes = _read_labels(tables, source, used, spec)
    tables, skip_notes = _skip_unusable(tables) if spec.on_error == "skip" else (_hash_tables(tables), [])
    notes = [*source.notes, *column_notes, *table_notes, *type_notes, *label_notes, *skip_notes]
    return tables, used, {**resolved_columns(columns, used), **sources}, notes, label_notes


def _read_tables(
    source: Source, used: Columns, check_all_folders: bool
) -> tuple[dict[str, Table], list[str]]:
    """Read the train, validation and test splits, in this order; an unlabeled split other than train is dropped.

    Files that no row lists get a note: all files below the source's folder if ``check_all_folders``, else only those in
    folders of listed files.
    """
    tables: dict[str, Table] = {}
    notes: list[str] = []
    ids: list[str] = []
    for split in SPLITS:
        if split in source.splits:
            table = read_table(source.splits[split], used, split, source.root, source.files.get(split))
            notes += table.notes
            ids += table.ids
            if split != "train" and is_unlabeled(table):
                notes.append(f"The {split} split has no labels, so it counts as missing.")
            else:
                tables[split] = table
    modality = find_modality(used.inputs)
    column = used.inputs[modality.main_column]
    if (
        modality.opens_files
        and source.root is not None
        and contains_paths(source.splits["train"], str(column))
    ):
        notes += note_unlisted(ids, source.root, check_all_folders, modality)
    return tables, notes


def _read_labels(
    tables: Mapping[str, Table], source: Source, used: Columns, spec: DataFields
) -> tuple[dict[str, Table], list[str], list[str]]:
    """Parse the labels of all splits, and return notes on their type and on their format."""
    skip = spec.on_error == "skip"
    parsed, type_notes, form_notes, problems = parse_labels(
        tables,
        parse_label_form(spec.columns.model_dump()["label"]),
        used,
        spec.target,
        untyped_splits=source.untyped_splits,
        decimal=spec.decimal,
        skip=skip,
    )
    if problems:
        raise InputError([*problems, *check_readable(parsed, skip)[2]])
    return parsed, type_notes, form_notes


def _skip_unusable(tables: Mapping[str, Table]) -> tuple[dict[str, Table], list[str]]:
    """Drop unusable rows and hash the others, before splits are created, from which a class could then be missing."""
    labeled, missing_notes = drop_unlabeled(tables)
    usable, dropped_notes, _ = check_readable(_hash_tables(labeled), skip=True)
    usable, copy_notes, _ = check_duplicates_across_splits(usable, skip=True)
    if empty := [split for split, table in usable.items() if len(table) == 0]:
        rule = "must contain at least one usable example"
        raise InputError([Problem(f"The {split} split", rule) for split in empty])
    return usable, [*missing_notes, *dropped_notes, *copy_notes]


def _hash_tables(tables: Mapping[str, Table]) -> dict[str, Table]:
    return {split: hash_rows(table) for split, table in tables.items()}


def _resolve_targets(
    tables: Mapping[str, Table], used: Columns, requested: TargetName | Literal["auto"]
) -> tuple[Targets | None, list[Problem]]:
    """Encode the labels, and check that they allow weights if there are any."""
    labels = {split: table.labels for split, table in tables.items()}
    ids = {split: table.ids for split, table in tables.items()}
    targets, problems = resolve_targets(labels, ids, tables["train"].declared, requested)
    if targets is not None and used.weight is not None and not TARGETS[targets.target].is_exclusive:
        rule = "must not be set unless each example has exactly one class"
        problems.append(Problem("data.columns.weight", rule, repr(used.weight)))
    return targets, problems


def _missing_fractions(tables: Mapping[str, Table], spec: SplitSpec) -> dict[str, float]:
    """Return the fraction of train for each split that the data lacks and the recipe requests."""
    fractions = {"validation": spec.validation, "test": spec.test}
    return {split: share for split, share in fractions.items() if share > 0 and split not in tables}


def _encode(tables: Mapping[str, Table], targets: Targets) -> dict[str, Table]:
    return {
        split: table.with_labels(targets.labels[split], targets.target, targets.label_names)
        for split, table in tables.items()
    }


def _check_tables(
    tables: Mapping[str, Table],
    targets: Targets | None,
    spec: DataFields,
    modality: Modality,
    slices: Sequence[str],
) -> tuple[list[str], list[Problem]]:
    """Check the examples (unless unusable ones were skipped), the labels if they are encoded, and the slices."""
    notes: list[str] = []
    problems: list[Problem] = []
    skip, rare = spec.on_error == "skip", modality.has_rare_classes
    if not skip:
        _, notes, problems = check_readable(tables, skip)
        problems += check_duplicates_across_splits(tables, skip)[2]
    if targets is not None:
        label_notes, label_problems = check_labels(
            tables, targets.target, targets.label_names, has_rare_classes=rare
        )
        notes += label_notes
        problems += label_problems
    problems += value_problems({split: table.dataset for split, table in tables.items()}, slices)
    return notes, problems


def _merge_validation(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the splits without a validation split, whose examples are training examples."""
    merged = join_tables([tables["train"], tables["validation"]])
    return {"train": merged, **{split: tables[split] for split in ("test",) if split in tables}}


def _hold_out(
    tables: Mapping[str, Table], targets: Targets, spec: SplitSpec, by_class: bool, seed: int
) -> tuple[dict[str, Table], Pool, str]:
    """Replace the test split by the fold of a cross-validation; return the splits, their pool and a note."""
    number, count = map(int, str(spec.fold).split("/"))
    folded = fold_tables(tables, Fold(number, count), spec.validation, by_class, seed)
    rows = {split: tuple(rows.tolist()) for split, rows in folded.rows.items()}
    fingerprints = _fingerprints({"pool": folded.pool}, targets)[1]
    pool = Pool(folded.pool.dataset, rows, fingerprints["pool"], tuple(number_groups(folded.pool).tolist()))
    return {split: folded.pool.take(rows) for split, rows in folded.rows.items()}, pool, folded.note


def _fingerprints(tables: Mapping[str, Table], targets: Targets) -> tuple[str, dict[str, str]]:
    """Return the SHA-256 over the examples of all splits, and that of each split, which does not depend on its name."""
    start = hashlib.sha256(json.dumps([targets.target, targets.label_names]).encode())
    of_all, by_split = start.copy(), {}
    for split, table in tables.items():
        of_split = start.copy()
        of_all.update(split.encode())
        for part in _examples_as_bytes(table):
            of_all.update(part)
            of_split.update(part)
        by_split[split] = of_split.hexdigest()
    return of_all.hexdigest(), by_split


def _examples_as_bytes(table: Table) -> Iterator[bytes]:
    for content, label in zip(table.contents, table.labels, strict=True):
        yield json.dumps([content, label]).encode()
    for values in (table.weights, table.unknown, table.probabilities):
        if values is not None:
            yield json.dumps(values).encode()
