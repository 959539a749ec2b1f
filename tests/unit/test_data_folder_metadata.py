"""Folders next to metadata files, tables and archives: the labels in each, and which one is used."""

from collections import Counter

import datasets
import pytest
from folder_helpers import images, labels_of, refusal, texts, touch, write


def test_flat_splits_with_metadata(tmp_path):
    touch(tmp_path, *(f"{split}/{index}.png" for split in ("train", "test") for index in range(3)))
    for split in ("train", "test"):
        write(tmp_path / split / "metadata.csv", "file_name,label\n0.png,cat\n1.png,dog\n2.png,cat\n")
    expected = {
        (split, f"{split}/{index}.png"): "dog" if index == 1 else "cat"
        for split in ("train", "test")
        for index in range(3)
    }
    assert labels_of(images(tmp_path)) == expected
    for split in ("train", "test"):
        (tmp_path / split / "metadata.csv").unlink()
    rows = "".join(
        f'{{"file_name": "{name}", "label": "{label}"}}\n' for (_, name), label in expected.items()
    )
    write(tmp_path / "metadata.jsonl", rows)
    assert labels_of(images(tmp_path)) == expected


def test_metadata_above_flat_splits_that_writes_paths_in_other_ways(tmp_path):
    touch(tmp_path, "train/A.JPG", "train/b.png", "test/c.png", "test/d.png")
    write(
        tmp_path / "metadata.csv",
        "file_name,label\ntrain\\a.jpg,cat\n./train/b,dog\ntest\\c.png,cat\nd,dog\n",
    )
    source = images(tmp_path)
    assert labels_of(source) == {
        ("train", "train/A.JPG"): "cat", ("train", "train/b.png"): "dog",
        ("test", "test/c.png"): "cat", ("test", "test/d.png"): "dog",
    }  # fmt: skip
    assert "Paths of 4 pictures were resolved, for example 'train\\\\a.jpg' to 'train/A.JPG'." in source.notes


def test_images_without_metadata_and_metadata_without_images(tmp_path):
    touch(tmp_path, "train/0.png", "train/1.png", "train/deep/2.png", "test/0.png")
    write(tmp_path / "train/metadata.csv", "file_name,label\n0.png,cat\n9.png,dog\n")
    source = images(tmp_path)
    assert labels_of(source) == {
        ("train", "train/0.png"): "cat",
        ("train", "train/9.png"): "dog",
    }  # reported as unreadable
    assert source.notes == (
        "test/ has no class folders, so the test split counts as missing.",
        "train: images that no metadata file lists were not read: '1.png', 'deep/2.png'.",
    )


def test_metadata_of_file_names_only(tmp_path):
    touch(tmp_path, "train/0.png", "test/0.png")
    for split in ("train", "test"):
        write(tmp_path / split / "metadata.csv", "file_name\n0.png\n")
    assert "metadata.csv' must have a label column in addition to 'file_name'." in refusal(tmp_path)


def test_metadata_with_urls(tmp_path):
    touch(tmp_path, "train/0.png", "test/0.png")
    write(tmp_path / "metadata.csv", "file_name,label\nhttps://a.example/0.png,cat\n")
    assert refusal(tmp_path) == (
        f"{tmp_path}/metadata.csv must contain file paths, not URLs. Got 'https://a.example/0.png'. "
        "Download the images, and replace the URLs by the paths of the files."
    )


def test_metadata_that_contradicts_the_class_folders(tmp_path):
    touch(tmp_path, *(f"{batch}/{index}.png" for batch in ("batch1", "batch2") for index in range(2)))
    for batch in ("batch1", "batch2"):
        write(tmp_path / batch / "metadata.csv", "file_name,label\n0.png,cat\n1.png,dog\n")
    assert refusal(tmp_path) == (
        "The data must have the same labels in its folders and in the column 'label' of its metadata files. "
        f"Got 4 differences: '{tmp_path}/batch1/0.png' is 'cat' in the column. Set data.columns.label: label if the "
        "folders are not classes; otherwise remove the column."
    )
    for label in ("label", {"name": "label"}):
        found = labels_of(images(tmp_path, columns={"label": label}))
        assert Counter(found.values()) == {"cat": 2, "dog": 2}


@pytest.mark.parametrize("names", [("batch1", "batch2"), ("0", "1")])
def test_metadata_that_names_the_class_folders_too_is_no_contradiction(tmp_path, names):
    touch(tmp_path, *(f"{batch}/{index}.png" for batch in ("batch1", "batch2") for index in range(2)))
    for batch, name in zip(("batch1", "batch2"), names, strict=True):
        write(tmp_path / batch / "metadata.csv", f"file_name,label\n0.png,{name}\n1.png,{name}\n")
    source = images(tmp_path)
    assert (Counter(labels_of(source).values()), source.notes) == ({"batch1": 2, "batch2": 2}, ())


def test_metadata_is_read_as_other_tables_are(tmp_path):
    touch(tmp_path, *(f"{split}/{index}.png" for split in ("train", "test") for index in range(4)))
    for split in ("train", "test"):
        rows = "".join(f"{index}.png;0{index % 2}\n" for index in range(4))
        (tmp_path / split / "metadata.csv").write_text(f"\ufefffile_name;label\n{rows}", encoding="utf-16")
    assert Counter(labels_of(images(tmp_path)).values()) == {"00": 4, "01": 4}


def test_a_saved_dataset_with_more_than_it_lists(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path)
    assert texts(tmp_path).notes == ()
    rows.save_to_disk(tmp_path / "validation")
    arrow = next((tmp_path / "train").glob("*.arrow"))
    for name in ("data-00001-of-00002.arrow", "cache-1234.arrow"):
        (tmp_path / "train" / name).write_bytes(arrow.read_bytes())
    assert texts(tmp_path).notes == (
        "Parts of the saved dataset that its JSON files do not list were not read: "
        "'train/data-00001-of-00002.arrow', 'validation'.",
    )


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "photos.rar"])
def test_an_archive_has_to_be_unpacked(tmp_path, name):
    touch(tmp_path, name)
    assert refusal(tmp_path / name) == (
        f"data.path must be a file of a known format. Got '{tmp_path / name}'. Unpack it, and set data.path "
        "to the folder."
    )


@pytest.mark.parametrize(("labels", "refused"), [("xyxy", True), ("aabb", False), ("0011", False), ("xbya", True),
                                                ("axyb", False)])  # fmt: skip
def test_a_table_next_to_class_folders_that_has_other_labels(tmp_path, labels, refused):
    touch(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/4.png")
    write(
        tmp_path / "index.csv", "id,label\n" + "".join(f"{k + 1},{label}\n" for k, label in enumerate(labels))
    )
    if refused:
        assert refusal(tmp_path) == (
            f"{tmp_path}/index.csv must not contradict the labels of the class folders, as its column "
            "'label' does. Got 'x' for '1.png' in 'a'. If the folders are not classes, set data.path to the "
            "table; otherwise move the table elsewhere."
        )
    else:
        assert Counter(labels_of(images(tmp_path)).values()) == {"a": 2, "b": 2}


def test_folders_of_texts_next_to_a_table_are_spoken_of(tmp_path):
    touch(tmp_path, "a/1.txt", "b/2.txt")
    write(tmp_path / "train.csv", "text,label\nx,1\ny,2\n")
    assert texts(tmp_path).notes == ("Folders of texts next to the tables were not read: 'a', 'b'.",)
