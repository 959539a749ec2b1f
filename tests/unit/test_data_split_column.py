"""A column that divides the examples."""

import pytest
from data_helpers import prepare_data
from datasets import ClassLabel, Dataset, DatasetDict

from hf_finetune.data.load import load_source
from hf_finetune.data.split_column import divide_by_column
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

ROWS = {"text": list("abcd"), "split": ["Train", "VAL", "test", "train "]}


def divide(rows, column="auto", taken=()):
    found = divide_by_column({"train": Dataset.from_dict(rows)}, column, taken)
    return {split: dataset["text"][:] for split, dataset in found.splits.items()}, list(found.notes)


def problem(rows, column="auto"):
    with pytest.raises(InputError) as error:
        divide(rows, column)
    return str(error.value)


@pytest.mark.parametrize("name", ["split", "Split", "set", "subset", " SET"])
def test_names_of_splits_divide_the_examples(name):
    found, notes = divide({"text": ROWS["text"], name: ROWS["split"]})
    assert found == {"train": ["a", "d"], "validation": ["b"], "test": ["c"]}
    assert notes == [
        f"The examples are split by the column {name!r}: 2 of train, 1 of validation, 1 of test. Set "
        "data.columns.split: null to ignore the column."
    ]


@pytest.mark.parametrize("name", ["usage", "partition", "fold", "data type"])
def test_a_column_of_any_name_defines_the_splits_if_it_contains_only_names_of_splits(name):
    found, notes = divide({"text": ROWS["text"], name: ROWS["split"]})
    assert found == {"train": ["a", "d"], "validation": ["b"], "test": ["c"]}
    assert notes[0].startswith(f"The examples are split by the column {name!r}")


def test_other_columns_do_not():
    for values in (
        list("1212"),
        ["val", "test", "val", "test"],
        ["train"] * 4,
        ["train", "test", "x", "val"],
    ):
        assert divide({"text": ROWS["text"], "part": values}) == ({"train": list("abcd")}, [])
    note = "The column 'split' was not used, because its values are not names of splits: '1', '2'."
    assert divide({**ROWS, "split": list("1212")}) == ({"train": list("abcd")}, [note])
    for column in (None, "none"):
        assert divide(ROWS, column) == ({"train": list("abcd")}, [])
    assert divide(ROWS, taken={"split"}) == ({"train": list("abcd")}, [])
    assert divide({"text": ROWS["text"], "part": ROWS["split"]}, "part")[0]["test"] == ["c"]


def test_values_that_name_no_split_are_reported():
    repair = (
        "Known: train, validation (val, valid, dev) and test. Set data.columns.split: null to ignore the "
        "column."
    )
    rule = "data.columns.split must be a column with a split name in every row."
    assert (
        problem({**ROWS, "split": ["train", "extra", "test", "train"]})
        == f"{rule} Got 'split' with 'extra'. {repair}"
    )
    assert problem({**ROWS, "split": ["train", "", None, "test"]}) == (
        f"{rule} Got empty cells in 'train:1', 'train:2'. {repair}"
    )
    assert problem({**ROWS, "part": list("1212")}, "part") == f"{rule} Got 'part' with '1', '2'. {repair}"
    assert (
        problem(ROWS, "splt")
        == "data.columns.split must be a column of the data. Got 'splt'. Nearest: 'split'."
    )


def test_files_of_splits_come_before_the_column():
    dataset = Dataset.from_dict(ROWS)
    found = divide_by_column({"train": dataset, "test": dataset.select([2])}, "auto")
    assert {split: len(part) for split, part in found.splits.items()} == {"train": 4, "test": 1}
    assert found.notes == (
        "The column 'split' was not used, because the data already has splits. Set data.columns.split: "
        "split to split it by the column instead.",
    )
    found = divide_by_column({"train": dataset, "test": dataset.select([2])}, "split")
    assert {split: len(part) for split, part in found.splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 2,
    }
    agreeing = {"train": dataset.select([0, 3]), "test": dataset.select([2])}
    found = divide_by_column(agreeing, "auto")
    assert (found.splits, found.notes) == (agreeing, ())


def test_a_column_of_training_may_be_missing_elsewhere():
    splits = {"train": Dataset.from_dict({"text": ["a"]})}
    assert divide_by_column(splits, "part", optional=True).splits == splits


def test_every_form_of_data_is_divided(tmp_path):
    dataset = Dataset.from_dict(ROWS)
    dataset.to_csv(tmp_path / "r.csv", index=False)
    dataset.to_json(tmp_path / "r.jsonl")
    dataset.to_parquet(tmp_path / "r.parquet")
    names = ClassLabel(names=["test", "train", "dev"])
    coded = Dataset.from_dict({"text": list("abcd"), "split": [1, 2, 0, 1]}).cast_column("split", names)
    DatasetDict({"all": coded}).save_to_disk(tmp_path / "saved")
    for name in ("r.csv", "r.jsonl", "r.parquet", "saved"):
        source = load_source(str(tmp_path / name), modality=MODALITIES["text"])
        assert {split: part["text"][:] for split, part in source.splits.items()} == {
            "train": ["a", "d"], "validation": ["b"], "test": ["c"],
        }  # fmt: skip


def test_the_column_wins_for_the_splits_that_it_has(tmp_path):
    rows = [f"film {row},{row % 2},{'test' if row > 35 else 'train'}" for row in range(40)]
    (tmp_path / "r.csv").write_text("\n".join(["text,label,split", *rows]))
    data = prepare_data(str(tmp_path / "r.csv"), modality=MODALITIES["text"], validation=0.25, test=0.5)
    assert (len(data.train), len(data.validation), len(data.test)) == (28, 8, 4)
    assert sorted(data.test["text"]) == ["film 36", "film 37", "film 38", "film 39"]
    whole = prepare_data(
        str(tmp_path / "r.csv"), modality=MODALITIES["text"], validation=0, test=0, columns={"split": None}
    )
    assert len(whole.train) == 40
