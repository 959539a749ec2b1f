"""Base class of label types with named classes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_finetune.errors import join_quoted
from hf_finetune.targets.base import Target
from hf_finetune.targets.names import class_order, label_text
from hf_finetune.targets.reading import LabelSummary, flat_labels

__all__ = ["ClassTarget"]


class ClassTarget(Target):
    """Label type with named classes."""

    has_classes = True
    constant_baseline = "majority-class baseline"

    def label_type_notes(self, labels: LabelSummary, *, inferred: bool) -> tuple[str, ...]:
        """Return a note if the names of the classes are numbers or booleans in the data."""
        if all(isinstance(item, str) for item in labels.items):
            return ()
        names = join_quoted(sorted({label_text(item) for item in labels.items}, key=class_order), most=5)
        hint = " If they are continuous values, set data.target: regression."
        if self.has_several_classes or any(isinstance(item, bool) for item in labels.items):
            hint = ""
        return (f"The labels are not strings; they are read as the class names {names}.{hint}",)

    def output_names(self, labels: Iterable[Any], declared: Sequence[str] | None) -> tuple[str, ...]:
        """Return the names of the classes: the declared ones, and then the others in their order."""
        names = {label_text(item) for item in flat_labels(labels)}
        known = tuple(declared or ())
        return (*known, *sorted(names - set(known), key=class_order))

    def encode(self, label: Any, indices: Mapping[str, int]) -> Any:
        """Return the index of the class, or the sorted indices of a list of classes."""
        if isinstance(label, list):
            return sorted(indices[label_text(item)] for item in label)
        return indices[label_text(label)]

    def describe_labels(self, labels: Sequence[Any], label_names: Sequence[str]) -> str:
        """Return the number of classes, and the sizes of the smallest and the largest."""
        counts = Counter(flat_labels(labels))
        sizes = sorted((counts[index], name) for index, name in enumerate(label_names))
        (fewest, rarest), (most, commonest) = sizes[0], sizes[-1]
        each = f"{fewest:,} ({rarest}) to {most:,} ({commonest})" if fewest < most else f"{fewest:,}"
        return f"{len(label_names):,} classes with {each} examples"
