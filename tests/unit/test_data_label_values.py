"""Labels in every form of tables: separated cells, list literals, a column or a position for each class."""

import pytest

from hf_finetune.data.label_form import parse_label_form
from hf_finetune.data.label_literals import looks_like_literal, read_literal
from hf_finetune.data.label_separator import likely_separator
from hf_finetune.data.label_values import read_values


def read(cells, label="tags", target="auto", **options):
    found, problems = read_values(
        {"train": cells}, {"train": [f"train:{row}" for row in range(len(cells))]}, parse_label_form(label),
        requested=target, **options,
    )  # fmt: skip
    return found, "\n".join(map(str, problems))


def values(cells, label="tags", target="auto", **options):
    found, text = read(cells, label, target, **options)
    assert text == ""
    return found.values["train"]


def error(cells, label="tags", target="auto", **options):
    return read(cells, label, target, **options)[1]


BY_COMMA = {"name": "tags", "separator": ","}


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["rude"] * 9 + ["spam"] * 9 + ["rude,spam"], ","),  # one row is enough: both parts are labels
        (["rude, spam", "spam, insult", "insult, rude", "rude, spam"], ","),
        (["a;b", "b;c", "a;c", "a"], ";"),
        (["a|b|c", "b|c", "a|c"], "|"),
        (["rude,spam", "spam,rude"], ","),
        (["a, b, c", "c, b", "a, b", "rare, a", "a, c"], ","),  # a label of one row among known ones
        (["rude,spam,", "rude,", "spam,"], ","),
        (["a", "b", "c", "a b", "b c", "a b c"], " "),  # all parts are labels, in many combinations
    ],
)
def test_cells_whose_parts_recur_as_labels_need_a_setting(cells, separator):
    found = likely_separator(cells)
    assert (found.separator, found.is_certain) == (separator, True)
    text = error(cells)
    assert f'columns: {{label: {{name: tags, separator: "{separator}"}}}}' in text
    assert "set data.target: single_label" in text
    assert values(cells, target="single_label") == cells


@pytest.mark.parametrize(
    "cells",
    [
        ["Salt, pepper", "Salt, pepper", "Sugar", "Flour"],
        ["Paris, France", "Lyon, France", "Berlin, Germany"],
        ["yes, I do", "no, I do not"],
        ["hot dog", "ice cream", "french fries"],
        ["very positive", "positive", "neutral", "negative", "very negative"],
        ["n/a", "and/or"],
        ["animal/cat", "animal/dog", "plant/oak"],
        ["1,5", "2,5", "1,2", "2"],
        ["C++", "C", "C#"],
        ["Tom & Jerry", "Simpsons"],
        ["good", "bad"],
        [","],
        [],
    ],
)
def test_names_whose_parts_are_no_labels_stay_one_class(cells):
    assert likely_separator(cells) is None
    assert values(cells) == cells


@pytest.mark.parametrize(
    "cells",
    [
        ["Newark, NJ", "Newark, DE", "Dover, NJ", "Dover, DE"],
        ["hot", "dog", "hot dog"],
        ["clear road", "clear water", "haze road", "haze water", "clear road water", "haze road water", "clear",
         "road", "water"],
    ],
)  # fmt: skip
def test_ambiguous_labels_are_reported_and_read_as_one_class(cells):
    found, text = read(cells)
    assert (found.values["train"], text) == (cells, "")
    assert "each such cell is read as one class. If a cell contains several labels, set" in found.notes[0]


def test_separated_cells_become_lists_of_classes():
    cells = ["rude, spam", "ok", " spam ,, rude,", "rude,rude", None]
    assert values(cells, BY_COMMA) == [["rude", "spam"], ["ok"], ["spam", "rude"], ["rude"], None]
    assert values(["1 2", 2], {"name": "tags", "separator": " "}) == [["1", "2"], ["2"]]


def test_an_empty_separated_cell_is_a_missing_label_unless_the_recipe_declares_it_as_no_class():
    assert values(["a", None, " , "], BY_COMMA) == [["a"], None, None]
    found, _ = read(["a,b", None, " , "], {**BY_COMMA, "empty": "none"})
    assert found.values["train"] == [["a", "b"], [], []]
    assert found.notes == ("2 rows have an empty label cell and are read as having none of the classes.",)


def test_a_separator_that_no_cell_contains_is_reported_and_lists_need_none():
    assert read(["a", "b"], BY_COMMA)[0].notes == (
        "No label cell contains the separator ',': each has one class.",
    )
    assert error([["a"], ["b"]], BY_COMMA) == (
        "The label column must contain strings if a separator is set. Got lists in 'train:0', 'train:1'. "
        "Remove data.columns.label.separator, which does not apply to lists."
    )


