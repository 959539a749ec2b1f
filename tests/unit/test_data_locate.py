from pathlib import Path

import pytest

from hf_finetune.data.locate import locate
from hf_finetune.data.split_names import split_name
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES


def touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return root


@pytest.mark.parametrize("name", ["val", "valid", "dev", "validation", "Val"])
def test_other_names_of_validation(name):
    assert split_name(name) == "validation"


def test_class_folders(tmp_path):
    touch(tmp_path, "soup/1.png", "cake/2.JPG", "cake/.hidden")
    found = locate(str(tmp_path), MODALITIES["image"])
    assert (found.kind, found.root, dict(found.sources), found.notes) == (
        "class_folders",
        tmp_path,
        {"train": (tmp_path,)},
        (),
    )


def test_class_folders_below_split_folders(tmp_path):
    touch(
        tmp_path, "train/soup/1.png", "train/cake/2.png", "val/soup/3.png", "extra/soup/4.png", "test/5.png"
    )
    found = locate(str(tmp_path), MODALITIES["image"])
    assert dict(found.sources) == {"train": (tmp_path / "train",), "validation": (tmp_path / "val",)}
    assert found.notes == (
        "test/ has no class folders, so the test split counts as missing.",
        "Folders not named after a split were not read: 'extra'.",
    )


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/1.png", "bus/2.png")
    assert dict(locate(str(tmp_path), MODALITIES["image"]).sources) == {"train": (tmp_path,)}


def test_files_that_are_no_images_and_empty_folders_are_noted(tmp_path):
    touch(tmp_path, "soup/1.png", "soup/recipe.txt", "cake/2.png")
    (tmp_path / "tea").mkdir()
    assert locate(str(tmp_path), MODALITIES["image"]).notes == (
        "Folders without pictures are not used as classes: 'tea'.",
        "Files other than pictures were not read: 'soup/recipe.txt'.",
    )


def test_all_misplaced_images_are_reported(tmp_path):
    touch(tmp_path, "soup/1.png", "soup/old/2.png", "stray.png")
    with pytest.raises(InputError) as error:
        locate(str(tmp_path), MODALITIES["image"])
    assert str(error.value) == (
        "soup must not contain subfolders with pictures. Got 'soup/old/2.png'. Set data.nested: "
        "join to make each folder a class of its own ('soup/old'), data.nested: top to make the outer "
        "folder the class ('soup'), or move the files up.\n"
        f"{tmp_path} must not contain pictures outside of the class folders. Got 'stray.png'. Move them into the "
        "folder of their class."
    )


def test_two_folders_for_one_split(tmp_path):
    touch(tmp_path, "train/soup/1.png", "val/soup/2.png", "dev/soup/3.png")
    with pytest.raises(InputError) as error:
        locate(str(tmp_path), MODALITIES["image"])
    assert str(error.value) == (
        "data.path must contain one folder for the validation split. Got 'dev', 'val'. Keep one of them."
    )


def test_files_named_after_splits(tmp_path):
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "dishes_dev.parquet", "a.csv"]
    touch(tmp_path, *names)
    found = locate(str(tmp_path), MODALITIES["text"])
    assert found.kind == "files"
    assert dict(found.sources) == {
        "train": (tmp_path / names[0], tmp_path / names[1]),
        "validation": (tmp_path / names[2],),
    }
    assert found.notes == ("Files not named after a split were not read: 'a.csv'.",)


def test_files_below_data(tmp_path):
    touch(tmp_path, "data/train.parquet")
    assert dict(locate(str(tmp_path), MODALITIES["image"]).sources) == {
        "train": (tmp_path / "data/train.parquet",)
    }


def test_a_single_file_of_any_name_is_train(tmp_path):
    touch(tmp_path, "reviews.jsonl")
    for path in (tmp_path, tmp_path / "reviews.jsonl"):
        found = locate(str(path), MODALITIES["text"])
        assert (found.root, dict(found.sources)) == (tmp_path, {"train": (tmp_path / "reviews.jsonl",)})


