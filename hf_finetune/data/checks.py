"""Checks of labeled data before training, and removal of invalid rows where the recipe allows it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.data.column_types import is_number
from hf_finetune.data.tables import Table
from hf_finetune.errors import MAX_LISTED_PROBLEMS, Problem, join_quoted, join_words
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.reading import flat_labels
from hf_finetune.tasks import find_modality

__all__ = [
    "check_class_counts",
    "check_duplicates_across_splits",
    "check_groups",
    "check_labels",
    "check_readable",
]


def check_readable(
    tables: Mapping[str, Table], skip: bool
) -> tuple[dict[str, Table], list[str], list[Problem]]:
    """Check that files can be decoded and texts are not empty. Each file is fully decoded once.

    Args:
        tables: Table of each split.
        skip: Whether to drop such rows with a note instead of reporting them as problems.

    Returns:
        The splits (without those rows if ``skip``), notes on dropped rows and on how files are read, and problems.
    """
    modality = find_modality(next(iter(tables.values())).dataset.column_names)
    usable, faulty_rows, check = {}, [], modality.check()
    for split, table in tables.items():
        faults = check.faults(table.dataset, table.ids)
        good = [row for row, fault in enumerate(faults) if fault is None]
        usable[split] = table if len(good) == len(table) else table.take(good)
        faulty_rows += [(table.ids[row], fault) for row, fault in enumerate(faults) if fault is not None]
    more = len(faulty_rows) - MAX_LISTED_PROBLEMS
    if skip:
        notes = [f"{row!r} was skipped: {fault}." for row, fault in faulty_rows[:MAX_LISTED_PROBLEMS]]
        notes += [f"{more} more were skipped for similar reasons."] if more > 0 else []
        return usable, notes + check.notes(), []
    repair = "Replace or remove it, or set data.on_error: skip."
    problems = [
        Problem(row, f"must contain {modality.readable}", fault, repair)
        for row, fault in faulty_rows[:MAX_LISTED_PROBLEMS]
    ]
    if more > 0:
        repair = "Replace or remove them, or set data.on_error: skip."
        problems.append(Problem(f"{more} more rows", f"must contain {modality.readable}", "", repair))
    return dict(tables), check.notes(), problems


def check_duplicates_across_splits(
    tables: Mapping[str, Table], skip: bool
) -> tuple[dict[str, Table], list[str], list[Problem]]:
    """Check that no content is in more than one split (leakage between splits).

    Args:
        tables: Table of each split, in the order train, validation, test.
        skip: Whether to drop the copy in the earlier split with a note instead of reporting it as a problem.

    Returns:
        The splits (without those copies if ``skip``), notes, and problems.
    """
    deduplicated = dict(tables)
    notes: list[str] = []
    problems: list[Problem] = []
    order = list(tables)
    for later in reversed(order):
        later_ids = {key: tables[later].ids[row] for row, key in enumerate(tables[later].keys) if key}
        for earlier in order[: order.index(later)]:
            table = deduplicated[earlier]
            copies = {row: key for row, key in enumerate(table.keys) if key and key in later_ids}
            if not copies:
                continue
            shown = join_words(f"{table.ids[row]!r} = {later_ids[key]!r}" for row, key in copies.items())
            if skip:
                deduplicated[earlier] = table.take([row for row in range(len(table)) if row not in copies])
                notes.append(
                    f"Examples of {earlier} that are also in {later} were removed from {earlier}: {shown}."
                )
            else:
                rule = f"must not contain the same example in {earlier} and {later}"
                repair = f"Remove one of each, or set data.on_error: skip to remove them from {earlier}."
                problems.append(Problem("The data", rule, shown, repair))
    return deduplicated, notes, problems


def check_class_counts(
    table: Table, target: TargetName, label_names: Sequence[str], fractions: Mapping[str, float]
) -> list[Problem]:
    """Check that each class has enough examples for train and for each split that will be taken from it.

    Duplicates of an example count once, because they are never separated.

    Args:
        table: Training split before it is divided.
        target: Label type.
        label_names: Class names in the order of their indices.
        fractions: Fraction of each split that will be taken from train, by split name.

    Returns:
        A problem for each class with too few examples.
    """
    examples: dict[int, set[Any]] = {}
    for row, label in enumerate(table.labels):
        for index in label if TARGETS[target].has_several_classes else [label]:
            key = table.keys[row]
            examples.setdefault(index, set()).add(row if key is None else key)
    needed = 1 + len(fractions)
    rare_classes = [f"{label_names[index]!r}: {len(examples[index])}" for index in sorted(examples)
              if len(examples[index]) < needed]  # fmt: skip
    if not rare_classes:
        return []
    rule = f"must have at least {needed} examples, one for each of {', '.join(['train', *fractions])}"
    names = " and ".join(f"data.split.{name}" for name in fractions)
    repair = f"Add examples, set {names} to 0, or set data.split.stratify: false."
    repair = _with_regression_hint(repair, table, target, label_names)
    return [Problem("Each class", rule, join_words(rare_classes), repair)]


def _with_regression_hint(repair: str, table: Table, target: TargetName, label_names: Sequence[str]) -> str:
    """Return a repair, after advice on regression if most classes are numbers and most have a single example."""
    if not TARGETS[target].is_exclusive:
        return repair
    counts = Counter(table.labels)
    once = sum(count == 1 for count in counts.values())
    numbers = sum(is_number(label_names[index]) for index in counts)
    if min(once, numbers) * 2 <= len(counts):
        return repair
    advice = "If the labels are continuous values, set data.target: regression."
    return f"{advice} Otherwise {repair[0].lower()}{repair[1:]}"


def check_groups(
    tables: Mapping[str, Table], needed: int, *, may_recur: bool = False, is_chosen: bool = True
) -> list[Problem]:
    """Check that every row has a group, no group is in two splits, and train has enough groups to be divided.

    Args:
        tables: Table of each split that exists in the data.
        needed: Number of splits into which train will be divided, including train itself.
        may_recur: Whether a group may be in several splits.
        is_chosen: Whether the recipe names the column of the groups; False if it follows from the modality.

    Returns:
        Problems; empty if the groups can be used.
    """
    problems = []
    missing = [
        t.ids[row] for t in tables.values() for row, group in enumerate(t.groups or ()) if group is None
    ]
    if missing:
        rule, value = "must have a value in every row", f"empty cells in {join_quoted(missing)}"
        repair = "Add a group to these rows, or remove them."
        problems.append(Problem("The group column", rule, value, repair))
    groups_of_split = {
        split: {str(group) for group in table.groups or () if group is not None}
        for split, table in tables.items()
    }
    order = list(groups_of_split)
    for later in order[1:] if not may_recur else ():
        for earlier in order[: order.index(later)]:
            shared = sorted(groups_of_split[earlier] & groups_of_split[later])
            if shared:
                rule = f"must not have the same group in {earlier} and {later}"
                otherwise = ", or remove data.split.group from the recipe" if is_chosen else ""
                repair = f"Remove those rows from {earlier}{otherwise}."
                problems.append(Problem("The data", rule, join_quoted(shared), repair))
    if len(groups_of_split["train"]) < needed:
        repair = "Reduce the number of splits, or choose another column."
        rule = f"must have at least {needed} groups in train for {needed} splits"
        problems.append(Problem("data.split.group", rule, str(len(groups_of_split["train"])), repair))
    return problems


def check_labels(
    tables: Mapping[str, Table],
    target: TargetName,
    label_names: Sequence[str],
    *,
    has_rare_classes: bool = False,
) -> tuple[list[str], list[Problem]]:
    """Check that no split is empty, and that train has at least two classes (or values of numeric labels).

    Train must have every class of the other splits, unless most classes are rare; classes that are missing from another
    split are noted.

    Args:
        tables: Table of each final split.
        target: Label type.
        label_names: Class names in the order of their indices.
        has_rare_classes: Whether most classes have few examples, so that the splits cannot have the same ones.

    Returns:
        Notes and problems.
    """
    problems = [
        Problem(f"The {split} split", "must not be empty")
        for split, table in tables.items()
        if len(table) == 0
    ]
    if problems:
        return [], problems
    if not TARGETS[target].has_classes:
        if TARGETS[target].is_numeric and len(set(tables["train"].labels)) == 1:
            rule = "must contain at least two different values in train"
            return [], [Problem("The label column", rule, repr(tables["train"].labels[0]))]
        return [], []
    classes = {split: set(flat_labels(table.labels)) for split, table in tables.items()}
    trained = classes["train"]
    least = 1 if TARGETS[target].has_several_classes else 2
    if len(trained) < least or len(label_names) < 2:
        class_list = ", ".join(repr(label_names[index]) for index in sorted(trained)) or "none"
        problems.append(Problem("The label column", "must contain at least two classes in train", class_list))
    notes: list[str] = []
    for split, found_classes in classes.items() if not has_rare_classes else ():
        unseen = [repr(label_names[index]) for index in sorted(found_classes - trained)]
        if unseen:
            rule = "must contain only classes that are also in train"
            repair = "Add examples of them to train, or remove them."
            repair = _with_regression_hint(repair, tables["train"], target, label_names)
            problems.append(Problem(f"The {split} split", rule, join_words(unseen), repair))
        absent = [repr(label_names[index]) for index in sorted(trained - found_classes)]
        if absent:
            notes.append(f"Classes of train that are not in {split}: {join_words(absent)}.")
    return notes, problems
