import io
import json
import shutil
from collections import Counter

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import prepare_data
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from PIL import Image

from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # a request for each load


def png(number):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write_pictures(root, classes, count, start=0):
    """Write ``count`` different images for each class."""
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for row in range(count):
            (root / name / f"{row}.png").write_bytes(png(start + index * count + row))
    return root


def write_rows(path, count, labels=("neg", "pos"), start=0, **columns):
    """Write ``count`` different texts with the labels in turn, as JSON lines."""
    rows = [
        {"text": f"text {start + row}", "label": labels[row % len(labels)]}
        | {name: values[row] for name, values in columns.items()}
        for row in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prepare(path, modality="text", **options):
    return prepare_data(str(path), modality=MODALITIES[modality], **options)


def error_text(path, modality="text", **options):
    with pytest.raises(InputError) as error:
        prepare(path, modality, **options)
    return str(error.value)


def sizes(data):
    return tuple(None if part is None else len(part) for part in (data.train, data.validation, data.test))


def test_class_folders_from_path_to_splits(tmp_path):
    data = prepare(write_pictures(tmp_path, ["soup", "cake"], 20), "image")
    assert sizes(data) == (32, 4, 4)
    assert (data.target, data.label_names) == ("single_label", ("cake", "soup"))
    for part in (data.train, data.validation, data.test):
        assert set(part.column_names) == {"id", "image", "label"}
        assert part.features["label"] == ClassLabel(names=["cake", "soup"])
        assert Counter(part["label"]) == {0: len(part) // 2, 1: len(part) // 2}
        names = part.features["label"].int2str(part["label"][:])
        assert [path.split("/")[0] for path in part["id"]] == names
    first = data.train[0]
    assert first["image"].tobytes() == Image.open(tmp_path / first["id"]).tobytes()
    assert data.notes == (
        "Columns inferred: image from 'image', label from 'label'.",
        "Created from train, stratified by class: validation (4 examples), test (4 examples); train keeps "
        "32 examples.",
    )


def test_split_folders_are_kept_and_the_missing_one_is_made(tmp_path):
    write_pictures(tmp_path / "train", ["cake", "soup"], 10)
    write_pictures(tmp_path / "dev", ["cake", "soup"], 2, start=100)
    data = prepare(tmp_path, "image")
    assert sizes(data) == (18, 4, 2)
    assert data.validation["id"][0] == "dev/cake/0.png"
    assert sizes(prepare(tmp_path, "image", test=0)) == (20, 4, None)


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_images_by_path(tmp_path, suffix):
    write_pictures(tmp_path / "pictures", ["a"], 6)
    rows = Dataset.from_dict(
        {"file": [f"pictures/a/{row}.png" for row in range(6)], "label": ["x", "y", "z"] * 2}
    )
    getattr(rows, f"to_{suffix}")(str(tmp_path / f"labels.{suffix}"))
    data = prepare(tmp_path / f"labels.{suffix}", "image", validation=0, test=0)
    assert data.train["id"][:] == [f"pictures/a/{row}.png" for row in range(6)]
    assert data.train[5]["image"].getpixel((0, 0)) == (5, 0, 7)


def test_images_by_absolute_path(tmp_path):
    write_pictures(tmp_path / "pictures", ["a"], 4)
    (tmp_path / "tables").mkdir()
    paths = [str(tmp_path / "pictures" / "a" / f"{row}.png") for row in range(4)]
    Dataset.from_dict({"path": paths, "label": ["x", "y"] * 2}).to_csv(tmp_path / "tables" / "a.csv")
    data = prepare(tmp_path / "tables", "image", validation=0, test=0)
    assert data.train["id"][0] == "../pictures/a/0.png"
    assert data.train[3]["image"].getpixel((0, 0)) == (3, 0, 7)


@pytest.mark.parametrize("as_struct", [False, True])
def test_images_by_bytes(tmp_path, as_struct):
    images = [{"bytes": png(row), "path": f"{row}.png"} if as_struct else png(row) for row in range(4)]
    Dataset.from_dict({"img": images, "label": ["x", "y"] * 2}).to_parquet(tmp_path / "train.parquet")
    data = prepare(tmp_path, "image", validation=0, test=0)
    assert data.train["id"][:] == ["train:0", "train:1", "train:2", "train:3"]
    assert data.train[3]["image"].getpixel((0, 0)) == (3, 0, 7)


def test_a_saved_dataset_of_images(tmp_path):
    write_pictures(tmp_path / "folders", ["a", "b"], 3)
    folder = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "folders"), split="train")
    folder.save_to_disk(tmp_path / "saved")
    shutil.rmtree(tmp_path / "folders")
    before = sorted((tmp_path / "saved").iterdir())
    data = prepare(tmp_path / "saved", "image", validation=0)
    assert sizes(data) == (4, None, 2)
    assert data.label_names == ("a", "b")
    assert sorted((tmp_path / "saved").iterdir()) == before  # no file is left next to the user's data


