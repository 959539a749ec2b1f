"""Loading of labeled data to evaluate a trained model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset

from hf_finetune.data.checks import check_readable
from hf_finetune.data.columns import Columns
from hf_finetune.data.examples_of_rows import examples_of_rows
from hf_finetune.data.input_columns import choose_columns, label_columns
from hf_finetune.data.label_form import LabelForm, parse_label_form
from hf_finetune.data.label_tables import drop_unlabeled, parse_labels
from hf_finetune.data.load import Source, load_source
from hf_finetune.data.split_names import SPLITS
from hf_finetune.data.table_options import table_options
from hf_finetune.data.tables import Table, choose_common_columns, is_unlabeled, read_table
from hf_finetune.data.targets import encode_known, find_unknown_classes
from hf_finetune.errors import InputError, MissingSplitError, Problem, join_quoted
from hf_finetune.recipe.data import DataSpec
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.targets.labels import TargetName
from hf_finetune.tasks import Modality

__all__ = ["load_for_evaluation"]

logger = logging.getLogger(__name__)


def load_for_evaluation(
    path: str,
    *,
    modality: Modality,
    target: TargetName,
    label_names: Sequence[str],
    spec: DataFields | None = None,
    slices: Sequence[str] = (),
    split: str | None = None,
    named: Mapping[str, str] | None = None,
    training_columns: Mapping[str, Any] | None = None,
) -> Dataset:
    """Load one split of labeled data to evaluate a trained model. Logs the notes that ``prepare_data`` returns.

    Args:
        path: Path or Hub id, as in a recipe.
        modality: Kind of input.
        target: Label type of the model.
        label_names: Classes of the model in the order of their indices.
        spec: Data of the model's recipe, which states how to read this data, too; None if there is no recipe.
        slices: Columns for evaluation by slice; those that the data lacks are skipped.
        split: train, validation or test. None selects test if it is labeled, else validation, else train.
        named: Columns of this data that the user named, by role: image, text, text_pair, label. They take precedence.
        training_columns: Column of each role in training, preferred where the data has it; None if unknown.

    Returns:
        Dataset with the columns of ``LabeledData``, and labels encoded as in training.

    Raises:
        MissingSplitError: If the data has no such split.
        InputError: If the data cannot be used, or if it has labels that the model does not know.
    """
    spec = spec or DataSpec.model_construct(path=path)
    source = _load_splits(path, modality, spec, slices)
    source, columns, sources = _join_rows(source, modality, spec, named or {})
    _check_split(source, split)
    if sources:  # the columns of the rows were used already
        named, training_columns = {}, None
    group = spec.split.group or spec.columns.group
    used, form, column_notes = _choose_columns(
        path, source, modality, columns, group, slices, named or {}, training_columns
    )
    name, table = _choose_split(source, used, split)
    skip = spec.on_error == "skip"
    parsed, type_notes, label_notes, problems = parse_labels(
        *({name: table}, form, used, target),
        untyped_splits=source.untyped_splits,
        decimal=spec.decimal,
        skip=skip,
        known=label_names,
    )
    parsed, missing_notes = drop_unlabeled(parsed) if skip else (parsed, [])
    if not problems:
        parsed, problems = _encode_labels(parsed, target, label_names)
    usable, dropped_notes, unusable = check_readable(parsed, skip)
    problems += unusable
    if not problems and len(usable[name]) == 0:
        problems = [Problem(f"The {name} split", "must not be empty")]
    if problems:
        raise InputError(problems)
    logger.info("Evaluating on the %s split: %d examples.", name, len(usable[name]))
    if absent := [name for name in slices if name not in used.slices]:
        logger.info("The data has no column %s, so those slices are not evaluated.", join_quoted(absent))
    notes = [*source.notes, *column_notes, *table.notes, *type_notes, *label_notes]
    for note in [*notes, *missing_notes, *dropped_notes]:
        logger.info("%s", note)
    return usable[name].dataset


def _load_splits(path: str, modality: Modality, spec: DataFields, slices: Sequence[str]) -> Source:
    """Load all splits."""
    return load_source(
        path,
        modality=modality,
        metadata=bool(slices or spec.split.group or spec.columns.group),
        columns=spec.columns.model_dump(),
        nested=spec.nested,
        options=table_options(spec),
        values=slices,
    )


def _join_rows(
    source: Source, modality: Modality, spec: DataFields, named: Mapping[str, str]
) -> tuple[Source, dict[str, Any], Mapping[str, str]]:
    """Join rows to examples as ``examples_of_rows`` does, with problems in the words of an evaluation."""
    try:
        return examples_of_rows(source, modality, spec, named=named, divides=False)
    except InputError as error:
        raise InputError([_in_evaluation(problem, named) for problem in error.problems]) from None


def _in_evaluation(problem: Problem, named: Mapping[str, str]) -> Problem:
    if problem.place == "data.split.time":
        return replace(
            problem, repair="The date is that of the run's recipe: evaluate on data that covers it."
        )
    role = problem.place.removeprefix("data.columns.")
    return replace(problem, place=f"--column {role}") if role in named else problem


def _check_split(source: Source, split: str | None) -> None:
    """Raise an error if the data lacks the requested split."""
    if split is not None and split not in source.splits:
        repair = f"Known: {join_quoted(source.splits)}."
        raise MissingSplitError(Problem("The split", "must exist in the data", repr(split), repair))


def _choose_columns(
    path: str,
    source: Source,
    modality: Modality,
    columns: Mapping[str, Any],
    group: str | None,
    slices: Sequence[str],
    named: Mapping[str, str],
    training_columns: Mapping[str, Any] | None,
) -> tuple[Columns, LabelForm, list[str]]:
    """Choose the columns to use, without those of slices and groups that a split lacks.

    Returns:
        The columns, the format of the labels, and notes.
    """
    present = source.splits[min(source.splits, key=SPLITS.index)].column_names
    columns, replacement_notes = _apply_training_columns(
        path, present, modality, columns, named, training_columns
    )
    common = set.intersection(*(set(dataset.column_names) for dataset in source.splits.values()))
    used, column_notes = choose_common_columns(
        source,
        modality,
        columns,
        group if group in common else None,
        [name for name in slices if name in common],
    )
    return used, parse_label_form(columns.get("label")), [*replacement_notes, *column_notes]


def _choose_split(source: Source, used: Columns, split: str | None) -> tuple[str, Table]:
    """Read the requested split; without a request, the last one that is labeled, or else the first."""
    order = [split] if split is not None else [name for name in reversed(SPLITS) if name in source.splits]
    for name in order:
        table = read_table(source.splits[name], used, name, source.root, source.files.get(name))
        if not is_unlabeled(table):
            break
    return name, table


def _encode_labels(
    tables: Mapping[str, Table], target: TargetName, label_names: Sequence[str]
) -> tuple[dict[str, Table], list[Problem]]:
    """Encode the labels of a split for a model; with problems, the split is returned unchanged."""
    ((name, table),) = tables.items()
    labels, problems = encode_known(name, table.labels, table.ids, target, label_names)
    problems += find_unknown_classes(table.unknown, table.ids, label_names)
    if not problems:
        table = table.with_labels(labels, target, label_names)
    return {name: table}, problems


def _apply_training_columns(
    path: str,
    present: Sequence[str],
    modality: Modality,
    columns: Mapping[str, Any],
    named: Mapping[str, str],
    training_columns: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the columns to read (those of training where the data has them), and notes on replacements."""
    chosen = {key: name for key, name in columns.items() if key != "group"}
    if training_columns is None:
        return {**chosen, **named}, []
    has_label = all(name in present for name in label_columns(training_columns))
    chosen["label"] = training_columns.get("label") if has_label else None
    if modality.opens_files:
        name = training_columns.get(modality.main_column)
        chosen[modality.main_column] = name if name in present else None
        return {**chosen, **named}, []
    inputs = {key: name for key, name in named.items() if key != "label"}
    used, notes = choose_columns(path, present, modality, inputs, training_columns)
    chosen |= {key: used.get(key) for key in modality.columns}
    chosen["label"] = named.get("label", chosen["label"])
    return chosen, notes
