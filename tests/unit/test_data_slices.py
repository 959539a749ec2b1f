"""Columns that accompany the examples, from every data format."""

import json

import pyarrow as pa
import pytest
from data_helpers import prepare_data
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image
from pyarrow import parquet

from hf_finetune.data.evaluation_data import load_for_evaluation
from hf_finetune.data.locate import locate
from hf_finetune.data.slices import group_or_id
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

NONE = {"validation": 0.0, "test": 0.0}


def rows(count=12):
    return [
        {
            "text": f"text {index}",
            "label": "ab"[index % 2],
            "style": ["flat", "round", None][index % 3],
            "year": 2000 + index,
            "real": index % 4 == 0,
        }
        for index in range(count)
    ]


@pytest.fixture(params=["csv", "jsonl", "parquet", "saved"])
def table(request, tmp_path):
    """Return the path of the same rows in each format."""
    found, path = rows(), tmp_path / f"data.{request.param}"
    if request.param == "csv":
        lines = [",".join("" if value is None else str(value) for value in row.values()) for row in found]
        path.write_text("\n".join([",".join(found[0]), *lines, ""]), encoding="utf-8")
    elif request.param == "jsonl":
        path.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    elif request.param == "parquet":
        parquet.write_table(pa.Table.from_pylist(found), path)
    else:
        DatasetDict({"train": Dataset.from_list(found)}).save_to_disk(path)
    return path


def test_columns_are_carried_whatever_the_form(table):
    data = prepare_data(str(table), modality=MODALITIES["text"], slices=["style", "year", "real"], **NONE)
    assert data.train.column_names == ["text", "id", "slice:style", "slice:year", "slice:real", "label"]
    assert data.train["slice:style"][:6] == ["flat", "round", None] * 2
    assert data.train["slice:year"][:3] == [2000.0, 2001.0, 2002.0]
    assert data.train["slice:real"][:5] == ["true", "false", "false", "false", "true"]


def test_rows_keep_their_slice_values_when_splits_are_made(table):
    plain = prepare_data(str(table), modality=MODALITIES["text"], validation=0.25, test=0.25)
    data = prepare_data(str(table), modality=MODALITIES["text"], validation=0.25, test=0.25, slices=["year"])
    assert data.fingerprint == plain.fingerprint
    years = {row["text"]: row["year"] for row in rows()}
    for split, other in (
        (data.train, plain.train),
        (data.validation, plain.validation),
        (data.test, plain.test),
    ):
        assert [years[text] for text in split["text"]] == list(split["slice:year"])
        assert list(split["text"]) == list(other["text"]) and "slice:year" not in other.column_names


def test_names_of_a_class_label_are_used_and_nan_is_missing(tmp_path):
    features = Features(
        text=Value("string"), label=Value("string"), kind=ClassLabel(names=["x", "y"]), size=Value("float32")
    )
    found = {"text": list("abcd"), "label": list("uvuv"), "kind": [0, 1, -1, None],
             "size": [1.0, float("nan"), None, 2.5]}  # fmt: skip
    DatasetDict({"train": Dataset.from_dict(found, features=features)}).save_to_disk(tmp_path / "saved")
    data = prepare_data(str(tmp_path / "saved"), modality=MODALITIES["text"], slices=["kind", "size"], **NONE)
    assert data.train["slice:kind"][:] == ["x", "y", None, None]
    assert data.train["slice:size"][:] == [1.0, None, None, 2.5]


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        prepare_data(str(path), modality=MODALITIES["text"], **{**NONE, **options})
    return str(caught.value)


def test_a_missing_column_is_reported_with_the_existing_ones(table):
    assert refused(table, slices=["year", "stile"]) == (
        "evaluation.slices[1] must be a column of the train split. Got 'stile'. Its columns are 'text', 'label', "
        "'style', 'year', 'real'."
    )


