"""Bad inputs: labels in an unexpected form, contradictory settings, and weights."""

from collections.abc import Callable
from pathlib import Path

from bad_input_case import Case

__all__ = ["CASES"]

RUN = "run text.yaml --output-dir out data.path=./rows.csv "


def rows(header: str, *cells: str) -> Callable[[Path], None]:
    """Write a table of 24 texts whose other columns repeat the given cells."""

    def write(folder: Path) -> None:
        lines = [
            f"film {number} is {'very ' * (number % 4)}so,{cells[number % len(cells)]}"
            for number in range(24)
        ]
        (folder / "rows.csv").write_text("\n".join([f"text,{header}", *lines, ""]), encoding="utf-8")

    return write


def one_class_in_validation(folder: Path) -> None:
    """Write a validation split of one class."""
    for split, labels in {"train": ("ham", "spam"), "validation": ("ham",), "test": ("ham", "spam")}.items():
        lines = [f"{split} {number},{labels[number % len(labels)]}" for number in range(8)]
        (folder / "d").mkdir(exist_ok=True)
        (folder / "d" / f"{split}.csv").write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")


CASES = [
    Case(
        "class columns with only 1 and empty cells",
        "run text.yaml --output-dir out data.path=./rows.csv 'data.columns.label=[rude, spam]'",
        (
            "Problem:\n"
            "  The labels must contain 0 where a class does not apply, in the columns 'rude', 'spam'. Got "
            "only 1 and empty cells. Empty cells are read as unknown: write 0 where the class does not "
            "apply."
        ),
        rows("rude,spam", "1,", ",1", "1,1"),
    ),
    Case(
        "a fraction in class columns of zeros and ones",
        "run text.yaml --output-dir out data.path=./rows.csv 'data.columns.label=[rude, spam, late]'",
        (
            "Problem:\n"
            "  The labels must be 0 or 1 for each class, or nonnegative probabilities that sum to 1 in "
            "every row. Got [0.5, 1.0, 0.0] in 'train:22'. All other rows contain only 0 and 1: write 0 or "
            "1 here too, or leave the cell empty if its value is unknown."
        ),
        rows("rude,spam,late", *["1,1,0", "0,0,1"] * 11, "0.5,1,0", "0,0,0"),
    ),
    Case(
        "several labels per cell, with no separator in the recipe",
        RUN,
        (
            "Problem:\n"
            "  The label column must be unambiguous: one label or several labels per cell. Got 6 rows with "
            "',', such as 'rude,spam'; 'rude' and 'spam' are also labels. If a cell contains several "
            'labels, set columns: {label: {name: label, separator: ","}}; if such a cell is a single class '
            "name, set data.target: single_label."
        ),
        rows("label", "rude", "spam", "ok", '"rude,spam"'),
    ),
    Case(
        "`target: multi_label` without a separator in the recipe",
        RUN + "data.target=multi_label",
        (
            "Problem:\n"
            "  The label column must contain several classes per cell if data.target is multi_label. Got "
            "texts, such as 'rude;spam'. Set the separator of the classes: columns: {label: {name: label, "
            'separator: ";"}}.'
        ),
        rows("label", "rude", "spam", "ok", "rude;spam"),
    ),
    Case(
        "one column per class, without `columns.label`",
        RUN,
        (
            "Problem:\n  data.columns.label must be set, because no column looks like labels. Got columns "
            "'text', 'toxic', 'insult'. If each class has a column of its own, list them: columns: {label: "
            "[toxic, insult]}."
        ),
        rows("toxic,insult", "0,0", "1,0", "0,1", "1,1"),
    ),
    Case(
        "a value other than 0 and 1 in a class column",
        RUN + "data.columns.label=[toxic,insult]",
        (
            "Problem:\n"
            "  The labels must contain 0, 1 or a probability in the columns 'toxic', 'insult'. Got 'maybe' "
            "in 'train:3', 'train:7', 'train:11', 'train:15', 'train:19', 'train:23'. Write 0 or 1 (or no "
            "and yes, false and true); leave a cell empty if its value is unknown."
        ),
        rows("toxic,insult", "0,0", "1,0", "0,1", "1,maybe"),
    ),
    Case(
        "votes in class columns, which sum to more than 1",
        RUN + "data.columns.label=[good,bad]",
        (
            "Problem:\n  The labels must be 0 or 1 for each class, or nonnegative probabilities that sum to "
            "1 in every row. Got [3.0, 1.0] in 'train:0', 'train:1', 'train:2', 'train:3', 'train:4', "
            "'train:5', 'train:6', 'train:7' and 16 more. Divide each row by its sum if the numbers are "
            "votes or percentages."
        ),
        rows("good,bad", "3,1"),
    ),
    Case(
        "lists of zeros and ones in csv cells without class names",
        RUN,
        (
            "Problem:\n"
            "  The label column must have class names for the positions of its lists. Got lists of 3 "
            "values, such as [0, 1, 1]. Set columns: {label: {name: label, classes: [first, second, "
            "...]}}, with 3 names in the order of the positions."
        ),
        rows("label", '"[0, 1, 1]"', '"[1, 0, 0]"'),
    ),
    Case(
        "a negative example weight",
        RUN + "data.columns.weight=w",
        (
            "Problem:\n"
            "  data.columns.weight must be a column of nonnegative numbers. Got '-1' in 'w' for 'train:1', "
            "'train:3', 'train:5', 'train:7', 'train:9', 'train:11', 'train:13', 'train:15' and 4 more. "
            "Write 0 to exclude a row from the loss."
        ),
        rows("label,w", "ham,1", "spam,-1"),
    ),
    Case(
        "example weights for regression labels",
        RUN + "data.columns.weight=w",
        (
            "Problem:\n  data.columns.weight must not be set unless each example has exactly one class. Got 'w'."
        ),
        rows("label,w", "0.5,1", "1.25,2", "3.5,1", "2.25,2"),
    ),
    Case(
        "a primary metric that is undefined on a validation split of one class",
        "run text.yaml --output-dir out data.path=./d metrics=[roc_auc]",
        (
            "Problem:\n  metrics[0] must be defined on the validation split. Got 'roc_auc', which is "
            "undefined on 8 examples of the classes 'ham'. Use a metric that is "
            "defined there, or add validation examples with data.split.validation; "
            "with best: null a stage keeps its last epoch."
        ),
        one_class_in_validation,
    ),
    Case(
        "contradicting fields of a label column",
        "plan text.yaml 'data.columns.label={name: [a, b], separator: ;}'",
        (
            "Problem:\n  data.columns.label.separator must not be set unless the labels are in one column. Got "
            "';'."
        ),
    ),
]