def test_texts_and_pairs(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", 20)
    data = prepare(path)
    assert sizes(data) == (16, 2, 2)
    assert set(data.train.column_names) == {"id", "text", "label"}
    rows = {"premise": [f"p{row}" for row in range(9)], "hypothesis": ["h"] * 9, "label": [0, 1, 2] * 3}
    Dataset.from_dict(rows).to_csv(tmp_path / "b.csv")
    data = prepare(tmp_path / "b.csv")
    assert sizes(data) == (3, 3, 3)
    assert set(data.train.column_names) == {"id", "text", "text_pair", "label"}
    assert data.train[0]["text_pair"] == "h"


def test_a_saved_dataset_of_texts(tmp_path):
    rows = Dataset.from_dict({"text": [f"text {row}" for row in range(8)], "label": ["a", "b"] * 4})
    rows.save_to_disk(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert sizes(prepare(tmp_path, validation=0)) == (6, None, 2)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string()])
def test_strings_of_other_writers(tmp_path, kind):
    columns = {
        "review": pa.array([f"text {row}" for row in range(8)], kind),
        "label": pa.array(["a", "b"] * 4, kind),
    }
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    data = prepare(tmp_path)
    assert data.train.features["text"] == Value("string")
    assert (data.label_names, sizes(data)) == (("a", "b"), (4, 2, 2))


def test_a_split_of_empty_texts(tmp_path):
    write_rows(tmp_path / "train.jsonl", 20)
    (tmp_path / "test.csv").write_text("text,label\n,pos\n,neg\n")
    repair = "Replace or remove it, or set data.on_error: skip."
    assert error_text(tmp_path) == (
        f"test:0 must contain text. Got an empty text. {repair}\n"
        f"test:1 must contain text. Got an empty text. {repair}"
    )
    rule = "must contain at least one usable example."
    assert error_text(tmp_path, on_error="skip") == f"The test split {rule}"


def test_several_labels_and_continuous_targets(tmp_path):
    data = prepare(write_rows(tmp_path / "a.jsonl", 30, labels=(["b"], ["a", "b"], [])))
    assert (data.target, data.label_names) == ("multi_label", ("a", "b"))
    assert data.train.features["label"] == List(ClassLabel(names=["a", "b"]))
    assert Counter(map(tuple, data.test["label"])) == {(1,): 1, (0, 1): 1, (): 1}
    data = prepare(write_rows(tmp_path / "b.jsonl", 20, labels=(0.5, 1.25)))
    assert (data.target, data.label_names, sizes(data)) == ("regression", ("label",), (16, 2, 2))
    assert data.train.features["label"] == Value("float32")
    assert set(data.train["label"]) == {0.5, 1.25}


