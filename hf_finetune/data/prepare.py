"""Preparation of labeled data for training: load, check and split it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from hf_finetune.data.file_column import contains_paths, note_unlisted
from hf_finetune.data.folds import Fold, fold_tables, number_groups
from hf_finetune.data.label_checks import note_contradictions
from hf_finetune.data.label_form import parse_label_form
from hf_finetune.data.label_tables import drop_unlabeled, infer_table_labels, parse_labels
from hf_finetune.data.load import Source, load_source
from hf_finetune.data.slices import value_problems
from hf_finetune.data.split_names import SPLITS
from hf_finetune.data.split_tables import create_split_tables, limit_tables, note_created_splits
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions
from hf_finetune.data.tables import Table, choose_common_columns, hash_rows, is_unlabeled, read_table
from hf_finetune.data.targets import Targets, resolve_targets
from hf_finetune.errors import InputError, Problem, join_quoted, join_words
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
        fingerprint: SHA-256 over the contents and labels of ``dataset``, computed like that of ``LabeledData``.
    """

    dataset: Dataset
    rows: Mapping[str, tuple[int, ...]]
    fingerprint: str


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


def prepare_data(
    path: str,
    *,
    modality: Modality,
    config: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, Any] | None = None,
    target: TargetName | Literal["auto"] = "auto",
    validation: float = 0.1,
    test: float = 0.1,
    stratify: bool = True,
    group: str | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    limit: int | None = None,
    fold: Fold | None = None,
    slices: Sequence[str] = (),
    seed: int = 0,
    nested: Literal["join", "top"] | None = None,
    options: TableOptions = NO_OPTIONS,
) -> LabeledData:
    """Load labeled data, create missing validation and test splits, and check the result.

    Args:
        path: A folder of class folders, a folder of data files, a csv, tsv, json, jsonl, parquet or xlsx file, a
            folder written by ``save_to_disk``, or a Hub id.
        modality: Kind of input.
        config: Configuration of a Hub dataset that has several.
        revision: Branch, tag or commit of a Hub dataset.
        columns: Column names by role: image, text, text_pair, label, weight, group, split. Missing roles are
            inferred. ``label`` may also be a list of names, or the fields of ``data.columns.label``.
        target: Label type to read, or ``auto`` to infer it.
        validation: Fraction of train for a validation split if the data has none, in [0, 1). 0 creates none.
        test: Fraction of train for a test split, likewise. ``validation + test`` must be below 1.
        stratify: Whether created splits are stratified by class.
        group: Column with groups that must not be divided between splits.
        on_error: ``fail`` raises an error for unusable examples; ``skip`` skips them.
        limit: Number of examples to keep of each split. None keeps all.
        fold: Fold of a cross-validation over the examples outside the test split; it replaces the test split. None
            keeps the splits.
        slices: Columns to break metrics down by, added to each split as ``slice:NAME``.
        seed: Seed of the created splits and of the examples that ``limit`` keeps.
        nested: Class of a file in nested class folders: all folder names joined, or the top folder's name. None
            makes nested class folders an error.
        options: How to parse text files.

    Returns:
        Splits with encoded labels, notes, and fingerprint.

    Raises:
        InputError: If the data cannot be used; lists all problems.
    """
    skip = on_error == "skip"
    source = load_source(
        path,
        modality=modality,
        config=config,
        revision=revision,
        metadata=bool(slices or group),
        columns=columns,
        nested=nested,
        options=options,
        values=slices,
    )
    if "train" not in source.splits:
        raise InputError(
            Problem("data.path", "must have a train split", f"only {join_quoted(source.splits)}")
        )
    used, column_notes = choose_common_columns(source, modality, columns or {}, group, slices)
    tables, unlabelled_notes = _read_tables(source, used, Path(path).expanduser().is_dir())
    notes = [*source.notes, *column_notes, *unlabelled_notes]

    form = parse_label_form((columns or {}).get("label"))
    tables, type_notes, problems = infer_table_labels(
        tables, form, source.untyped_splits, target, decimal=options.decimal, skip=skip
    )
    notes += type_notes
    form_notes: list[str] = []
    if not problems:
        tables, form_notes, problems = parse_labels(tables, form, used, target)
        notes += form_notes
    if problems:
        raise InputError([*problems, *check_readable(tables, skip)[2]])
    if skip:
        tables, missing_notes = drop_unlabeled(tables)
        notes += missing_notes
    tables = {split: hash_rows(table) for split, table in tables.items()}
    if skip:  # before splits are created, because dropping examples later could remove a class from a split
        tables, dropped_notes, _ = check_readable(tables, skip)
        tables, copy_notes, _ = check_duplicates_across_splits(tables, skip)
        notes += [*dropped_notes, *copy_notes]
        if empty := [split for split, table in tables.items() if len(table) == 0]:
            rule = "must contain at least one usable example"
            raise InputError([Problem(f"The {split} split", rule) for split in empty])
    labels = {split: table.labels for split, table in tables.items()}
    ids = {split: table.ids for split, table in tables.items()}
    targets, problems = resolve_targets(labels, ids, tables["train"].declared, target)
    if targets is not None and used.weight is not None and not TARGETS[targets.target].is_exclusive:
        rule = "must not be set unless each example has exactly one class"
        problems.append(Problem("data.columns.weight", rule, repr(used.weight)))
    notes += note_contradictions(tables)
    fractions = {"validation": validation, "test": test}
    fractions = {split: share for split, share in fractions.items() if share > 0 and split not in tables}
    if used.group is not None:
        problems += check_groups(tables, 1 + len(fractions))
    if targets is not None:
        notes += targets.notes
        tables = {
            split: table.with_labels(targets.labels[split], targets.target, targets.label_names)
            for split, table in tables.items()
        }
        by_class = stratify and TARGETS[targets.target].has_classes
        if by_class and used.group is None:
            problems += check_class_counts(tables["train"], targets.target, targets.label_names, fractions)
        if fractions and not problems:
            tables = create_split_tables(tables, fractions, by_class, seed)
            notes.append(note_created_splits(tables, fractions, by_class, used.group))
        if limit is not None:
            tables = limit_tables(tables, targets.target, limit, seed)
            counts = join_words(f"{len(table)} of {split}" for split, table in tables.items())
            notes.append(f"Limited to {limit} examples of each split: {counts}.")

    if not skip:
        _, reading_notes, unusable = check_readable(tables, skip)
        notes += reading_notes
        problems += [*unusable, *check_duplicates_across_splits(tables, skip)[2]]
    if targets is not None:
        label_notes, label_problems = check_labels(tables, targets.target, targets.label_names)
        notes += label_notes
        problems += label_problems
    problems += value_problems({split: table.dataset for split, table in tables.items()}, slices)
    if targets is None or problems:
        raise InputError(problems)
    pool = None
    if fold is not None:
        folded = fold_tables(tables, fold, validation, by_class, seed)
        pool = Pool(
            folded.pool.dataset,
            {split: tuple(rows.tolist()) for split, rows in folded.rows.items()},
            _fingerprint({"pool": folded.pool}, targets),
        )
        tables = {split: folded.pool.take(rows) for split, rows in folded.rows.items()}
        notes.append(folded.note)
    return LabeledData(
        train=tables["train"].dataset,
        validation=tables["validation"].dataset if "validation" in tables else None,
        test=tables["test"].dataset if "test" in tables else None,
        target=targets.target,
        label_names=targets.label_names,
        notes=tuple(notes),
        fingerprint=_fingerprint(tables, targets),
        pool=pool,
        label_notes=tuple(form_notes),
        columns=resolved_columns(columns or {}, used),
        hashes={split: short_hashes(table.keys) for split, table in tables.items()},
        train_groups=tuple(number_groups(tables["train"]).tolist()),
    )


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


def _fingerprint(tables: Mapping[str, Table], targets: Targets) -> str:
    digest = hashlib.sha256(json.dumps([targets.target, targets.label_names]).encode())
    for split, table in tables.items():
        digest.update(split.encode())
        for content, label in zip(table.contents, table.labels, strict=True):
            digest.update(json.dumps([content, label]).encode())
        for values in (table.weights, table.unknown, table.probabilities):
            if values is not None:
                digest.update(json.dumps(values).encode())
    return digest.hexdigest()
