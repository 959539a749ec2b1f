"""Files in folders: every layout reads all files with their labels, or reports which it does not read."""

import os
from collections import Counter
from pathlib import Path

import datasets
import pytest
from folder_helpers import PICTURE, images, labels_of, link, refusal, texts, touch, write

from hf_finetune.data.table_options import TableOptions

# --- Splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training"])
@pytest.mark.parametrize("validation", ["val", "valid", "dev", "eval", "Validation"])
@pytest.mark.parametrize("test", ["test", "TEST", "testing"])
def test_names_of_splits(tmp_path, train, validation, test):
    touch(tmp_path, *(f"{split}/{name}/1.png" for split in (train, validation, test) for name in "ab"))
    assert labels_of(images(tmp_path)) == {
        (split, f"{folder}/{name}/1.png"): name
        for split, folder in (("train", train), ("validation", validation), ("test", test))
        for name in "ab"
    }


@pytest.mark.parametrize(("train", "test"), [("seg_train", "seg_test"), ("training_set", "test_set")])
def test_folders_with_the_split_in_their_names(tmp_path, train, test):
    touch(tmp_path, *(f"{split}/{name}/1.png" for split in (train, test) for name in "ab"))
    source = images(tmp_path)
    assert Counter(split for split, _ in labels_of(source)) == {"train": 2, "test": 2}
    assert source.notes == (f"Folders read as splits: {test!r} as test, {train!r} as train.",)


def test_a_class_called_train(tmp_path):
    touch(tmp_path / "flat", "train/1.png", "bus/2.png", "car/3.png")
    source = images(tmp_path / "flat")
    assert set(labels_of(source).values()) == {"train", "bus", "car"}
    assert source.notes == ("'train' is read as a class, not as a split.",)
    touch(
        tmp_path / "split",
        *(f"{split}/{name}/1.png" for split in ("train", "test") for name in ("train", "bus")),
    )
    assert Counter(labels_of(images(tmp_path / "split")).values()) == {"train": 2, "bus": 2}


def test_a_split_folder_next_to_class_folders_is_refused(tmp_path):
    touch(tmp_path, "train/steam/1.png", "train/diesel/2.png", "bus/3.png", "car/4.png")
    assert refusal(tmp_path) == (
        f"{tmp_path} must contain either split folders or class folders. Got 'train' (a split name) and 'bus', 'car'. "
        "If 'train' is a class, rename it; if it is a split, move the other "
        "folders elsewhere."
    )


# --- Flat folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "dev"), ("train", "test1"), ("train",)])
def test_flat_splits_without_labels_are_no_classes(tmp_path, names):
    touch(tmp_path, *(f"{name}/{index}.png" for name in names for index in range(2)))
    assert refusal(tmp_path).splitlines()[0] == (
        f"{tmp_path}/{min(names)} must contain one folder of pictures per class, or a file metadata.csv with the "
        "labels. Got only files without labels: '0.png', '1.png'. Create a folder for each "
        "class, or add metadata.csv with the columns file_name and label."
    )


@pytest.mark.parametrize("names", [("cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"),
                                   ("great_dane_1.png", "great_dane_12.png", "pug_3.png", "pug_4.png"),
                                   ("cat (1).jpg", "cat (2).jpg", "dog (1).jpg", "dog (2).jpg"),
                                   ("n01_1.JPEG", "n01_2.JPEG", "n02_1.JPEG", "n02_2.JPEG"),
                                   ("0001_cat.png", "0002_cat.png", "0003_dog.png", "0004_dog.png"),
                                   ("cat-a1b.png", "cat-77f.png", "dog-123.png", "dog-9ce.png")])  # fmt: skip
