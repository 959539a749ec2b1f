"""Paths of images in tables, as other programs and systems write them."""

import base64
import itertools
import json
from pathlib import Path

import pytest
from data_helpers import prepare_data
from PIL import Image

from hf_finetune.data.evaluation_data import load_for_evaluation
from hf_finetune.data.file_paths import FileFinder, is_encoded
from hf_finetune.errors import InputError, truncate
from hf_finetune.evaluation.input_tables import open_table
from hf_finetune.tasks import MODALITIES

shades = itertools.count()


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(shades)
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(path)


@pytest.fixture
def photos(tmp_path):
    for name in (
        "train/cat/1.jpg",
        "train/dog/2.JPG",
        "train/two words/é.png",
        "test/cat/1.jpg",
        "old/abc123.jpg",
    ):
        picture(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("train/cat/1.jpg", "train/cat/1.jpg"),
        ("./train/cat/1.jpg", "train/cat/1.jpg"),
        ("train\\cat\\1.jpg", "train/cat/1.jpg"),
        (".\\train\\cat\\1.jpg", "train/cat/1.jpg"),
        (" train/cat/1.jpg ", "train/cat/1.jpg"),
        ("train/dog/2.jpg", "train/dog/2.JPG"),
        ("Train/Dog/2.jpg", "train/dog/2.JPG"),
        ("train/two words/é", "train/two words/é.png"),
        ("train/two words/e\u0301.png", "train/two words/é.png"),
        ("abc123", "old/abc123.jpg"),
        ("ABC123.JPG", "old/abc123.jpg"),
        ("cat/1", "train/cat/1.jpg"),
        ("1.jpg", "train/cat/1.jpg"),
        ("abc123.png", None),
        ("dog/1.jpg", None),
        ("at/1.jpg", None),
        ("~nobody.png", None),
        ("a\0b", None),
        ("x" * 5000, None),
        ("..", None),
    ],
)
def test_files_are_found_however_their_paths_are_written(photos, written, file):
    finder = FileFinder(photos, MODALITIES["image"], "train")
    assert finder.find(written) == (photos / file if file else photos / written)
    finder.raise_problems()


def test_an_absolute_path_is_taken_as_it_is(photos):
    finder = FileFinder(photos / "old", MODALITIES["image"])
    assert finder.find(str(photos / "train/cat/1.jpg")) == photos / "train/cat/1.jpg"
    assert finder.notes() == []


def test_paths_that_match_several_files_are_refused(photos):
    picture(photos / "old/abc123.png")
    finder = FileFinder(photos, MODALITIES["image"])
    assert [finder.find(name) for name in ("abc123", "cat/1.jpg")] == [
        photos / "abc123",
        photos / "cat/1.jpg",
    ]
    with pytest.raises(InputError) as error:
        finder.raise_problems()
    assert str(error.value) == (
        "'abc123' must match exactly one file. Got 'old/abc123.jpg', 'old/abc123.png'. Write the path "
        "relative to the folder of the table, with its suffix.\n"
        "'cat/1.jpg' must match exactly one file. Got 'test/cat/1.jpg', 'train/cat/1.jpg'. Write the path "
        "relative to the folder of the table, with its suffix."
    )


def table(path: Path, rows: dict[str, str], column: str = "image") -> None:
    path.write_text(
        "".join(f"{row}\n" for row in [f"{column},label", *(f"{a},{b}" for a, b in rows.items())])
    )


def test_a_competition_with_ids_in_the_folders_of_its_splits(tmp_path):
    for split in ("train", "test"):
        for index in range(6):
            picture(tmp_path / split / f"{split[0]}{index}.jpg")
        table(tmp_path / f"{split}.csv", {f"{split[0]}{index}": "ab"[index % 2] for index in range(5)})
    data = prepare_data(str(tmp_path), modality=MODALITIES["image"], validation=0)
    assert data.train["id"][:] == [f"train/t{index}.jpg" for index in range(5)]
    assert data.test["id"][:] == [f"test/t{index}.jpg" for index in range(5)]
    assert "Paths of 5 pictures were resolved, for example 't0' to 'train/t0.jpg'." in data.notes
    assert (
        "Pictures that are not listed in any row were not read (2 of 12): 'test/t5.jpg', 'train/t5.jpg'."
        in data.notes
    )


@pytest.mark.parametrize(("column", "columns"), [("file", {}), ("id", {"image": "id"})])
def test_names_of_images_may_be_numbers(tmp_path, column, columns):
    for name in ("07", "17", "18", "19"):
        picture(tmp_path / "train" / f"{name}.png")
    table(tmp_path / "labels.csv", {"07": "a", "17": "b", "18": "a", "19": "b"}, column)
    data = prepare_data(str(tmp_path), modality=MODALITIES["image"], columns=columns, validation=0, test=0)
    assert data.train["id"][:] == ["train/07.png", "train/17.png", "train/18.png", "train/19.png"]


