"""Which files of a folder are the data."""

import json

import pytest

from hf_finetune.data.load import load_source
from hf_finetune.data.locate import locate
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

TABLE = "text,label\na,x\nb,y\n"


def located(folder, *names):
    for name in names:
        (folder / name).write_text(TABLE)
    found = locate(str(folder), MODALITIES["text"])
    return {split: [file.name for file in files] for split, files in found.sources.items()}, found.notes


def test_an_exact_name_precedes_names_that_contain_it(tmp_path):
    parts, notes = located(
        tmp_path, "train.csv", "train_old_backup.csv", "test.csv", "test-copy.csv", "pretrain.csv"
    )
    assert parts == {"train": ["train.csv"], "test": ["test.csv"]}
    assert notes == (
        "Files that could also be the test split were not read: 'test-copy.csv'. It is read from 'test.csv'.",
        "Files that could also be the train split were not read: 'train_old_backup.csv'. It is read from 'train.csv'.",
        "Files not named after a split were not read: 'pretrain.csv'.",
    )


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.csv", "train-00001-of-00002.csv"],
        ["train-00000-of-00002-a09b74b3ef9c3b56.csv", "train-00001-of-00002-b09b74b3ef9c3b56.csv"],
        ["train_1.csv", "train_2.csv"],
        ["train-part1.csv", "train-part2.csv"],
        ["reviews_train_1.csv", "reviews_train_2.csv"],
    ],
)
def test_numbered_files_are_parts_of_one_split(tmp_path, names):
    parts, _ = (
        located(tmp_path, *names, "train_backup.csv")
        if names[0].startswith("train")
        else located(tmp_path, *names)
    )
    assert parts == {"train": names}


def test_files_called_like_those_of_other_splits_come_first(tmp_path):
    parts, notes = located(tmp_path, "dishes_train.csv", "old_train.csv", "dishes_val.csv")
    assert parts == {"train": ["dishes_train.csv"], "validation": ["dishes_val.csv"]}
    assert notes[0].startswith("Files that could also be the train split were not read: 'old_train.csv'.")


def test_ambiguous_files_are_an_error(tmp_path):
    with pytest.raises(InputError) as error:
        located(tmp_path, "a_train.csv", "b_train.csv", "test.csv", "test.csv.gz")
    assert str(error.value) == (
        "data.path must contain one file for the train split, or its numbered parts. Got 'a_train.csv', "
        "'b_train.csv'. Rename the file to use to train.csv, or move the other files elsewhere.\n"
        "data.path must contain the test split in one format. Got 'test.csv', 'test.csv.gz'. Remove the "
        "files of the other formats."
    )


def test_files_without_a_table_are_ignored(tmp_path):
    for name, content in {
        "readme.json": {"a": 1},
        "labels.json": ["x", "y"],
        "train.json": {"lr": 1},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "notes.csv").touch()
    parts, notes = located(tmp_path, "reviews.csv")
    assert parts == {"train": ["reviews.csv"]}
    assert notes == (
        "Files without a table were not read: 'labels.json', 'notes.csv', 'readme.json', 'train.json'.",
    )
    below = tmp_path / "data"
    below.mkdir()
    (tmp_path / "reviews.csv").rename(below / "reviews.csv")
    assert [file.name for file in locate(str(tmp_path), MODALITIES["text"]).sources["train"]] == [
        "reviews.csv"
    ]


def test_a_damaged_file_of_a_split_is_an_error(tmp_path):
    (tmp_path / "test.json").write_text('[{"text": "a",')
    (tmp_path / "train.csv").write_text(TABLE)
    with pytest.raises(InputError, match=r"test\.json must be readable as json"):
        load_source(str(tmp_path), modality=MODALITIES["text"])


@pytest.mark.parametrize("name", ["r.tsv", "r.csv.gz", "r.CSV", "r.ndjson", "r.jsonl.gz", "r.xlsx"])
def test_suffixes_of_tables(tmp_path, name):
    assert located(tmp_path, name)[0] == {"train": [name]}


def test_a_plain_name_is_not_mixed_with_numbered_ones(tmp_path):
    parts, notes = located(tmp_path, "train.csv", "train2.csv", "train_2.csv")
    assert parts == {"train": ["train.csv"]}
    assert notes == (
        "Files that could also be the train split were not read: 'train2.csv', 'train_2.csv'. It is read "
        "from 'train.csv'.",
    )


def test_several_files_of_a_split_and_missing_ones_are_reported(tmp_path):
    assert located(tmp_path, "train_1.csv", "train_2.csv", "test-00001-of-00002.csv")[1] == (
        "The test split has 1 of 2 parts: 'test-00001-of-00002.csv'.",
        "The train split is read from several files: 'train_1.csv', 'train_2.csv'.",
    )
