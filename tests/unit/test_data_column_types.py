"""Types of columns of text: decided once, over all rows of all splits."""

import pytest
from data_helpers import prepare_data
from datasets import Dataset
from PIL import Image

from hf_finetune.data.column_types import convert_numeric_columns, guess_features, infer_label_types
from hf_finetune.tasks import MODALITIES


def settle(*labels, requested="auto", decimal=None, known=(), **others):
    splits = {"train": labels, **others}
    ids = {split: [f"{split}:{row}" for row in range(len(values))] for split, values in splits.items()}
    return infer_label_types(
        splits, ids, untyped_splits=splits, requested=requested, decimal=decimal, known=known
    )


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (["1", "01", "001", "2"], ["1", "01", "001", "2"]),
        (["1", "2", "10"], [1, 2, 10]),
        (["1.0", "1", "2.0"], [1.0, 1, 2.0]),
        (["0.5", "1", "-2e-1"], [0.5, 1.0, -0.2]),
        (["True", "true", "Unknown"], ["True", "true", "Unknown"]),
        (["1.0", "v2"], ["1.0", "v2"]),
        (["1", "NA", "2"], ["1", "NA", "2"]),
        (["1e3", "2e3"], ["1e3", "2e3"]),
        (["0.50", "00.5"], ["0.50", "00.5"]),
        (["123456789012345678901", "1"], [123456789012345678901, 1]),
        (["-0", "0"], ["-0", "0"]),
        (["0.5", "\u22121.5", "\u22122e3"], [0.5, -1.5, -2000.0]),
        (["1", "\u22121", "-2"], [1, -1, -2]),
        (["1", "\u2212", "2"], ["1", "\u2212", "2"]),
        (["0.5", None, "inf"], [0.5, None, float("inf")]),
    ],
)
def test_labels_are_numbers_only_if_all_are(labels, values):
    found = settle(*labels)
    assert not found.problems
    assert list(found.values["train"]) == values
    assert list(map(type, found.values["train"])) == list(map(type, values))


def test_all_splits_decide_together():
    found = settle("1", "2", validation=["01"])
    assert found.values == {"train": ("1", "2"), "validation": ["01"]}
    assert settle("1", "2", validation=["1.0"]).values == {"train": [1, 2], "validation": [1.0]}


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "nan", "NaN", "-"])
def test_words_for_missing_numbers_name_their_row(word):
    (problem,) = settle("0.5", word, "1.5").problems
    assert str(problem) == (
        f"The label column must contain a number in every row. Got {word!r} for 'train:1'. Write numbers there, "
        "or remove these rows. If the labels are class names, set data.target: single_label."
    )
    assert list(settle("good", word, "bad").values["train"]) == ["good", word, "bad"]
    assert list(settle("0.5", word, requested="single_label").values["train"]) == ["0.5", word]


def test_few_texts_among_many_numbers_are_mistakes():
    numbers = [f"{row}.5" for row in range(60)]
    (problem,) = settle(*numbers, "12,5 m").problems
    assert problem.value == "'12,5 m' for 'train:60'"
    assert settle(*numbers, *map(chr, range(97, 120))).problems == ()
    (problem,) = settle("1", "2", "x", requested="regression").problems
    assert (problem.value, problem.repair) == (
        "'x' for 'train:2'",
        "Write numbers there, or remove these rows.",
    )


def test_decimal_commas():
    found = settle("2,25", "3", "1,05")
    assert (found.values["train"], found.notes) == (
        [2.25, 3.0, 1.05],
        ("The labels are numbers with decimal commas.",),
    )
    assert settle("1,5", "2,5", requested="regression").values["train"] == [1.5, 2.5]
    assert settle("1,5", "2,5", decimal=",").values["train"] == [1.5, 2.5]
    assert list(settle("1,5", "2,5", decimal=".").values["train"]) == ["1,5", "2,5"]
    assert list(settle("1,5", "rude").values["train"]) == ["1,5", "rude"]
    (problem,) = settle("1,5", "2,5").problems
    assert str(problem) == (
        "data.decimal must be set, because values can be decimal numbers or lists of numbers. Got '1,5', "
        "'2,5'. Set data.decimal: ',' if these are numbers with decimal commas; set data.columns.label: "
        "{name: ..., separator: ','} if they are several labels."
    )
    (problem,) = settle("1,500", "2,750", requested="regression").problems
    assert problem.rule == "must be set, because a comma can be a decimal mark or a thousands separator"
    assert settle("1,500", "2,750", requested="regression", decimal=",").values["train"] == [1.5, 2.75]


def test_a_minus_sign_is_read_as_the_hyphen_that_other_programs_write():
    assert list(settle("0,05", "\u22121,5", "\u22122").values["train"]) == [0.05, -1.5, -2.0]
    assert list(settle("\u22121", "1", requested="regression").values["train"]) == [-1.0, 1.0]
    assert list(settle("\u22121", "1", known=("1", "\u22121")).values["train"]) == ["\u22121", "1"]
    assert list(settle("\u22121", "1", known=("1", "-1")).values["train"]) == [-1, 1]
    splits = {"train": Dataset.from_dict({"a": ["\u22120.5", "1"], "b": ["\u22123", "2"]})}
    assert {name: feature.dtype for name, feature in guess_features(splits, splits).items()} == {
        "a": "float64",
        "b": "int64",
    }
    assert convert_numeric_columns(splits, splits, ["a"], None)["train"]["a"][:] == [-0.5, 1.0]