def test_texts_for_several_labels_need_a_separator():
    text = error(["rude;spam", "ok", "rude", "spam"], target="multi_label")
    assert text == (
        "The label column must contain several classes per cell if data.target is multi_label. Got texts, "
        "such as 'rude;spam'. Set the separator of the classes: columns: {label: {name: tags, separator: "
        '";"}}.'
    )


@pytest.mark.parametrize(
    ("cell", "content"),
    [
        ("['a', 'b']", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        (" [1, 0] ", [1, 0]),
        ("[]", []),
        ("('a', 'b')", ["a", "b"]),
        ("{'b', 'a'}", ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),  # as numpy prints texts
        ("[0 1 1]", [0, 1, 1]),
        ("[0. 1.]", [0.0, 1.0]),
        ('{"a": 0.25, "b": 0.75}', {"a": 0.25, "b": 0.75}),
        ("[true, null]", [True, None]),
        ("['it''s', 'b']", None),
        ("['a', 'b' 'c']", None),
        ("[soup]", None),
        ("[__import__('os').getcwd()]", None),
        ("[" * 5000 + "]" * 5000, None),
        ("[" + "1," * 60_000 + "1]", None),
    ],
)
def test_list_literals_are_read_and_never_run(cell, content):
    assert looks_like_literal(cell)
    assert read_literal(cell) == content


def test_cells_with_lists_become_lists_if_all_can_be_read():
    assert values(["['a', 'b']", '["b"]', "[]", None]) == [["a", "b"], ["b"], [], None]
    assert error(["['a', 'b']", "b"]) == (
        "The label column must contain a valid list in every row, or in no row. Got 'b' in 'train:1'. "
        "Write ['a', 'b'] in every row, or set data.target: single_label if each cell is a single class "
        "name."
    )
    assert "Got '[soup]' in 'train:0'" in error(["[soup]", "[salad]"])
    assert values(["[soup]", "[salad]"], target="single_label") == ["[soup]", "[salad]"]
    assert values(["[soup]", "salad"]) == ["[soup]", "salad"]


CLASSES = ["toxic", "obscene", "insult"]


def test_one_hot_columns_accept_every_spelling_of_yes_and_no():
    cells = [(1, 0, "yes"), ("0", "1.0", "No"), (True, False, "TRUE"), (0, 0, 0), (1.0, "false", 1)]
    expected = [["toxic", "insult"], ["obscene"], ["toxic", "insult"], [], ["toxic", "insult"]]
    found, text = read(cells, CLASSES)
    assert (found.values["train"], found.names, found.unknown, text) == (expected, tuple(CLASSES), None, "")


def test_an_empty_one_hot_cell_is_unknown_and_a_row_of_them_has_no_label():
    found, _ = read([(1, None, 0), (None, None, None), ("", 1, float("nan")), None], CLASSES)
    assert found.values["train"] == [["toxic"], None, ["obscene"], None]
    assert found.unknown["train"] == [["obscene"], [], ["toxic", "insult"], []]
    assert found.notes[-1] == (
        "3 of 6 label cells are empty: they are read as unknown, and excluded from the loss and the metrics."
    )


def test_exclusive_one_hot_columns_are_reported_and_can_be_single_label():
    cells = [(1, 0, 0), (0, 0, 1)]
    assert "set data.target: single_label" in read(cells, CLASSES)[0].notes[-1]
    assert values(cells, CLASSES, "single_label") == ["toxic", "insult"]
    assert error([(1, 0, 0), (1, 0, 1), (0, 0, 0)], CLASSES, "single_label") == (
        "The labels must have exactly one class in every row if data.target is single_label. Got no class "
        "or several classes in 'train:1', 'train:2'. Remove data.target if a row may have no class or "
        "several classes."
    )


@pytest.mark.parametrize("cell", ["x", "maybe", "2020-01-01"])
def test_other_cells_of_one_hot_columns_name_their_row(cell):
    assert error([(1, 0, 0), (0, cell, 1)], CLASSES) == (
        "The labels must contain 0, 1 or a probability in the columns 'toxic', 'obscene', 'insult'. Got "
        f"{cell!r} in 'train:1'. Write 0 or 1 (or no and yes, false and true); leave a cell empty if its "
        "value is unknown."
    )


def test_lists_of_zeros_and_ones_need_class_names():
    cells = [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert error(cells) == (
        "The label column must have class names for the positions of its lists. Got lists of 3 values, "
        "such as [0, 1, 1]. Set columns: {label: {name: tags, classes: [first, second, ...]}}, with 3 "
        "names in the order of the positions."
    )
    named = {"name": "tags", "classes": CLASSES}
    expected = [["obscene", "insult"], ["toxic"], []]
    assert values(cells, named) == expected
    assert values(["[0, 1, 1]", "[1 0 0]", "[0, 0, 0]"], named) == expected
    assert values(cells, known=CLASSES) == expected  # of a finished model
    assert error([[0, 1], [1, 0]], named) == (
        "The label column must contain lists of 3 values, one for each of data.columns.label.classes. Got "
        "other values in 'train:0', 'train:1'."
    )


def test_lists_of_class_numbers_stay_lists_of_classes():
    assert values([[0, 2], [1]]) == [[0, 2], [1]]
    assert values([[0], [1], [1]]) == [[0], [1], [1]]
    assert values([[0, 1], [1, 0]], declared=["a", "b"]) == [[0, 1], [1, 0]]


def test_probabilities_are_soft_labels_in_every_form():
    expected = [{"a": 0.25, "b": 0.75}, {"a": 1.0, "b": 0.0}]
    for cells, label in (
        ([(0.25, 0.75), (1, 0)], ["a", "b"]),
        ([("0.25", "0.75"), ("1", "0")], ["a", "b"]),
        ([("0,25", "0,75"), ("1", "0")], ["a", "b"]),
        ([[0.25, 0.75], [1.0, 0.0]], {"name": "tags", "classes": ["a", "b"]}),
        (["[0.25, 0.75]", "[1, 0]"], {"name": "tags", "classes": ["a", "b"]}),
        ([{"a": 0.25, "b": 0.75}, {"a": 1.0, "b": None}], "tags"),
        (['{"a": 0.25, "b": 0.75}', "{'a': 1}"], "tags"),
    ):
        found, text = read(cells, label)
        assert (found.probabilities["train"], found.values["train"], text) == (expected, ["b", "a"], ""), (
            cells
        )
        assert "the loss is the cross-entropy with them" in found.notes[0]


def test_probabilities_are_rounded_to_a_sum_of_1_and_refused_otherwise():
    found, _ = read([(0.33, 0.33, 0.33)], CLASSES)
    assert sum(found.probabilities["train"][0].values()) == pytest.approx(1)
    assert "1 examples have several most probable classes" in found.notes[-1]
    rule = (
        "The labels must be 0 or 1 for each class, or nonnegative probabilities that sum to 1 in every row. "
    )
    repair = " Divide each row by its sum if the numbers are votes or percentages."
    assert error([(0.2, 0.3, 0.5), (3, 1, 0)], CLASSES) == rule + "Got [3.0, 1.0, 0.0] in 'train:1'." + repair
    assert "[-1.0, 0.0, 1.0] in 'train:0'. Leave a cell empty" in error([(-1, 0, 1)], CLASSES)
    assert "[0.2, None, 0.8]" in error([(0.2, None, 0.8)], CLASSES)
    assert "Round them" in error([(0.2, 0.3, 0.5)], CLASSES, "multi_label")


def test_a_mapping_of_zeros_and_ones_is_several_labels():
    found, _ = read([{"a": 1, "b": 1}, {"a": 0, "b": None}])
    assert (found.values["train"], found.unknown["train"]) == ([["a", "b"], []], [[], ["b"]])


@pytest.mark.parametrize("row", [(0.5, 1, 0), (0.5, 0.5, 0), (1, 7, 0)])
def test_one_fraction_among_zeros_and_ones_is_reported_but_no_valid_rows(row):
    rows = [(1, 1, 0), (0, 0, 0), (0, 1, 0), (0, 1, 1)]
    shown = [float(value) for value in row]
    assert error([*rows, row], label=["a", "b", "c"]) == (
        "The labels must be 0 or 1 for each class, or nonnegative probabilities that sum to 1 in every row. "
        f"Got {shown!r} in 'train:4'. All other rows contain only 0 and 1: write 0 or 1 here too, or leave the "
        "cell empty if its value is unknown."
    )


def test_columns_of_ones_and_empty_cells_alone_are_refused():
    assert error([(1, None), (None, 1), (None, None)], label=["a", "b"]) == (
        "The labels must contain 0 where a class does not apply, in the columns 'a', 'b'. Got only 1 and "
        "empty cells. Empty cells are read as unknown: write 0 where the class does not apply."
    )
