"""Detection of probable label errors: variant spellings of a class, and equal examples with different labels."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.data.label_form import LabelForm
from hf_finetune.data.tables import Table
from hf_finetune.errors import counted, join_quoted, join_words
from hf_finetune.targets.names import label_text
from hf_finetune.targets.reading import flat_labels
from hf_finetune.tasks import find_modality

__all__ = ["merge_variants", "normalize_name", "note_contradictions", "note_variants", "spellings"]

HYPHENS = re.compile(r"(?<=[^\W\d_])[-_\u2010-\u2015]+(?=[^\W\d_])")
"""Pattern of hyphens, dashes and underscores between two letters."""
TRAILING = ".,;:!?"
"""Trailing punctuation that does not distinguish classes."""


def normalize_name(name: str) -> str:
    """Return a class name normalized for comparison.

    Case, repeated white space, Unicode form, invisible characters and trailing punctuation are ignored. Hyphens and
    underscores between letters count as spaces.
    """
    characters = unicodedata.normalize("NFKC", name)
    visible = "".join(character for character in characters if unicodedata.category(character) != "Cf")
    text = " ".join(HYPHENS.sub(" ", visible.casefold()).split())
    return text.rstrip(TRAILING + " ") or text


def spellings(names: Mapping[str, int]) -> list[list[str]]:
    """Group class names that are variant spellings of one class.

    Args:
        names: Number of examples of each class, by name.

    Returns:
        Groups of at least two names, the most frequent first.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (-names[name], name)):
        groups.setdefault(normalize_name(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def note_variants(counts: Mapping[str, int], form: LabelForm) -> tuple[str, ...]:
    """Return a note on classes that differ only in spelling, with advice on merging them.

    Args:
        counts: Number of examples of each class, by name.
        form: Format of the labels.

    Returns:
        One note; empty if there are no such classes.
    """
    groups = spellings(counts)
    if not groups:
        return ()
    variants = [" and ".join(f"{name!r} ({counts[name]:,})" for name in group) for group in groups]
    kinds = "case, spaces, hyphens, Unicode form or trailing punctuation"
    note = f"Classes that differ only in {kinds}: {join_words(variants, most=5)}."
    if form.one_column_per_class:
        return (note,)
    separator = {} if form.separator is None else {"separator": repr(form.separator).replace("'", '"')}
    return (f"{note} To merge them, set {form.as_recipe_field(**separator, normalize='true')}.",)


def merge_variants(
    values: Mapping[str, Sequence[Any]], known: Sequence[str] = ()
) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Merge variant spellings of a class into the most frequent one, with white space normalized.

    Args:
        values: Labels of each split: class names, lists of them, or None.
        known: Classes whose spelling is fixed and takes precedence.

    Returns:
        The labels, and notes.
    """
    items = [item for labels in values.values() for item in flat_labels(labels)]
    counts = Counter(label_text(item) for item in items if item is not None)
    chosen = {normalize_name(name): name for name in reversed(known)}
    for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        chosen.setdefault(normalize_name(name), " ".join(name.split()))

    def merged(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return list(dict.fromkeys(merged(item) for item in value))
        return chosen[normalize_name(label_text(value))]

    changed = {name: n for name, n in counts.items() if chosen[normalize_name(name)] != name}
    merged_labels = {split: [merged(value) for value in values[split]] for split in values}
    if not changed:
        return merged_labels, ()
    shown = join_words(f"{name!r} ({n:,}) to {chosen[normalize_name(name)]!r}" for name, n in changed.items())
    return merged_labels, (f"Spellings of one class are merged: {shown}.",)


def note_contradictions(tables: Mapping[str, Table]) -> tuple[str, ...]:
    """Return notes on examples of a split that have the same content but different labels.

    Args:
        tables: Table of each split, with keys; labels may be encoded or not.
    """
    notes = []
    for split, table in tables.items():
        rows: dict[str, list[int]] = {}
        for row, key in enumerate(table.keys):
            if key is not None and table.labels[row] is not None:
                rows.setdefault(key, []).append(row)
        labels = [_comparable(label) for label in table.labels]
        conflicts = [group for group in rows.values() if len({labels[row] for row in group}) > 1]
        if conflicts:
            modality = find_modality(table.dataset.column_names)
            inputs = counted(len(conflicts), modality.name, modality.plural)
            verb, count = "occurs" if len(conflicts) == 1 else "occur", sum(map(len, conflicts))
            shown = join_words((_format_group(table, group) for group in conflicts), most=5)
            notes.append(
                f"{inputs} of {split} {verb} in {count:,} examples with different labels: {shown}. "
                "Correct or remove them: at most one label can be right."
            )
    return tuple(notes)


def _format_group(table: Table, group: Sequence[int]) -> str:
    firsts = {_comparable(table.labels[row]): row for row in reversed(group)}
    pairs = [f"{table.ids[row]!r} ({_label(table.labels[row])})" for row in sorted(firsts.values())]
    return " and ".join(pairs[:3]) + (" and others" if len(pairs) > 3 else "")


def _label(label: Any) -> str:
    return (
        join_quoted(map(label_text, label), most=3) or "none"
        if isinstance(label, list)
        else label_text(label)
    )


def _comparable(label: Any) -> Any:
    return tuple(sorted(map(label_text, label))) if isinstance(label, list) else label_text(label)