def test_images_of_other_folders_are_mentioned_only_if_the_folder_is_the_data(tmp_path):
    for index in range(4):
        picture(tmp_path / "photos" / f"{index}.png")
    picture(tmp_path / "more/9.png")
    table(tmp_path / "labels.csv", {f"photos\\{index}.png": "ab"[index % 2] for index in range(4)})
    data = prepare_data(str(tmp_path / "labels.csv"), modality=MODALITIES["image"], validation=0, test=0)
    assert data.train["id"][:] == [f"photos/{index}.png" for index in range(4)]
    assert not any("no row lists" in note for note in data.notes)


def test_urls_and_paths_that_all_lead_nowhere_are_one_problem(tmp_path):
    urls = {f"https://pictures.example/{index}.jpg": "ab"[index % 2] for index in range(10)}
    table(tmp_path / "labels.csv", urls)
    with pytest.raises(InputError) as error:
        prepare_data(str(tmp_path / "labels.csv"), modality=MODALITIES["image"])
    shown = ", ".join(map(repr, list(urls)[:8]))
    assert str(error.value) == (
        f"data.columns.image must contain file paths, not URLs. Got {shown} and 2 more. Download the images, and "
        "replace the URLs by the paths of the files."
    )
    table(tmp_path / "labels.csv", {"C:\\photos\\1.jpg": "a", "/elsewhere/2.jpg": "b"})
    options = {"target": "single_label", "label_names": ("a", "b")}
    for load in (prepare_data, lambda path, **kinds: load_for_evaluation(path, **kinds, **options)):
        with pytest.raises(InputError) as error:
            load(str(tmp_path / "labels.csv"), modality=MODALITIES["image"])
        assert str(error.value) == (
            "data.columns.image must contain paths of existing pictures. Got 'C:\\\\photos\\\\1.jpg', "
            "'/elsewhere/2.jpg'. "
            f"These files do not exist in '{tmp_path}'. Write paths relative to the folder of the table."
        )


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(200))).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200)).decode()


@pytest.mark.parametrize(
    "value",
    [PNG, JPEG, f"{PNG[:76]}\n{PNG[76:]}", f"data:image/png;base64,{PNG}", "data:image/svg+xml,%3Csvg/%3E"],
)
def test_images_encoded_as_text_are_reported_as_such(tmp_path, value):
    (tmp_path / "labels.jsonl").write_text(
        "".join(json.dumps({"image": value, "label": label}) + "\n" for label in "abab")
    )
    with pytest.raises(InputError) as error:
        prepare_data(str(tmp_path / "labels.jsonl"), modality=MODALITIES["image"])
    assert str(error.value) == (
        "data.columns.image must contain file paths, not base64-encoded images or data URIs. Got "
        f"{', '.join([repr(truncate(value))] * 4)}. Write each image to a file and its path into the "
        f"table, or the bytes of the images into a "
        "column of a parquet file."
    )
    assert len(str(error.value)) < 800
    item = next(open_table(tmp_path / "labels.jsonl", MODALITIES["image"], named={}).items)
    assert item.id == f"{tmp_path / 'labels.jsonl'}:0"
    assert item.error == (
        f"The image is base64 or a data URI ({truncate(value)}); write the picture to a file, and put its path there."
    )


def test_names_of_files_are_not_mistaken_for_encoded_images(tmp_path):
    for name in ("iVBORw0KGgo.png", "iVBORw0KGgo", "/9j/1.jpg", "R0lGOD/0.gif", "data.png"):
        assert not is_encoded(name)


@pytest.mark.parametrize(
    "value", ["x" * 300 + ".png", "x" * 300 + "/1.png", "a/" * 3000 + "1.png", "a\0b.png"]
)
def test_values_that_no_file_can_be_called_are_missing_files(tmp_path, value):
    shown = f"{value[:100]}..." if len(value) > 100 else value
    for number in range(8):
        picture(tmp_path / f"{number}.png")
    good = {f"{number}.png": "ab"[number % 2] for number in range(8)}
    for paths in ({value: "a", f"b{value}": "b"}, {**good, value: "b"}):
        lines = [json.dumps({"image": path, "label": label}) + "\n" for path, label in paths.items()]
        (tmp_path / "labels.jsonl").write_text("".join(lines))
        with pytest.raises(InputError) as error:
            prepare_data(str(tmp_path / "labels.jsonl"), modality=MODALITIES["image"])
        message = str(error.value)
        if len(paths) == 2:
            assert message.startswith(
                f"data.columns.image must contain paths of existing pictures. Got {shown!r}, "
            )
        else:
            assert message.startswith("train:8 must contain a readable image. Got no such file.")
        assert len(message) < 600
    data = prepare_data(
        str(tmp_path / "labels.jsonl"), modality=MODALITIES["image"], validation=0, test=0, on_error="skip"
    )
    assert data.train["id"][:] == list(good)
    *_, item = open_table(tmp_path / "labels.jsonl", MODALITIES["image"], named={}).items
    assert item.id == f"{tmp_path / 'labels.jsonl'}:8"
    assert item.error == f"There is no file of this name ({shown!r})."
