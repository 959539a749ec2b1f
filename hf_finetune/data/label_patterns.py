"""Labels in file names such as ``cat.0.jpg``: extraction by a regular expression, and inference of the expression."""

import re
from collections.abc import Sequence

from hf_finetune.errors import InputError, Problem, counted, join_quoted
from hf_finetune.fields.patterns import PatternError, find_matches

__all__ = ["labels_from_names", "suggested_pattern"]

PLACE = "data.columns.label.pattern"

# The class is before the number or after it. Digits within a class (n01440764_10026.JPEG) belong to it.
_COMMON = (
    r"^(.+?)[._ -]*\(?\d+\)?\.\w+$",
    r"^([^\W\d_]+)[._ -]",
    r"^\d+[._ -]+(.+)\.\w+$",
    r"^([^._ -]+)[._ -]",
)
_LEAST_FILES_PER_CLASS = 2


def labels_from_names(names: Sequence[str], pattern: str) -> list[str]:
    """Extract the label from each file name.

    Args:
        names: File names with suffix, without folders.
        pattern: Regular expression that is searched for in the name. The label is the group called ``label``, or else
            the only group.

    Returns:
        Label of each file.

    Raises:
        InputError: If the pattern has no such group, cannot be evaluated, or finds no label in a name.
    """
    compiled = re.compile(pattern)
    group = "label" if "label" in compiled.groupindex else 1
    if group == 1 and compiled.groups != 1:
        rule = "must have exactly one capturing group, or a group named label"
        repair = r"For example '^(.+?)[._]\d+'."
        raise InputError(
            Problem(PLACE, rule, f"{pattern!r}, which has {counted(compiled.groups, 'group')}", repair)
        )
    try:
        matches = find_matches(pattern, names)
    except PatternError as error:
        raise InputError(Problem(PLACE, str(error), repr(pattern))) from error
    labels = [matches[name][group] if name in matches else None for name in names]
    missing = [name for name, label in zip(names, labels, strict=True) if not label]
    if missing:
        value = f"{pattern!r}, which does not match {join_quoted(missing)}"
        repair = "Fix the pattern, or move these files elsewhere."
        raise InputError(Problem(PLACE, "must match the name of every file", value, repair))
    return [label for label in labels if label is not None]


def suggested_pattern(names: Sequence[str]) -> str | None:
    """Return a common pattern that divides all file names into classes; None if no pattern fits.

    A pattern fits if it matches every name and finds at least two classes, with two files per class on average.

    Args:
        names: File names with suffix, without folders.
    """
    for pattern in _COMMON:
        labels = [match[1] for match in map(re.compile(pattern).search, names) if match is not None]
        classes = set(labels)
        if len(labels) == len(names) and 1 < len(classes) <= len(names) // _LEAST_FILES_PER_CLASS:
            return pattern
    return None
