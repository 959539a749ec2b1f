"""Checks of labelled data before anything trains, and what to leave out where the person allows it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.data.column_types import is_number
from hf_finetune.data.formatting import MOST_SHOWN, listed, quoted
from hf_finetune.data.image_checks import check_pictures
from hf_finetune.data.image_notes import PictureNotes
from hf_finetune.data.labels import Target
from hf_finetune.data.tables import Table
from hf_finetune.errors import Problem

__all__ = ["check_class_counts", "check_groups", "check_labels", "drop_copies", "drop_unusable"]


def drop_unusable(
    tables: Mapping[str, Table], skip: bool
) -> tuple[dict[str, Table], list[str], list[Problem]]:
    """Find images that cannot be read, each fully decoded once, and empty texts.

    Args:
        tables: The splits.
        skip: Whether to leave such rows out, with a note, rather than to report them.

    Returns:
        The splits without those rows, notes on them and on how pictures are read, and problems.
    """
    kept, found = {}, []
    pictures = PictureNotes()
    for split, table in tables.items():
        has_images = "image" in table.dataset.column_names
        faults = check_pictures(table, pictures) if has_images else _text_faults(table)
        good = [row for row, fault in enumerate(faults) if fault is None]
        kept[split] = table if len(good) == len(table) else table.take(good)
        found += [(table.ids[row], fault) for row, fault in enumerate(faults) if fault is not None]
    what = "a readable image" if any("image" in t.dataset.column_names for t in tables.values()) else "text"
    more = len(found) - MOST_SHOWN
    if skip:
        notes = [f"{row!r} was left out: {fault}." for row, fault in found[:MOST_SHOWN]]
        notes += [f"{more} more were left out for such reasons."] if more > 0 else []
        return kept, notes + pictures.sentences(), []
    repair = "Replace or remove it, or set data.on_error: skip to leave it out."
    problems = [Problem(row, f"must hold {what}", fault, repair) for row, fault in found[:MOST_SHOWN]]
    if more > 0:
        repair = "Replace or remove them, or set data.on_error: skip to leave them out."
        value = f"{more} more rows that do not"
        problems.append(Problem("The data", f"must hold {what} in every row", value, repair))
    return dict(tables), pictures.sentences(), problems


def _text_faults(table: Table) -> list[str | None]:
    names = [name for name in ("text", "text_pair") if name in table.dataset.column_names]
    faults: list[str | None] = []
    for batch in table.dataset.select_columns(names).iter(batch_size=1000):
        for texts in zip(*(batch[name] for name in names), strict=True):
            empty = [name for name, text in zip(names, texts, strict=True) if not (text or "").strip()]
            faults.append(f"an empty {' and '.join(empty)}" if empty else None)
    return faults


def drop_copies(tables: Mapping[str, Table], skip: bool) -> tuple[dict[str, Table], list[str], list[Problem]]:
    """Find examples that are in two splits, by their content.

    Args:
        tables: The splits, in the order train, validation, test.
        skip: Whether to leave out the copy in the earlier split, with a note, rather than to report it.

    Returns:
        The splits, without those copies if they were skipped, notes, and problems.
    """
    kept = dict(tables)
    notes: list[str] = []
    problems: list[Problem] = []
    order = list(tables)
    for later in reversed(order):
        places = {key: tables[later].ids[row] for row, key in enumerate(tables[later].keys) if key}
        for earlier in order[: order.index(later)]:
            table = kept[earlier]
            copies = {row: key for row, key in enumerate(table.keys) if key and key in places}
            if not copies:
                continue
            shown = listed(f"{table.ids[row]!r} = {places[key]!r}" for row, key in copies.items())
            if skip:
                kept[earlier] = table.take([row for row in range(len(table)) if row not in copies])
                notes.append(
                    f"Examples of {earlier} that are also in {later} were left out of {earlier}: {shown}."
                )
            else:
                rule = f"must not hold the same example in {earlier} and {later}"
                repair = f"Remove one of each, or set data.on_error: skip to leave them out of {earlier}."
                problems.append(Problem("The data", rule, shown, repair))
    return kept, notes, problems


def check_class_counts(
    table: Table, target: Target, label_names: Sequence[str], fractions: Mapping[str, float]
) -> list[Problem]:
    """Check that each class has an example for train and for each split that is to be cut from it.

    Copies of an example count once, for they stay together.
    """
    examples: dict[int, set[Any]] = {}
    for row, label in enumerate(table.labels):
        for index in label if target == "multi_label" else [label]:
            key = table.keys[row]
            examples.setdefault(index, set()).add(row if key is None else key)
    needed = 1 + len(fractions)
    scarce = [f"{label_names[index]!r}: {len(examples[index])}" for index in sorted(examples)
              if len(examples[index]) < needed]  # fmt: skip
    if not scarce:
        return []
    names = " and ".join(f"data.split.{name}" for name in fractions)
    parts = ", ".join(["train", *fractions])
    repair = f"add examples, set {names} to 0, or set data.split.stratify: false."
    if target == "single_label":
        repair = _ask_for_amounts(table, label_names) + repair
    return [
        Problem(
            "Each class",
            f"must have at least {needed} examples, one for each of {parts}",
            listed(scarce),
            repair[:1].upper() + repair[1:],
        )
    ]


def _ask_for_amounts(table: Table, label_names: Sequence[str]) -> str:
    """Return the repair for amounts that were read as classes, if most names are numbers, and most are there once."""
    counts = Counter(table.labels)
    once = sum(count == 1 for count in counts.values())
    numbers = sum(is_number(label_names[index]) for index in counts)
    if min(once, numbers) * 2 <= len(counts):
        return ""
    return "if the labels are amounts, set data.target: regression. Otherwise "


def check_groups(tables: Mapping[str, Table], needed: int) -> list[Problem]:
    """Check that every row has a group, none is in two splits, and train has enough to cut from.

    Args:
        tables: The splits as they were found.
        needed: Number of splits to make of train, train itself included.
    """
    problems = []
    missing = [
        t.ids[row] for t in tables.values() for row, group in enumerate(t.groups or ()) if group is None
    ]
    if missing:
        repair = "Give these rows a group or remove them."
        problems.append(
            Problem(
                "The group column", "must hold a group in every row", f"none for {quoted(missing)}", repair
            )
        )
    found = {
        split: {str(group) for group in table.groups or () if group is not None}
        for split, table in tables.items()
    }
    order = list(found)
    for later in order[1:]:
        for earlier in order[: order.index(later)]:
            shared = sorted(found[earlier] & found[later])
            if shared:
                rule = f"must not have the same group in {earlier} and {later}"
                repair = f"Remove those rows from {earlier}, or leave out data.split.group."
                problems.append(Problem("The data", rule, quoted(shared), repair))
    if len(found["train"]) < needed:
        repair = "Lower the number of splits to make, or choose another column."
        rule = f"must have at least {needed} groups in train to make {needed} splits of it"
        problems.append(Problem("data.split.group", rule, str(len(found["train"])), repair))
    return problems


def check_labels(
    tables: Mapping[str, Table], target: Target, label_names: Sequence[str]
) -> tuple[list[str], list[Problem]]:
    """Check that no split is empty, that there are classes to tell apart, and that train has all of them.

    Args:
        tables: The splits as they will be used.
        target: What the labels are.
        label_names: The classes in the order of their indices.

    Returns:
        Notes and problems.
    """
    problems = [
        Problem(f"The {split} split", "must hold at least one example")
        for split, table in tables.items()
        if len(table) == 0
    ]
    if problems:
        return [], problems
    if target == "regression":
        if len(set(tables["train"].labels)) == 1:
            rule = "must hold at least two different amounts in train"
            return [], [Problem("The label column", rule, repr(tables["train"].labels[0]))]
        return [], []
    classes = {split: _classes(table) for split, table in tables.items()}
    trained = classes["train"]
    least = 1 if target == "multi_label" else 2
    if len(trained) < least or len(label_names) < 2:
        found = ", ".join(repr(label_names[index]) for index in sorted(trained)) or "none"
        problems.append(Problem("The label column", "must hold at least two classes in train", found))
    notes = []
    for split, found_classes in classes.items():
        unseen = [repr(label_names[index]) for index in sorted(found_classes - trained)]
        if unseen:
            rule = "must hold only classes that are in train too"
            repair = "add examples of them to train, or remove them."
            if target == "single_label":
                repair = _ask_for_amounts(tables["train"], label_names) + repair
            repair = repair[:1].upper() + repair[1:]
            problems.append(Problem(f"The {split} split", rule, listed(unseen), repair))
        absent = [repr(label_names[index]) for index in sorted(trained - found_classes)]
        if absent:
            notes.append(f"Classes of train that are not in {split}: {listed(absent)}.")
    return notes, problems


def _classes(table: Table) -> set[int]:
    return {index for label in table.labels for index in (label if isinstance(label, list) else [label])}
