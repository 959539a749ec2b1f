"""Rules between the fields of ``data.columns.label``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hf_finetune.errors import Problem
from hf_finetune.fields.raw_content import as_mapping

__all__ = ["label_column_problems"]

PLACE = "data.columns.label"
SINGLE_COLUMN_FIELDS = ("separator", "classes", "empty")
"""Fields that describe the cells of a single label column."""


def label_column_problems(columns: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems between the fields of ``columns.label``.

    Args:
        columns: ``data.columns`` as plain mappings, any part of which may be missing or of the wrong type.
    """
    label_spec = columns.get("label")
    label = {"name": label_spec} if isinstance(label_spec, list | tuple) else as_mapping(label_spec)
    name, source, pattern = (label.get(field) for field in ("name", "from", "pattern"))
    if isinstance(name, list | tuple):
        if len(name) < 2:
            repair = "If the labels are in one column, write only its name."
            yield Problem(f"{PLACE}.name", "must list at least two columns", repr(list(name)), repair)
        yield from _repeated(f"{PLACE}.name", name)
    if isinstance(label.get("classes"), list | tuple):
        yield from _repeated(f"{PLACE}.classes", label["classes"])
    if source is not None and name is not None:
        yield Problem(f"{PLACE}.name", "must not be set when from is set", repr(name))
    if (source is None) != (pattern is None):
        rule = "must be set together with from: name"
        yield Problem(f"{PLACE}.pattern", rule, "" if pattern is None else repr(pattern))
    if isinstance(pattern, str) and _groups(pattern) != 1:
        repair = r"For example '^(.+?)\.\d+\.jpg$'; write a non-capturing group as (?:...)."
        yield Problem(
            f"{PLACE}.pattern", "must have exactly one capturing group, the class", repr(pattern), repair
        )
    for field in SINGLE_COLUMN_FIELDS:
        if label.get(field) not in (None, "missing") and (
            source is not None or isinstance(name, list | tuple)
        ):
            rule = "must not be set unless the labels are in one column"
            yield Problem(f"{PLACE}.{field}", rule, repr(label[field]))
    if label.get("empty") == "none" and label.get("separator") is None:
        repair = "In a column of lists, write an empty list as []; in other columns, an empty cell is a missing label."
        yield Problem(f"{PLACE}.empty", "must not be set unless separator is set", "'none'", repair)


def _groups(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError):
        return 1  # reported by the field itself


def _repeated(place: str, names: Any) -> Iterator[Problem]:
    repeated = [name for name in dict.fromkeys(map(str, names)) if list(map(str, names)).count(name) > 1]
    if repeated:
        yield Problem(place, "must not contain duplicates", ", ".join(map(repr, repeated)))