def test_a_column_of_lists_is_refused(tmp_path):
    lines = [json.dumps({"text": f"t{index}", "label": "ab"[index % 2], "tags": ["x"]}) for index in range(4)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert refused(tmp_path / "data.jsonl", slices=["tags"]) == (
        "evaluation.slices[0] must contain one text or number for each example. Got 'tags' of type List."
    )


def test_a_column_with_a_value_for_each_example_is_refused(tmp_path):
    lines = [
        json.dumps({"text": f"t{index}", "label": "ab"[index % 2], "name": f"n{index:02d}"})
        for index in range(60)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said = refused(tmp_path / "data.jsonl", slices=["name"])
    assert said.startswith(
        "evaluation.slices[0] must be a column with at most 50 distinct values, or a column of numbers. Got "
        "60 values of 'name'"
    )


def test_other_data_without_the_column_is_evaluated_without_it(table, caplog):
    options = {"modality": MODALITIES["text"], "target": "single_label", "label_names": ("a", "b")}
    with caplog.at_level("INFO"):
        found = load_for_evaluation(str(table), slices=["style", "weather"], **options)
    assert [name for name in found.column_names if name.startswith("slice:")] == ["slice:style"]
    assert "The data has no column 'weather', so those slices are not evaluated." in caplog.text


@pytest.mark.parametrize("values", [["", "", ""], ["1", "2", "3"], ["1.5", "", "2"]])
def test_a_column_of_texts_in_one_split_is_text_in_all_and_splits_can_be_joined(tmp_path, values):
    for split, column in (("train", ["a", "b", "1"]), ("validation", values)):
        lines = [f"{split} text {index},{index % 2},{value}" for index, value in enumerate(column * 4)]
        text = "\n".join(["text,label,site", *lines, ""])
        (tmp_path / f"{split}.csv").write_text(text, encoding="utf-8")
    data = prepare_data(str(tmp_path), modality=MODALITIES["text"], slices=["site"], test=0.0, fold="1/2")
    assert data.train.features["slice:site"] == data.test.features["slice:site"] == Value("string")
    found = {*data.train["slice:site"][:], *data.test["slice:site"][:]} - {None}
    assert found == {"a", "b", "1", *filter(None, values)}


# --- Class folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Return two class folders of three images in each of two split folders."""
    for split in ("train", "test"):
        for place, name in enumerate(("cake", "soup")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(3):
                shade = (90 * place + 20 * index, 40, 10 if split == "train" else 200)
                Image.new("RGB", (8, 8), shade).save(folder / f"{index}.png")
    return tmp_path / "photos"


def slices_of(folder, split="train"):
    data = prepare_data(str(folder), modality=MODALITIES["image"], slices=["style"], validation=0)
    found = {"train": data.train, "test": data.test}[split]
    return dict(zip(found["id"], found["slice:style"], strict=True))


def test_metadata_is_next_to_the_class_folders_or_in_one_or_above(pictures):
    (pictures / "train" / "metadata.csv").write_text(
        "file_name,style\ncake/0.png,flat\ncake/1.png,\nsoup/2.png,round\n", encoding="utf-8"
    )
    (pictures / "test" / "soup" / "metadata.jsonl").write_text(
        json.dumps({"file_name": "1.png", "style": "line"}), encoding="utf-8"
    )
    table = {"file_name": ["test/cake/2.png"], "style": ["flat"]}
    parquet.write_table(pa.table(table), pictures / "metadata.parquet")
    found = slices_of(pictures)
    assert {name: value for name, value in found.items() if value} == {
        "train/cake/0.png": "flat", "train/soup/2.png": "round",
    }  # fmt: skip
    found = slices_of(pictures, "test")
    assert {name: value for name, value in found.items() if value} == {
        "test/cake/2.png": "flat", "test/soup/1.png": "line",
    }  # fmt: skip
    assert len(found) == 6


def test_metadata_files_that_call_other_things_by_one_name_are_read_as_texts(pictures):
    for split, style in (("train", "1"), ("test", "flat")):
        (pictures / split / "metadata.csv").write_text(
            f"file_name,style\ncake/0.png,{style}\n", encoding="utf-8"
        )
    (pictures / "metadata.csv").write_text("file_name,style\ntrain/cake/1.png,line\n", encoding="utf-8")
    found = slices_of(pictures)
    assert (found["train/cake/0.png"], found["train/cake/1.png"]) == ("1", "line")
    assert slices_of(pictures, "test")["test/cake/0.png"] == "flat"


def test_numbers_of_several_metadata_files_stay_numbers(pictures):
    for name, ages in (("cake", "3,4,5"), ("soup", "3.5,,6")):
        rows = [f"{index}.png,{age}" for index, age in enumerate(ages.split(","))]
        (pictures / "train" / name / "metadata.csv").write_text(
            "\n".join(["file_name,style", *rows, ""]), encoding="utf-8"
        )
    (pictures / "test" / "cake" / "metadata.csv").write_text("file_name,style\n0.png,\n", encoding="utf-8")
    assert sorted(slices_of(pictures).values(), key=lambda value: (value is None, value)) == [
        3,
        3.5,
        4,
        5,
        6,
        None,
    ]
    assert set(slices_of(pictures, "test").values()) == {None}


def test_numbers_of_several_kinds_may_be_large(pictures):
    for name, kind in (("cake", pa.int64()), ("soup", pa.float64())):
        taken = pa.array([1_700_000_000_000_000_001], pa.int64()).cast(kind, safe=False)
        table = pa.table({"file_name": ["0.png"], "style": taken})
        parquet.write_table(table, pictures / "train" / name / "metadata.parquet")
    (pictures / "test" / "cake" / "metadata.csv").write_text("file_name,style\n0.png,\n", encoding="utf-8")
    assert {value for value in slices_of(pictures).values() if value} == {1.7e18}


def test_metadata_is_not_read_and_not_spoken_of_where_nobody_asks_for_it(pictures):
    (pictures / "train" / "metadata.csv").write_text("nonsense", encoding="utf-8")
    (pictures / "train" / "cake" / "metadata.csv").write_text("nonsense", encoding="utf-8")
    data = prepare_data(str(pictures), modality=MODALITIES["image"])
    assert sorted(data.train.column_names) == ["id", "image", "label"]
    assert not any("metadata" in note for note in data.notes)
    assert locate(str(pictures / "train"), MODALITIES["image"]).notes == ()


def test_metadata_that_names_no_files_is_refused(pictures):
    (pictures / "train" / "metadata.csv").write_text("name,style\ncake/0.png,flat\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        slices_of(pictures)
    assert str(caught.value) == (
        f"{pictures}/train/metadata.csv must have the column 'file_name', with the file of each row. "
        "Got 'name', 'style'."
    )


def test_class_folders_without_metadata_have_no_such_column(pictures):
    with pytest.raises(InputError) as caught:
        slices_of(pictures)
    assert str(caught.value) == (
        "evaluation.slices[0] must be a column of the train split. Got 'style'. Its columns are 'image', 'label'."
    )


def test_an_example_without_a_group_is_named_by_its_id_in_every_selection():
    grouped = Dataset.from_dict({"id": ["a", "b", "c"], "group:shop": ["north", None, None]})
    assert group_or_id(grouped) == ("north", "b", "c")
    assert group_or_id(grouped.select([2, 1])) == ("c", "b")
    assert group_or_id(grouped.select_columns(["id"])) == ("a", "b", "c")