def test_labels_of_a_model_that_is_there():
    assert settle("1.0", "2.0", requested="single_label", known=["1", "2"]).values["train"] == [1.0, 2.0]
    assert settle("1.0", "2.0", requested="single_label", known=["1.0", "2.0", "x"]).values["train"] == (
        "1.0",
        "2.0",
    )
    assert settle("TRUE", "false", requested="single_label", known=["False", "True"]).values["train"] == [
        "True",
        "False",
    ]


def test_types_of_all_columns_for_the_choice_of_columns():
    train = Dataset.from_dict(
        {"id": ["001", "2"], "text": ["5", "6"], "b": ["true", "False"], "n": [None, None]}
    )
    train = train.cast_column("n", train.features["id"])
    test = Dataset.from_dict({"id": ["3"], "text": ["a"], "b": ["TRUE"]})
    found = guess_features({"train": train, "test": test}, {"train", "test"})
    assert {name: feature.dtype for name, feature in found.items()} == {
        "id": "int64", "text": "string", "b": "bool", "n": "null"
    }  # fmt: skip
    assert guess_features({"train": train}, ()) == train.features


def test_columns_used_by_value():
    train = Dataset.from_dict({"code": ["01", "2"], "year": ["1999", None], "comma": ["1,05", "2"]})
    test = Dataset.from_dict({"code": ["3"], "year": ["2000.5"], "comma": ["3,5"]})
    names = ["code", "year", "comma"]
    found = convert_numeric_columns({"train": train, "test": test}, {"train", "test"}, names, None)
    assert found["train"][:] == {"code": ["01", "2"], "year": [1999.0, None], "comma": [1.05, 2.0]}
    assert found["test"][:] == {"code": ["3"], "year": [2000.5], "comma": [3.5]}
    assert found["train"].column_names == names


def write(path, rows, header="text,label"):
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def test_classes_that_only_late_rows_would_change(tmp_path):
    early = [f"good film {row},{['True', 'False', '01'][row % 3]}" for row in range(10_002)]
    late = [f"bad film {row},{['True', 'False'][row % 2]}" for row in range(400)]
    data = prepare_data(
        write(tmp_path / "r.csv", early + late), modality=MODALITIES["text"], validation=0, test=0
    )
    assert data.label_names == ("01", "False", "True")


def test_a_number_with_a_decimal_comma_is_a_regression(tmp_path):
    rows = [f"film {row};{row % 10},{row:02d}" for row in range(20)]
    data = prepare_data(
        write(tmp_path / "r.csv", rows, "text;label"), modality=MODALITIES["text"], validation=0, test=0
    )
    assert (data.target, data.train["label"][3]) == ("regression", pytest.approx(3.03))
    assert "The labels are numbers with decimal commas." in data.notes
    stated = {"decimal": "."}
    data = prepare_data(
        write(tmp_path / "r.csv", rows * 2, "text;label"),
        modality=MODALITIES["text"],
        validation=0,
        test=0,
        **stated,
    )
    assert (data.target, len(data.label_names)) == ("single_label", 20)


def test_metadata_of_images_keeps_leading_zeros(tmp_path):
    lines = ["file_name;label"]
    for row, label in enumerate(["01", "001", "1"] * 4):
        Image.new("RGB", (4, 4), (20 * row, 0, 0)).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png;{label}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    data = prepare_data(str(tmp_path), modality=MODALITIES["image"], validation=0, test=0)
    assert set(data.label_names) == {"01", "001", "1"}
    assert "metadata.csv: the cells are separated by semicolons." in data.notes


@pytest.mark.parametrize(
    "amounts",
    [
        [f"{index}%" for index in range(8)],
        [f"${index}.50" for index in range(8)],
        [f"1.{index:03d},5" for index in range(8)],
        [f"{index} EUR" for index in range(8)],
    ],
)
def test_signed_numbers_are_not_mistaken_for_classes(amounts):
    ids = {"train": [f"train:{row}" for row in range(len(amounts))]}
    settled = infer_label_types({"train": amounts}, ids, untyped_splits=["train"], requested="auto")
    (problem,) = settled.problems
    assert str(problem) == (
        f"The label column must contain plain numbers for regression. Got {amounts[0]!r}, {amounts[1]!r}, "
        f"{amounts[2]!r} and 5 more. Write them without units and thousands separators; if they are class "
        "names, set data.target: single_label."
    )
    assert (
        infer_label_types(
            {"train": amounts}, ids, untyped_splits=["train"], requested="single_label"
        ).problems
        == ()
    )
    few = {"train": [*amounts[:2] * 4]}
    assert infer_label_types(few, ids, untyped_splits=["train"], requested="auto").values == few
