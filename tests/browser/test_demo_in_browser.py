"""``hf-finetune demo`` and the Space that it writes, tested in Chromium.

The function of the page is tested without a browser in ``tests/unit/test_publishing_demo.py``,
``tests/unit/test_publishing_space.py`` and ``tests/integration/test_demo.py``.
"""

import csv
import sys

import pytest
from run_helpers import tiny_image_recipe, tiny_text_recipe
from serving import served, served_by_command

from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing.space import write_space
from hf_finetune.runs.run import run

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def gradio():
    return pytest.importorskip("gradio", reason="needs gradio, of the extra demo")


@pytest.fixture(scope="module")
def text_run(tmp_path_factory, reviews, bert_checkpoint):
    return run(
        tiny_text_recipe(reviews, bert_checkpoint), tmp_path_factory.mktemp("text") / "film reviews"
    ).folder


@pytest.fixture(scope="module")
def image_run(tmp_path_factory, squares, timm_checkpoint):
    return run(
        tiny_image_recipe(squares, timm_checkpoint), tmp_path_factory.mktemp("image") / "<b>squares"
    ).folder


@pytest.fixture(scope="module")
def text_page(chromium, gradio, text_run, tmp_path_factory):
    """Serve the page of a text run and return its address."""
    yield from _demo(text_run, tmp_path_factory.mktemp("text-page"))


@pytest.fixture(scope="module")
def image_page(chromium, gradio, image_run, tmp_path_factory):
    """Serve the page of an image run and return its address."""
    yield from _demo(image_run, tmp_path_factory.mktemp("image-page"))


def _demo(folder, beside):
    with served_by_command(["demo", folder, "--port", "0"], beside / "log") as address:
        yield address


def shown_probabilities(page):
    """Return the bars as pairs of class and percentage."""
    page.get_by_test_id("label-output-value").wait_for()
    rows = page.locator("[data-testid$=-confidence-set]")
    return {
        row.get_attribute("data-testid").removesuffix("-confidence-set"): row.inner_text().split()[-1]
        for row in rows.all()
    }


def expected_probabilities(model, content):
    (found,) = predict(model, [str(content)])
    return {name: f"{round(100 * value)}%" for name, value in found.scores.items()}


def download(page, folder):
    """Download the table that the page offers and read it."""
    with page.expect_download() as begun:
        page.locator("a[download='predictions.csv']").click()
    begun.value.save_as(folder / "predictions.csv")
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def only_this_machine(page, address):
    return [url for url in page.requests if not url.startswith((address, "data:", "blob:"))] == []


def test_a_text_is_typed_and_classified(visit, text_page, text_run):
    page = visit(text_page)
    page.get_by_role("heading", name="film reviews").wait_for()
    page.get_by_role("textbox", name="Text").fill("good film")
    page.get_by_role("button", name="Classify", exact=True).click()
    assert shown_probabilities(page) == expected_probabilities(text_run, "good film")
    assert only_this_machine(page, text_page)


def test_without_input_an_error_is_shown(visit, text_page):
    page = visit(text_page)
    page.get_by_role("button", name="Classify", exact=True).click()
    page.get_by_text("The text is empty.").wait_for()


def test_an_example_of_the_test_split_is_clicked(visit, text_page, text_run):
    page = visit(text_page)
    example = page.locator("button.gallery-item").first
    example.click()
    found = shown_probabilities(page)
    text = page.get_by_role("textbox", name="Text").input_value()
    assert text.startswith(example.inner_text().strip().removesuffix("..."))
    assert found == expected_probabilities(text_run, text)


def test_a_table_of_texts_comes_back_with_predictions(visit, text_page, text_run, tmp_path):
    (tmp_path / "reviews.csv").write_text('text\ngood film\n""\nbad plot\n', encoding="utf-8")
    page = visit(text_page)
    page.get_by_role("tab", name="Several files").click()
    page.locator("input[type=file]").last.set_input_files(tmp_path / "reviews.csv")
    page.locator("a[download='reviews.csv']").wait_for()
    page.get_by_role("button", name="Classify all").click()
    page.locator("a[download='predictions.csv']").wait_for()
    rows = download(page, tmp_path)
    assert [row["id"] for row in rows] == ["reviews.csv:0", "reviews.csv:1", "reviews.csv:2"]
    expected = list(predict(text_run, ["good film", "bad plot"]))
    assert [rows[0]["prediction"], rows[2]["prediction"]] == [each.label for each in expected]
    assert rows[1]["error"]
    assert page.get_by_role("textbox", name="Done").input_value() == "3 rows; 1 could not be read"


def test_an_image_is_uploaded_and_classified(visit, image_page, image_run, squares):
    page = visit(image_page)
    page.get_by_role("heading", name="<b>squares").wait_for()
    file = squares / "red" / "03.png"
    page.locator("input[type=file]").first.set_input_files(file)
    page.locator("img[src*='03.png']").wait_for()
    page.get_by_role("button", name="Classify", exact=True).click()
    assert shown_probabilities(page) == expected_probabilities(image_run, file)
    assert only_this_machine(page, image_page)


def test_an_example_image_is_clicked(visit, image_page):
    page = visit(image_page)
    page.locator("button.gallery-item").first.click()
    found = shown_probabilities(page)
    assert set(found) == {"blue", "green", "red"}


def test_images_are_returned_as_a_table(visit, image_page, image_run, squares, tmp_path):
    files = [squares / "red" / "03.png", squares / "blue" / "05.png"]
    page = visit(image_page)
    page.get_by_role("tab", name="Several files").click()
    page.locator("input[type=file]").last.set_input_files(files)
    page.locator("a[download='05.png']").wait_for()
    page.get_by_role("button", name="Classify all").click()
    page.locator("a[download='predictions.csv']").wait_for()
    rows = download(page, tmp_path)
    assert [row["id"] for row in rows] == ["03.png", "05.png"]
    assert [row["prediction"] for row in rows] == [
        each.label for each in predict(image_run, list(map(str, files)))
    ]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_page_fits_a_phone(visit, kind, request):
    page = visit(request.getfixturevalue(f"{kind}_page"), viewport=PHONE)
    page.get_by_role("button", name="Classify", exact=True).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_space_of_a_text_run_runs(visit, chromium, gradio, text_run, tmp_path):
    write_space(text_run, tmp_path / "space")
    with served([sys.executable, "app.py"], tmp_path / "space", tmp_path / "log") as address:
        page = visit(address)
        page.get_by_role("textbox", name="Text").fill("good film")
        page.get_by_role("button", name="Submit").click()
        assert shown_probabilities(page) == expected_probabilities(text_run, "good film")


def test_the_space_of_an_image_run_runs(visit, chromium, gradio, image_run, squares, tmp_path):
    write_space(image_run, tmp_path / "space")
    file = squares / "red" / "03.png"
    with served([sys.executable, "app.py"], tmp_path / "space", tmp_path / "log") as address:
        page = visit(address)
        page.locator("input[type=file]").first.set_input_files(file)
        page.locator("img[src*='03.png']").wait_for()
        page.get_by_role("button", name="Submit").click()
        assert shown_probabilities(page) == expected_probabilities(image_run, file)
