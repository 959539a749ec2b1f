"""Inputs without labels: every format of labelled data, a folder of images, and their errors."""

import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from hf_finetune.data.unlabeled import load_unlabeled
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

PLACE = "domain_adaptation.target"


def load(path, modality="text", **changes):
    return load_unlabeled(str(path), modality=MODALITIES[modality], columns={}, place=PLACE, **changes)


def problem(*arguments, **changes):
    with pytest.raises(InputError) as caught:
        load(*arguments, **changes)
    return str(caught.value)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (8, 8), (60 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text,label\na film,7\na plot,\nno end,x\n", encoding="utf-8")
    return path


def test_a_folder_of_images_needs_no_class_folders(pictures):
    found = load(pictures, "image")
    assert found.dataset["id"][:] == ["0.png", "1.png", "2.png", "3.png"]
    assert found.dataset["image"][2].getpixel((0, 0)) == (120, 0, 0)
    assert sorted(found.dataset.column_names) == ["id", "image"]


def test_class_folders_and_a_table_of_paths_are_the_same_images(pictures, tmp_path):
    (tmp_path / "classes" / "a").mkdir(parents=True)
    (pictures.rename(tmp_path / "classes" / "a" / "x")).rename(tmp_path / "moved")
    (tmp_path / "classes" / "a").rmdir()
    (tmp_path / "moved").rename(tmp_path / "classes" / "a")
    by_class = load(tmp_path / "classes", "image")
    (tmp_path / "table.csv").write_text(
        "image,style\n" + "".join(f"classes/a/{index}.png,x\n" for index in range(4)), encoding="utf-8"
    )
    assert load(tmp_path / "table.csv", "image").fingerprint == by_class.fingerprint
    assert load(tmp_path / "classes" / "a", "image").fingerprint == by_class.fingerprint


def test_a_folder_of_folders_needs_no_classes(pictures, tmp_path):
    (tmp_path / "target" / "train").mkdir(parents=True)
    pictures.rename(tmp_path / "target" / "train" / "batch")
    for split in ("train", "test"):
        (tmp_path / "target" / split).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "blue").save(tmp_path / "target" / split / "9.png")
    found = load(tmp_path / "target", "image")
    assert found.dataset["id"][:] == ["train/9.png", *(f"train/batch/{index}.png" for index in range(4))]
    assert found.notes[-1].endswith("The train split is used.")


def test_labels_are_not_read_and_may_be_missing(texts, tmp_path):
    found = load(texts)
    assert found.dataset["text"][:] == ["a film", "a plot", "no end"] and len(found) == 3
    (tmp_path / "bare.csv").write_text("text\na film\na plot\nno end\n", encoding="utf-8")
    assert load(tmp_path / "bare.csv").fingerprint == found.fingerprint
    (tmp_path / "other.csv").write_text("text\na film\na plot\nthe end\n", encoding="utf-8")
    assert load(tmp_path / "other.csv").fingerprint != found.fingerprint


def test_of_saved_splits_the_training_split_is_used_with_a_warning(tmp_path):
    splits = {name: Dataset.from_dict({"text": [f"of {name}", "b"]}) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    found = load(tmp_path / "saved")
    assert found.dataset["text"][:] == ["of train", "b"]
    assert found.notes == (f"{PLACE}: The train split is used.",)
    DatasetDict({"test": splits["test"]}).save_to_disk(tmp_path / "only")
    assert load(tmp_path / "only").dataset["text"][:] == ["of test", "b"]


def test_named_columns_are_used_and_columns_of_labels_and_groups_are_not_required(tmp_path):
    (tmp_path / "pairs.csv").write_text("body,other,text\na,b,c\n", encoding="utf-8")
    columns = {"text": "body", "text_pair": "other", "label": "stars", "group": "user"}
    found = load_unlabeled(
        str(tmp_path / "pairs.csv"), modality=MODALITIES["text"], columns=columns, place=PLACE
    )
    assert found.dataset[0] == {"text": "a", "text_pair": "b", "id": "train:0"}


def test_a_limit_keeps_the_same_ones_at_every_call(texts):
    one, other = (load(texts, limit=2, seed=1).dataset["text"][:] for _ in range(2))
    assert one == other and len(one) == 2
    assert load(texts, limit=5).dataset["text"][:] == ["a film", "a plot", "no end"]


def test_unusable_columns_are_reported_at_the_field(tmp_path, pictures):
    assert problem(tmp_path / "nothing.csv").startswith(
        "domain_adaptation.target must be a folder, a data file or a Hub id. Got "
    )
    (tmp_path / "empty.csv").write_text('text\na film\n""\n', encoding="utf-8")
    assert problem(tmp_path / "empty.csv") == (
        "domain_adaptation.target, train:1 must contain text. Got an empty text. Replace or remove it, or "
        "set data.on_error: skip."
    )
    assert len(load(tmp_path / "empty.csv", on_error="skip")) == 1
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert problem(tmp_path / "numbers.csv") == (
        "domain_adaptation.target, data.columns.text must be set, because no column looks like texts. Got "
        "columns 'a', 'b'. Set data.columns.text to one of them."
    )
    (pictures / "2.png").write_bytes(b"no image")
    assert "domain_adaptation.target, 2.png must contain a readable image." in problem(pictures, "image")


def test_images_that_have_to_be_converted_are_reported(pictures):
    (pictures / "drawing.svg").write_text("<svg/>")
    assert problem(pictures, "image") == (
        f"{PLACE} must contain images in supported formats. Got 'drawing.svg'. Render these files as PNG, for "
        "example with `rsvg-convert -w 512 FILE.svg -o FILE.png`."
    )
