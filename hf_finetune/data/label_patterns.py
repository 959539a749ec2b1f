"""Labels in the names of files, such as ``cat.0.jpg``: read by a pattern, and the pattern that fits some names."""

import re
from collections.abc import Sequence

from hf_finetune.data.formatting import quoted
from hf_finetune.errors import InputError, Problem
from hf_finetune.recipe.patterns import PatternError, matching

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
    """Return the label that a pattern finds in each file name, the ending included.

    Args:
        names: File names, without folders.
        pattern: A regular expression that is searched for in the name. The group called ``label`` is the label, or
            the only group there is.

    Raises:
        InputError: If the pattern has no such group, or does not match every name.
    """
    compiled = re.compile(pattern)
    group = "label" if "label" in compiled.groupindex else 1
    if group == 1 and compiled.groups != 1:
        rule = "must have one group, or one called label"
        repair = r"For example '^(.+?)[._]\d+'."
        raise InputError(Problem(PLACE, rule, f"{pattern!r}, which has {compiled.groups}", repair))
    try:
        matches = matching(pattern, names)
    except PatternError as error:
        raise InputError(Problem(PLACE, str(error), repr(pattern))) from error
    labels = [matches[name][group] if name in matches else None for name in names]
    missing = [name for name, label in zip(names, labels, strict=True) if not label]
    if missing:
        value = f"{pattern!r}, which finds no label in {quoted(missing)}"
        repair = "Mend the pattern, or move these files elsewhere."
        raise InputError(Problem(PLACE, "must match the name of every file", value, repair))
    return [label for label in labels if label is not None]


def suggested_pattern(names: Sequence[str]) -> str | None:
    """Return a pattern by which file names fall into at least two classes of several files; None if none is plain.

    Args:
        names: File names, without folders.
    """
    for pattern in _COMMON:
        labels = [match[1] for match in map(re.compile(pattern).search, names) if match is not None]
        classes = set(labels)
        if len(labels) == len(names) and 1 < len(classes) <= len(names) // _LEAST_FILES_PER_CLASS:
            return pattern
    return None