@pytest.mark.parametrize("split", ["", "train/"])
def test_names_that_carry_the_class_get_a_pattern_that_works(tmp_path, names, split):
    touch(tmp_path, *(split + name for name in names))
    said = refusal(tmp_path)
    assert "If their names contain the class, set data.columns.label: {from: name, pattern: '" in said
    pattern = said.split("pattern: '")[1].rsplit("'}", 1)[0]
    labels = labels_of(images(tmp_path, columns={"label": {"from": "name", "pattern": pattern}}))
    assert sorted(Counter(labels.values()).values()) == [2, 2]


def test_files_whose_names_do_not_match_the_pattern_are_reported(tmp_path):
    touch(tmp_path, "train/cat.0.png", "train/more/dog.0.png", "train/me.png", "other/cat.9.png")
    columns = {"label": {"from": "name", "pattern": r"^(\w+)\.\d+\."}}
    assert refusal(tmp_path, columns=columns) == (
        r"data.columns.label.pattern must match the name of every file. Got '^(\\w+)\\.\\d+\\.', which does "
        r"not match 'me.png'. Fix the pattern, or move these files elsewhere."
    )
    (tmp_path / "train/me.png").unlink()
    source = images(tmp_path, columns=columns)
    assert labels_of(source) == {
        ("train", "train/cat.0.png"): "cat",
        ("train", "train/more/dog.0.png"): "dog",
    }
    assert source.notes == ("Folders not named after a split were not read: 'other'.",)


