"""Loading of labeled data to evaluate a trained model."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset

from hf_finetune.data.checks import check_readable
from hf_finetune.data.input_columns import choose_columns, label_columns
from hf_finetune.data.label_form import parse_label_form
from hf_finetune.data.label_tables import drop_unlabeled, infer_table_labels, parse_labels
from hf_finetune.data.load import load_source
from hf_finetune.data.split_names import SPLITS
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions
from hf_finetune.data.tables import choose_common_columns, is_unlabeled, read_table
from hf_finetune.data.targets import encode_known, find_unknown_classes
from hf_finetune.errors import InputError, Problem, join_quoted
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
    columns: Mapping[str, Any] | None = None,
    split: str | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    slices: Sequence[str] = (),
    nested: Literal["join", "top"] | None = None,
    options: TableOptions = NO_OPTIONS,
    group: str | None = None,
    named: Mapping[str, str] | None = None,
    training_columns: Mapping[str, Any] | None = None,
) -> Dataset:
    """Load one split of labeled data to evaluate a trained model. Logs the notes that ``prepare_data`` returns.

    Args:
        path: As for ``prepare_data``.
        modality: Kind of input.
        target: Label type of the model.
        label_names: Classes of the model in the order of their indices.
        columns: As for ``prepare_data``.
        split: train, validation or test. None selects test if it is labeled, else validation, else train.
        on_error: Whether unusable examples are reported as errors or dropped.
        slices: Columns for evaluation by slice; those that the data lacks are skipped.
        nested: As for ``prepare_data``.
        options: Options for reading text files.
        group: Group column, which is loaded if the data has it.
        named: Columns of this data that the user named, by role: image, text, text_pair, label. They take precedence.
        training_columns: Column of each role in training, preferred where the data has it; None if unknown.

    Returns:
        Dataset with the columns of ``LabeledData``, and labels encoded as in training.

    Raises:
        InputError: If the data cannot be used, or if it has labels that the model does not know.
    """
    source = load_source(
        path,
        modality=modality,
        metadata=bool(slices or group),
        columns=columns,
        nested=nested,
        options=options,
        values=slices,
    )
    if split is not None and split not in source.splits:
        repair = f"Known: {join_quoted(source.splits)}."
        raise InputError(Problem("The split", "must exist in the data", repr(split), repair))
    common = set.intersection(*(set(dataset.column_names) for dataset in source.splits.values()))
    present_slices = [name for name in slices if name in common]
    columns, replacement_notes = _apply_training_columns(
        *(path, source.splits[min(source.splits, key=SPLITS.index)].column_names, modality),
        *(columns or {}, named or {}, training_columns),
    )
    group_column = group if group in common else None
    used, column_notes = choose_common_columns(source, modality, columns, group_column, present_slices)
    order = [split] if split is not None else [name for name in reversed(SPLITS) if name in source.splits]
    for name in order:
        table = read_table(source.splits[name], used, name, source.root, source.files.get(name))
        if not is_unlabeled(table) or name == order[-1]:
            break
    form = parse_label_form(columns.get("label"))
    read, label_notes, problems = infer_table_labels(
        {name: table},
        form,
        source.untyped_splits,
        target,
        decimal=options.decimal,
        skip=on_error == "skip",
        known=label_names,
    )
    if not problems:
        read, more_notes, problems = parse_labels(read, form, used, target, label_names)
        label_notes += more_notes
    if on_error == "skip":
        read, missing_notes = drop_unlabeled(read)
        label_notes += missing_notes
    table = read[name]
    if not problems:
        labels, problems = encode_known(name, table.labels, table.ids, target, label_names)
        problems += find_unknown_classes(table.unknown, table.ids, label_names)
    if not problems:
        table = table.with_labels(labels, target, label_names)
    usable, dropped_notes, unusable = check_readable({name: table}, on_error == "skip")
    problems += unusable
    if not problems and len(usable[name]) == 0:
        problems = [Problem(f"The {name} split", "must not be empty")]
    if problems:
        raise InputError(problems)
    logger.info("Evaluating on the %s split: %d examples.", name, len(usable[name]))
    if absent := [name for name in slices if name not in present_slices]:
        logger.info("The data has no column %s, so those slices are not evaluated.", join_quoted(absent))
    notes = [*source.notes, *replacement_notes, *column_notes, *table.notes, *label_notes, *dropped_notes]
    for note in notes:
        logger.info("%s", note)
    return usable[name].dataset


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