def test_groups_stay_together_and_the_given_test_split_keeps_out(tmp_path):
    groups = [f"g{row // 4}" for row in range(40)]
    write_rows(tmp_path / "train.jsonl", 40, author=groups)
    write_rows(tmp_path / "test.jsonl", 4, start=100, author=["new"] * 4)
    data = prepare(tmp_path, group="author")
    assert sizes(data) == (36, 4, 4)
    rows = [int(row.split(":")[1]) // 4 for row in data.validation["id"]]
    assert len(set(rows)) == 1
    assert set(data.train.column_names) == {"id", "text", "label", "group:author"}
    assert (
        data.notes[-1]
        == "Created from train, without dividing groups of 'author': validation (4 examples); train keeps 36 examples."
    )
    write_rows(tmp_path / "test.jsonl", 4, start=100, author=["g3"] * 4)
    assert error_text(tmp_path, group="author") == (
        "The data must not have the same group in train and test. Got 'g3'. Remove those rows from train, "
        "or remove data.split.group from the recipe."
    )
    assert error_text(tmp_path, group="autor") == (
        "data.split.group must be a column of the data. Got 'autor'. Nearest: 'author'."
    )


def test_the_result_depends_on_the_seed_only(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", 100)
    first, again, other = (prepare(path, seed=seed) for seed in (0, 0, 1))
    assert first.test["id"][:] == again.test["id"][:]
    assert first.test["id"][:] != other.test["id"][:]
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_the_fingerprint_depends_on_contents_and_labels_and_not_on_paths(tmp_path):
    def fingerprint(folder, change=None):
        write_pictures(tmp_path / folder, ["a", "b"], 5)
        if change:
            change(tmp_path / folder)
        return prepare(tmp_path / folder, "image").fingerprint

    first = fingerprint("one")
    assert fingerprint("two") == first
    assert fingerprint("three", lambda root: (root / "a" / "3.png").write_bytes(png(99))) != first
    assert fingerprint("four", lambda root: (root / "a").rename(root / "c")) != first


def test_a_limit_takes_a_share_of_every_class(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", 200, labels=("a", "b", "b", "b"))
    data = prepare(path, limit=8)
    assert sizes(data) == (8, 8, 8)
    assert Counter(data.train["label"]) == {0: 2, 1: 6}
    assert data.train["id"][:] != [f"train:{row}" for row in range(8)]
    assert data.notes[-1] == "Limited to 8 examples of each split: 8 of train, 8 of validation, 8 of test."
    whole = prepare(path)
    assert set(data.test["id"]) <= set(whole.test["id"])  # a limit moves no example to another split


def test_a_limit_below_the_number_of_classes(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", 200, labels=tuple("abcdefghij"))
    data = prepare(path, limit=4)
    assert len(set(data.train["label"])) == 4
    assert set(data.test["label"]) <= set(data.train["label"])
    assert len(data.label_names) == 10


def test_copies_stay_on_one_side_of_a_cut(tmp_path):
    rows = [{"text": f"text {row // 4}", "label": "ab"[row // 4 % 2]} for row in range(80)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare(tmp_path)
    assert not set(data.train["text"]) & set(data.test["text"])


@pytest.mark.parametrize("label", [-1, None])
def test_a_split_without_labels_counts_as_missing(tmp_path, label):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    train = Dataset.from_dict({"text": list("abcdefgh"), "label": [0, 1] * 4}, features=features)
    test = Dataset.from_dict({"text": list("xyz"), "label": [label] * 3}, features=features)
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path)
    data = prepare(tmp_path)
    assert sizes(data) == (4, 2, 2)
    assert data.notes[1] == "The test split has no labels, so it counts as missing."


def test_a_test_file_without_the_label_column_counts_as_missing(tmp_path):
    write_rows(tmp_path / "train.jsonl", 20)
    (tmp_path / "test.csv").write_text("text\nfair\n")
    assert "The test split has no labels, so it counts as missing." in prepare(tmp_path).notes


def test_unusable_examples_are_left_out_on_request(tmp_path):
    write_pictures(tmp_path, ["a", "b"], 10)
    (tmp_path / "a" / "3.png").write_bytes(b"no image")
    assert error_text(tmp_path, "image") == (
        "a/3.png must contain a readable image. Got a file in an unknown format. "
        "Replace or remove it, or set data.on_error: skip."
    )
    data = prepare(tmp_path, "image", on_error="skip")
    assert sum(sizes(data)) == 19
    assert "'a/3.png' was skipped: a file in an unknown format." in data.notes


def test_all_problems_are_reported_together(tmp_path):
    rows = [{"text": f"text {row}", "label": "ab"[row % 2]} for row in range(10)]
    rows[3]["label"] = None
    rows[4]["text"] = " "
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "Text  1", "label": "a"}) + "\n")
    assert error_text(tmp_path) == (
        "The label column must contain a label in every row. Got missing labels in 'train:3'. Label these "
        "rows or remove them.\n"
        "train:4 must contain text. Got an empty text. Replace or remove it, or set data.on_error: skip.\n"
        "The data must not contain the same example in train and test. Got 'train:1' = 'test:0'. Remove "
        "one of each, or set data.on_error: skip to remove them from train."
    )


def test_missing_image_files_are_reported(tmp_path):
    write_pictures(tmp_path / "pictures", ["a"], 1)
    (tmp_path / "a.csv").write_text("image,label\npictures/a/0.png,x\npictures/a/9.png,y\n")
    assert error_text(tmp_path, "image", validation=0, test=0) == (
        "pictures/a/9.png must contain a readable image. Got no such file. Replace or remove it, or set "
        "data.on_error: skip."
    )


def test_classes_with_too_few_examples(tmp_path):
    write_pictures(tmp_path, ["a", "b"], 5)
    write_pictures(tmp_path / "tmp", ["c"], 1, start=50)
    (tmp_path / "tmp" / "c").rename(tmp_path / "c")
    (tmp_path / "tmp").rmdir()
    assert error_text(tmp_path, "image") == (
        "Each class must have at least 3 examples, one for each of train, validation, test. Got 'c': 1. "
        "Add examples, set data.split.validation and data.split.test to 0, or set data.split.stratify: false."
    )
    assert sizes(prepare(tmp_path, "image", validation=0, test=0)) == (11, None, None)


def test_a_class_that_only_test_has(tmp_path):
    write_rows(tmp_path / "train.jsonl", 20)
    write_rows(tmp_path / "test.jsonl", 4, labels=("pos", "mixed"), start=50)
    assert error_text(tmp_path) == (
        "The test split must contain only classes that are also in train. Got 'mixed'. Add examples of "
        "them to train, or remove them."
    )


def test_one_class_and_empty_files(tmp_path):
    path = write_rows(tmp_path / "train.jsonl", 20, labels=("pos",))
    assert error_text(path) == "The label column must contain at least two classes in train. Got 'pos'."
    (tmp_path / "test.csv").write_text("text,label\n")
    assert error_text(tmp_path) == "The test split must not be empty."


def test_no_train_split(tmp_path):
    write_rows(tmp_path / "test.jsonl", 4)
    write_rows(tmp_path / "dev.jsonl", 4)
    assert error_text(tmp_path) == "data.path must have a train split. Got only 'validation', 'test'."


def test_a_split_that_lacks_a_column(tmp_path):
    write_rows(tmp_path / "train.jsonl", 20)
    (tmp_path / "test.jsonl").write_text('{"review": "fair", "label": "pos"}\n')
    assert error_text(tmp_path) == "The test split must have the column 'text'. Got only 'review', 'label'."


@pytest.mark.parametrize("given", [False, True])
def test_a_merged_validation_split_leaves_the_test_split_as_it_is(tmp_path, given):
    path = write_rows(tmp_path / "train.jsonl", 40)
    if given:
        write_rows(tmp_path / "validation.jsonl", 10, start=100)
        path = str(tmp_path)
    split = {"validation": 0.2, "test": 0.2}
    apart = prepare(path, split=split)
    merged = prepare(path, split={**split, "merge_validation": True})
    assert merged.validation is None
    assert merged.test["text"][:] == apart.test["text"][:]
    assert sorted(merged.train["text"]) == sorted([*apart.train["text"], *apart.validation["text"]])
    assert len(merged.train_groups) == len(merged.train)
    assert any("The validation split is merged" in note for note in merged.notes)
