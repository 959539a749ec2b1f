import io

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_finetune.data.columns import Columns
from hf_finetune.data.tables import hash_rows, read_table
from hf_finetune.errors import InputError
from hf_finetune.tasks.image.files import NoImageError, source_of
from hf_finetune.tasks.image.stored import map_images


def png(color="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path / "a.png"


def of_images(images, root):
    features = Features({"photo": ImageFeature(), "label": Value("string"), "who": Value("string")})
    rows = {"photo": images, "label": ["x"] * len(images), "who": ["g"] * len(images)}
    columns = Columns(label="label", inputs={"image": "photo"}, group="who")
    return read_table(Dataset.from_dict(rows, features=features), columns, "test", root)


def test_a_file_is_called_by_its_path_and_an_embedded_image_by_its_row(picture, tmp_path):
    images = [{"bytes": png(), "path": "b.png"}, {"bytes": None, "path": str(picture)}, None]
    table = of_images(images, tmp_path)
    assert table.ids == ("test:0", "a.png", "test:2")
    assert table.dataset["id"][:] == list(table.ids)
    assert (table.labels, table.groups) == (("x", "x", "x"), ("g", "g", "g"))


def test_files_that_came_from_the_hub_are_called_by_their_row(picture):
    table = of_images([{"bytes": None, "path": str(picture)}], root=None)
    assert table.ids == ("test:0",)
    assert table.dataset[0]["image"].size == (4, 4)


def test_paths_from_the_hub_lead_nowhere():
    rows = Dataset.from_dict({"image": ["a.png", "b.png"], "label": ["x", "y"]})
    with pytest.raises(InputError) as error:
        read_table(rows, Columns(label="label", inputs={"image": "image"}), "train", None)
    assert str(error.value) == (
        "data.columns.image must contain images, not paths, in data from the Hub. Got 'a.png'."
    )


def test_an_image_is_the_same_in_a_file_and_in_a_table(picture, tmp_path):
    images = [{"bytes": png(), "path": None}, {"bytes": None, "path": str(picture)}]
    images += [{"bytes": None, "path": "gone.png"}, {"bytes": png("blue"), "path": None}, None]
    keys = hash_rows(of_images(images, tmp_path)).keys
    assert keys[0] == keys[1] is not None
    assert keys[2] is keys[4] is None
    assert keys[3] not in (None, keys[0])


def test_images_are_mapped_in_order_without_decoding():
    table = of_images([{"bytes": bytes([row]), "path": None} for row in range(200)], None)
    assert list(map_images(table.dataset, source_of)) == [bytes([row]) for row in range(200)]


def test_a_row_without_an_image():
    for image in (None, {"bytes": None, "path": None}):
        with pytest.raises(NoImageError):
            source_of(image)


def test_texts_have_an_exact_hash_and_one_that_forgives():
    texts = ["Caf\u00e9 au  lait", "cafe\u0301 AU lait\n", "cafe au lait", ""]
    rows = Dataset.from_dict({"text": texts, "label": ["x"] * 4})
    table = hash_rows(
        read_table(rows, Columns(label="label", inputs={"text": "text", "text_pair": None}), "train", None)
    )
    assert len(set(table.contents)) == 4
    assert table.keys[0] == table.keys[1] != table.keys[2]
    assert table.keys[3] is None


def test_rows_are_taken_with_all_that_belongs_to_them():
    rows = Dataset.from_dict({"text": list("abc"), "label": ["x", "y", "z"], "who": [1, 2, 3]})
    table = hash_rows(
        read_table(
            rows,
            Columns(label="label", inputs={"text": "text", "text_pair": None}, group="who"),
            "train",
            None,
        )
    )
    table = table.with_labels([0, 1, 2], "single_label", ["x", "y", "z"])
    taken = table.take([2, 0])
    assert (taken.ids, taken.labels, taken.groups) == (("train:2", "train:0"), (2, 0), (3, 1))
    assert taken.dataset[:] == {
        "text": ["c", "a"],
        "id": ["train:2", "train:0"],
        "label": [2, 0],
        "group:who": ["3", "1"],
    }
    assert taken.keys == (table.keys[2], table.keys[0])
    assert taken.contents == (table.contents[2], table.contents[0])
    assert len(table.take([])) == 0
