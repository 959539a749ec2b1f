"""The functions of the page, without a browser: one example, many files, examples of the test split."""

import csv
import json

import numpy as np
import pytest
from evaluation_helpers import save_bert, save_timm, save_vit
from PIL import Image

from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing import demo
from hf_finetune.publishing.demo import prepare_page


def picture(path, value):
    Image.fromarray(np.full((40, 30, 3), value, np.uint8)).save(path)
    return str(path)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def images(tmp_path):
    (tmp_path / "page").mkdir(exist_ok=True)
    return prepare_page(save_vit(tmp_path / "vit"), tmp_path / "page")


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "page").mkdir(exist_ok=True)
    return prepare_page(save_bert(tmp_path / "model"), tmp_path / "page")


def test_one_image_gets_the_prediction_of_predict(tmp_path, images):
    file = picture(tmp_path / "soup.png", 90)
    (expected,) = predict(images.classifier, [file])
    found = images.predict_one(file)
    assert (found.label, found.scores) == (expected.label, expected.scores)
    assert images.modality.opens_files
    assert images.title == "vit"


def test_one_text_gets_the_prediction_of_predict(texts):
    (expected,) = predict(texts.classifier, ["a very boring film"])
    assert texts.predict_one("a very boring film").scores == expected.scores
    assert not texts.modality.opens_files


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_nothing_to_predict_is_told(texts, images, content):
    assert texts.predict_one(content).error == "The text is empty."
    if content is None or content == "":
        assert images.predict_one(content).error == "There is no image."


def test_files_that_are_no_images_are_reported(tmp_path, images):
    file = tmp_path / "soup.png"
    file.write_text("no picture", encoding="utf-8")
    assert images.predict_one(str(file)).error.startswith("The image cannot be read.")


def test_many_images_become_a_csv(tmp_path, images):
    files = [picture(tmp_path / "a.png", 10), str(tmp_path / "b.png"), picture(tmp_path / "c.png", 200)]
    (tmp_path / "b.png").write_text("no picture", encoding="utf-8")
    path, rows, failed = images.predict_files(files)
    assert (rows, failed) == (3, 1)
    assert path.name == "predictions.csv"
    found = rows_of(path)
    assert [row["id"] for row in found] == ["a.png", "b.png", "c.png"]
    assert found[1]["error"].startswith("The image cannot be read.")
    expected = images.predict_one(files[0])
    assert found[0]["prediction"] == expected.label
    assert float(found[0]["probability:soup"]) == pytest.approx(expected.scores["soup"], rel=1e-4)


def test_a_table_cannot_refer_to_files_of_the_server(tmp_path, images):
    picture(tmp_path / "private.png", 10)
    table = tmp_path / "table.csv"
    table.write_text("image\nprivate.png\n", encoding="utf-8")
    path, rows, failed = images.predict_files([str(table)])
    assert (rows, failed) == (1, 1)
    assert rows_of(path)[0]["error"].startswith("The image cannot be read.")


def test_many_texts_become_a_csv_that_names_no_folder(tmp_path, texts):
    table = tmp_path / "reviews.csv"
    table.write_text('text\ngood film\n""\n"bad, plot"\n', encoding="utf-8")
    lines = tmp_path / "more.txt"
    lines.write_text("great\n", encoding="utf-8")
    other = tmp_path / "notes.doc"
    other.write_text("good", encoding="utf-8")
    path, rows, failed = texts.predict_files([table, lines, other])
    found = rows_of(path)
    assert rows == len(found)
    assert failed == len([row for row in found if row["error"]])
    by_name = {row["id"]: row for row in found}
    assert by_name["reviews.csv:0"]["prediction"] == texts.predict_one("good film").label
    assert by_name["more.txt:1"]["prediction"] == texts.predict_one("great").label
    assert "must be a text, or a file of texts" in by_name["notes.doc"]["error"]
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_missing_files_are_reported(texts):
    with pytest.raises(InputError, match="Files must be chosen first"):
        texts.predict_files([])


def test_two_tables_do_not_overwrite_each_other(tmp_path, images):
    file = picture(tmp_path / "a.png", 10)
    assert images.predict_files([file])[0] != images.predict_files([file])[0]


def test_a_checkpoint_has_no_examples(images):
    assert images.examples == ()


def test_the_port_and_the_extra_are_asked_for_first(monkeypatch, tmp_path):
    monkeypatch.setitem(demo.require_extra.__globals__["EXTRAS"], "demo", ("no_such_module",))
    with pytest.raises(InputError) as caught:
        demo.serve(tmp_path, port=0, on_ready=print)
    assert str(caught.value) == (
        "hf-finetune demo needs packages that are not installed: 'no_such_module'. "
        "Run pip install 'hf-finetune[demo]'."
    )


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_vit, save_timm, save_bert])
def test_the_page_is_laid_out(tmp_path, save):
    pytest.importorskip("gradio")
    (tmp_path / "page").mkdir(exist_ok=True)
    page = prepare_page(save(tmp_path / "model"), tmp_path / "page")
    shown = demo.build_page(page)
    config = json.dumps(shown.get_config_file(), default=str)
    for expected in ("Classify", "Classify all", "Predictions", "Several files"):
        assert expected in config
    assert ("One picture" in config) == page.modality.opens_files