def test_a_split_without_labels_in_its_names_counts_as_missing(tmp_path):
    touch(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg", "test1/2.jpg")
    source = images(tmp_path, columns={"label": {"from": "name", "pattern": r"^(cat|dog)\."}})
    assert list(source.splits) == ["train"]
    assert source.notes[-1] == "test1/ has no labels in its file names, so the test split counts as missing."


# --- Links ---------------------------------------------------------------------------------------------------------


def test_links_are_read_like_their_targets(tmp_path):
    elsewhere = touch(
        tmp_path / "elsewhere", "bird/1.png", "bird/2.png", "split/cat/5.png", "split/bird/6.png"
    )
    root = touch(tmp_path / "photos", "train/cat/1.png")
    link(root / "train/bird", elsewhere / "bird")
    link(root / "train/cat/2.png", elsewhere / "bird/1.png")
    link(root / "test", elsewhere / "split")
    link(tmp_path / "way", root)
    for path in (root, tmp_path / "way"):
        source = images(path)
        assert labels_of(source) == {
            ("train", "train/bird/1.png"): "bird",
            ("train", "train/bird/2.png"): "bird",
            ("train", "train/cat/1.png"): "cat",
            ("train", "train/cat/2.png"): "cat",
            ("test", "test/bird/6.png"): "bird",
            ("test", "test/cat/5.png"): "cat",
        }
        assert source.notes == (
            f"Links to targets outside '{path}' were followed: 'test' to '{elsewhere}/split' and 2 more.",
        )


def test_links_within_the_data_are_not_spoken_of(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png", "dog/2.png")
    link(tmp_path / "cat/2.png", Path("../dog/2.png"))
    assert images(tmp_path).notes == ()


@pytest.mark.parametrize("target", [".", "..", "../..", "../cat"])
def test_links_in_a_circle_are_refused(tmp_path, target):
    touch(tmp_path / "data", "cat/1.png", "dog/1.png")
    link(tmp_path / "data/cat/again", Path(target))
    where = os.path.realpath(tmp_path / "data/cat" / target)
    if target == "../..":  # only this link leads back: the data is not in its own class folder
        touch(tmp_path, "data/more.png")
    said = refusal(tmp_path / "data", nested="join")
    assert "must not be a link to one of its parent folders. Got a link to '" in said
    assert str(where) in said or target == "../.."


def test_links_that_lead_nowhere(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png")
    link(tmp_path / "dog/2.png", Path("nothing.png"))  # reported with the unreadable files
    assert ("train", "dog/2.png") in labels_of(images(tmp_path))
    link(tmp_path / "bird", tmp_path / "nothing")
    link(tmp_path / "round", tmp_path / "round")
    assert refusal(tmp_path) == (
        f"{tmp_path}/bird must be a link to an existing file or folder. Got a link to '{tmp_path}/nothing'. "
        "Fix or remove the link.\n"
        f"{tmp_path}/round must be a link to an existing file or folder. Got a link to '{tmp_path}/round'. "
        "Fix or remove the link."
    )


def test_links_that_git_saved_as_text_files(tmp_path):
    touch(tmp_path / "real", "bird/1.png", "split/bird/3.png", "split/cat/4.png")
    root = touch(tmp_path / "photos", "train/cat/1.png", "train/cat/LICENSE")
    write(root / "train/bird", "../../real/bird")
    write(root / "test", str(tmp_path / "real/split"))
    write(root / "notes", "nothing/of this")
    write(root / "train/more", ".\n")
    write(tmp_path / "link", "photos")
    for path in (root, tmp_path / "link"):
        source = images(path)
        assert labels_of(source) == {
            ("train", "../real/bird/1.png"): "bird", ("train", "train/cat/1.png"): "cat",
            ("test", "../real/split/bird/3.png"): "bird", ("test", "../real/split/cat/4.png"): "cat",
        }  # fmt: skip
        assert source.notes[-1] == (
            "Links that were saved as text files (by git without support for symbolic links) were followed: "
            f"'test' to '{tmp_path}/real/split' and 1 more."
        )
    write(root / "train/cat/again", "../../train")
    assert "train/cat/again must not be a link to one of its parent folders." in refusal(root, nested="join")


# --- Nested and wrapped folders ------------------------------------------------------------------------------------


def test_nested_class_folders(tmp_path):
    touch(tmp_path, "animals/cat/1.png", "animals/dog/2.png", "plants/3.png", "plants/rose/old/4.png")
    assert refusal(tmp_path).startswith(
        "animals must not contain subfolders with pictures. Got 'animals/cat/1.png', 'animals/dog/2.png'. "
        "Set data.nested: join to make each folder a class of its own ('animals/cat'), data.nested: top to "
        "make the outer folder the class ('animals'), or move the files up."
    )
    assert set(labels_of(images(tmp_path, nested="join")).values()) == {
        "animals/cat", "animals/dog", "plants", "plants/rose/old",
    }  # fmt: skip
    assert Counter(labels_of(images(tmp_path, nested="top")).values()) == {"animals": 2, "plants": 2}


@pytest.mark.parametrize("nested", [None, "join"])
def test_splits_below_the_classes_are_refused(tmp_path, nested):
    touch(tmp_path, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png")
    assert refusal(tmp_path, nested=nested).splitlines()[0] == (
        "cat must be inside the split folders, not contain them. Got 'cat/test', 'cat/train'. Move them, "
        "for example to 'test/cat'."
    )


@pytest.mark.parametrize("wrap", ["photos", "dataset/images", "archive/photos/photos"])
def test_the_folder_that_an_archive_was_unpacked_to(tmp_path, wrap):
    touch(tmp_path, f"{wrap}/cat/1.png", f"{wrap}/dog/1.png", "__MACOSX/photos/cat/._1.png", "LICENSE")
    source = images(tmp_path)
    assert sorted(labels_of(source).values()) == ["cat", "dog"]
    assert source.notes[0].endswith("the only folder that contains data.")


@pytest.mark.parametrize(("train", "test"), [("train/train", "test/test"), ("seg_train/seg_train", "seg_test/seg_test"),
                                             ("train/images", "val/images")])  # fmt: skip
def test_wrapped_splits(tmp_path, train, test):
    touch(tmp_path, *(f"{split}/{name}/1.png" for split in (train, test) for name in "ab"))
    source = images(tmp_path)
    assert Counter(labels_of(source).values()) == {"a": 2, "b": 2}
    assert source.notes[-1].startswith("The class folders are read from '")
    touch(tmp_path, f"{test.split('/')[0]}/other/2.png")
    assert "must not contain subfolders with pictures" in refusal(tmp_path)


def test_a_table_of_another_split_next_to_folders_of_the_training_split(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png")
    write(tmp_path / "test.csv", "image,label\n1.png,a\n")
    source = images(tmp_path)
    assert Counter(labels_of(source).values()) == {"a": 1, "b": 1}
    assert source.notes == (
        "Files next to the class folders were not read: 'test.csv'. To read one of them instead, set "
        "data.path to it.",
    )


def test_a_wrapped_table_and_a_wrapped_saved_dataset(tmp_path):
    (tmp_path / "table/reviews").mkdir(parents=True)
    (tmp_path / "table/reviews/train.csv").write_text("text,label\na,1\nb,2\n")
    assert len(texts(tmp_path / "table").splits["train"]) == 2
    datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).save_to_disk(tmp_path / "saved/inner")
    assert len(texts(tmp_path / "saved").splits["train"]) == 1


# --- Names, and files that are not read ----------------------------------------------------------------------------


def test_names_of_every_kind(tmp_path):
    names = ["v1.0", "cat.png", "two words", "café", "ñandú", "猫", "a[b]*?", "#1", "-x"]
    touch(
        tmp_path, *(f"{name}/{file}" for name in names for file in ("1.png", "b c.JPG", "x.y.Png", "é.jpeg"))
    )
    found = labels_of(images(tmp_path))
    assert Counter(found.values()) == dict.fromkeys(names, 4)
    assert all(label == name.split("/")[0] for (_, name), label in found.items())


def test_a_class_name_in_two_unicode_forms_is_one_class(tmp_path):
    touch(tmp_path, "train/cafe\u0301/1.png", "train/tea/1.png", "test/caf\u00e9/2.png", "test/tea/2.png")
    assert set(labels_of(images(tmp_path)).values()) == {"caf\u00e9", "tea"}


def test_a_name_that_is_not_utf8(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png")
    Path(os.fsdecode(bytes(tmp_path / "dog") + b"/\xff.png")).write_bytes(PICTURE)
    assert refusal(tmp_path) == (
        rf"{tmp_path}/dog must contain only names in UTF-8. Got '\udcff.png'. Rename this entry."
    )


def test_skipped_files_are_reported(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/Thumbs.db", "cat/.DS_Store", "cat/._1.png", "cat/desktop.ini", "cat/notes.md",
          "dog/1.png", "dog/.old/2.png", "dog/.3.png", ".git/x", "more/read.me", "pictures.zip")  # fmt: skip
    (tmp_path / "empty").mkdir()
    write(tmp_path / "more/read.me", "no picture")
    source = images(tmp_path)
    assert len(source.splits["train"]) == 2
    assert source.notes == (
        "Folders without pictures are not used as classes: 'empty', 'more'.",
        "Files other than pictures were not read: 'cat/notes.md', 'more/read.me', 'pictures.zip'.",
        "Hidden files and folders were not read: 'dog/.3.png', 'dog/.old'. Rename them without the dot to use them.",
    )


@pytest.mark.parametrize("folder", ["", "train/", "wrap/"])
@pytest.mark.parametrize("others", [(), ("cat/1.png",), ("../test/bird/1.png",)])
def test_classes_of_unreadable_images_are_refused(tmp_path, folder, others):
    root = touch(
        tmp_path / "data", *(f"{folder}{name}/{index}.svg" for name in ("bird", "fish") for index in (1, 2))
    )
    touch(root / folder, *(name for name in others if folder == "train/" or "test" not in name))
    lines = refusal(root).splitlines()
    assert [Path(line.split(" must contain images in supported formats.")[0]).name for line in lines] == [
        "bird", "fish",
    ]  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_files_are_found_at_once_and_all_of_them(tmp_path):
    for name in "abcde":
        (tmp_path / name).mkdir()
        for index in range(2000):
            (tmp_path / name / f"{index}.png").touch()
    found = labels_of(images(tmp_path))
    on_disk = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert {name for _, name in found} == on_disk and len(found) == 10_000


# --- Texts ---------------------------------------------------------------------------------------------------------


def test_class_folders_of_texts(tmp_path):
    touch(tmp_path, *(f"train/{name}/{index}.txt" for name in ("pos", "neg", "unsup") for index in range(2)))
    touch(tmp_path, "test/pos/0_1.txt", "test/neg/0_2.txt", "README.txt", "imdb.vocab", "train/urls_pos.txt",
          "train/unsupBow.feat")  # fmt: skip
    source = texts(tmp_path)
    assert labels_of(source) == {
        ("train", "train/neg/0.txt"): "neg",
        ("train", "train/neg/1.txt"): "neg",
        ("train", "train/pos/0.txt"): "pos",
        ("train", "train/pos/1.txt"): "pos",
        ("test", "test/neg/0_2.txt"): "neg",
        ("test", "test/pos/0_1.txt"): "pos",
    }
    assert source.splits["test"]["text"][:] == ["text of test/neg/0_2.txt\n", "text of test/pos/0_1.txt\n"]
    assert source.notes == (
        "Folders named as unlabeled data were not read: 'train/unsup'. Rename a folder to use it as a class.",
        "Files next to the class folders were not read: 'train/urls_pos.txt'.",
        "Files other than texts were not read: 'train/unsupBow.feat'.",
    )


def test_class_folders_of_texts_without_splits_and_wrapped(tmp_path):
    touch(tmp_path, "bbc/sport/001.txt", "bbc/tech/001.txt", "bbc/README.TXT")
    assert labels_of(texts(tmp_path)) == {
        ("train", "sport/001.txt"): "sport",
        ("train", "tech/001.txt"): "tech",
    }


def test_every_unreadable_text_is_reported(tmp_path):
    touch(tmp_path, "pos/1.txt", "neg/1.txt")
    (tmp_path / "neg/2.txt").write_bytes(b"caf\xe9 noir")
    link(tmp_path / "pos/2.txt", tmp_path / "nothing.txt")
    said = refusal(tmp_path, "text").splitlines()
    assert said[0].startswith(f"{tmp_path}/neg/2.txt must be")
    assert said[1] == f"{tmp_path}/pos/2.txt must be readable. Got No such file or directory."
    (tmp_path / "pos/2.txt").unlink()
    source = texts(tmp_path, options=TableOptions(encoding="cp1252"))
    assert source.splits["train"]["text"][1] == "café noir"
    assert source.notes == (f"Texts read as cp1252: 3, for example '{tmp_path}/neg/1.txt'.",)


# --- Order of classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "txt"])
def test_classes_that_are_numbers_are_in_their_order_as_in_tables(tmp_path, suffix):
    touch(tmp_path, *(f"{number}/{index}.{suffix}" for number in (1, 2, 10, 11) for index in range(2)))
    source = images(tmp_path) if suffix == "png" else texts(tmp_path)
    assert source.splits["train"].features["label"].names == ["1", "2", "10", "11"]
    assert source.notes[-1] == (
        "Classes are sorted by their numbers: '1', '2', '10', '11'. As strings, as in torchvision's "
        "ImageFolder, '10' would come before '2'. The order of a trained model is in its config.json."
    )


def test_the_note_on_the_order_of_classes_names_the_first_two_that_differ(tmp_path):
    touch(tmp_path, *(f"{number}/{index}.png" for number in (0, 1, 2, 10, 11) for index in range(2)))
    assert (
        "As strings, as in torchvision's ImageFolder, '10' would come before '2'"
        in images(tmp_path).notes[-1]
    )


def test_numbers_of_one_length_and_names_are_in_the_order_of_texts(tmp_path):
    touch(
        tmp_path, *(f"{name}/{index}.png" for name in ("02", "01", "10", "b10", "b2") for index in range(2))
    )
    source = images(tmp_path)
    assert source.splits["train"].features["label"].names == ["01", "02", "10", "b10", "b2"]
    assert not any("order" in note for note in source.notes)