def test_a_table_next_to_its_folder_of_images(tmp_path):
    touch(tmp_path, "labels.csv", "pictures/1.png", "pictures/2.png")
    assert dict(locate(str(tmp_path), MODALITIES["image"]).sources) == {"train": (tmp_path / "labels.csv",)}
    touch(tmp_path, "more/3.png")  # two folders are classes
    found = locate(str(tmp_path), MODALITIES["image"])
    assert dict(found.sources) == {"train": (tmp_path,)}
    assert found.notes == (
        "Files next to the class folders were not read: 'labels.csv'. To read one of them instead, set "
        "data.path to it.",
    )


def test_files_of_no_split_or_of_two_formats(tmp_path):
    touch(tmp_path, "a.csv", "train_test.csv")
    with pytest.raises(InputError) as error:
        locate(str(tmp_path), MODALITIES["text"])
    assert str(error.value) == (
        "data.path must contain files named after their split. Got 'a.csv', 'train_test.csv'. Rename one "
        "file to train (train.csv, train-00000.parquet), or set data.path to a single file."
    )
    touch(tmp_path, "train.csv", "train.json")
    with pytest.raises(InputError) as error:
        locate(str(tmp_path), MODALITIES["text"])
    assert str(error.value) == (
        "data.path must contain the train split in one format. Got 'train.csv', 'train.json'. Remove the "
        "files of the other formats."
    )


@pytest.mark.parametrize(
    ("modality", "wanted"),
    [("image", "images"), ("text", ".txt files")],
)
def test_a_folder_without_known_files(tmp_path, modality, wanted):
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError) as error:
        locate(str(tmp_path), MODALITIES[modality])
    assert str(error.value) == (
        f"data.path must contain class folders of {wanted}, or csv, tsv, json, jsonl, parquet or xlsx files, or a "
        f"dataset saved by save_to_disk. Got '{tmp_path}'."
    )


def test_class_folders_of_images_contain_no_texts(tmp_path):
    touch(tmp_path, "soup/1.png", "cake/2.png")
    with pytest.raises(InputError, match=r"must contain class folders of \.txt files"):
        locate(str(tmp_path), MODALITIES["text"])


def test_a_file_of_another_format(tmp_path):
    touch(tmp_path, "a.ods")
    with pytest.raises(InputError) as error:
        locate(str(tmp_path / "a.ods"), MODALITIES["text"])
    assert str(error.value) == (
        f"data.path must be a file of a known format. Got '{tmp_path / 'a.ods'}'. "
        "Known: csv, tsv, json, jsonl (also with .gz), parquet, xlsx."
    )


def test_a_path_that_is_not_there_names_the_nearest(tmp_path):
    touch(tmp_path, "photos/soup/1.png")
    missing = str(tmp_path / "fotos" / "soup")
    with pytest.raises(InputError) as error:
        locate(missing, MODALITIES["image"])
    assert str(error.value) == (
        f"data.path must be a folder, a data file or a Hub id. Got '{missing}'. "
        f"Nearest: '{tmp_path / 'photos'}'."
    )
    missing = str(tmp_path / "xyz")
    with pytest.raises(InputError) as error:
        locate(missing, MODALITIES["image"])
    assert str(error.value) == (
        f"data.path must be a folder, a data file or a Hub id. Got '{missing}'. "
        f"'{tmp_path}' contains no file or folder with this name."
    )


@pytest.mark.parametrize("path", ["imdb", "ethz/food101", "stanfordnlp/imdb"])
def test_hub_ids(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(path, MODALITIES["text"]).kind == "hub"


@pytest.mark.parametrize("path", ["csv", "train.csv", "photos/soups", "a/b/c", "./imdb", "/imdb", "../imdb"])
def test_no_hub_ids(path, tmp_path, monkeypatch):
    touch(tmp_path, "photos/soup/1.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must be a folder, a data file or a Hub id"):
        locate(path, MODALITIES["image"])


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    touch(tmp_path, "soup/1.png", "cake/1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~", MODALITIES["image"]).root == tmp_path
