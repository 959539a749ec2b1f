from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import prepare_data
from PIL import Image
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.runs.preview import pick_diverse_examples, preview
from hf_finetune.tasks import MODALITIES
from hf_finetune.tasks.examples import PreviewRow
from hf_finetune.tasks.image.preview import contact_sheet
from hf_finetune.tasks.preview_page import text_page


def recipe(task, model, data, **augment):
    return parse_recipe(
        {
            "task": task,
            "model": str(model),
            "data": {"path": str(data), "augment": augment},
            "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
        }
    )


def test_each_class_has_its_turn():
    assert pick_diverse_examples([0, 0, 0, 1, 2, 2], 4) == [0, 3, 4, 1]
    assert pick_diverse_examples([0, 0], 5) == [0, 1]
    assert pick_diverse_examples([[0, 1], [1], [0, 1]], 2) == [0, 1]


def test_the_original_comes_first_and_then_its_versions():
    red, blue = (Image.new("RGB", (40, 30), color) for color in ("red", "blue"))
    sheet = np.asarray(
        contact_sheet([PreviewRow("soup", red, [blue, red]), PreviewRow("cake", blue, [red, red])])
    )
    colors = [
        [sheet[8 + 18 + row * 186 + 5, 8 + column * 168 + 5].tolist() for column in range(3)]
        for row in range(2)
    ]
    assert colors == [
        [[255, 0, 0], [0, 0, 255], [255, 0, 0]],
        [[0, 0, 255], [255, 0, 0], [255, 0, 0]],
    ]
    assert sheet.shape == (8 + 18 + 2 * 186, 8 + 3 * 168, 3)
    labels = sheet[8 + 18 + 160 : 8 + 18 + 178, :160]
    assert (labels < 100).any()


def test_a_page_of_texts_is_escaped():
    page = text_page([PreviewRow("<b>", "a & b", ["[MASK] & b"])], "Texts of <x>")
    assert "<tr><td>&lt;b&gt;</td><td>a &amp; b</td><td>[MASK] &amp; b</td></tr>" in page
    assert "<th>label</th><th>original</th><th>epoch 1</th>" in page
    assert "<h1>Texts of &lt;x&gt;</h1>" in page


def test_the_sheet_shows_the_examples_of_the_first_epochs(tmp_path, squares, timm_checkpoint):
    made = recipe("image-classification", timm_checkpoint, squares, preset="strong")
    path = preview(made, tmp_path / "sheet.png", examples=3, views=2)
    first, again = (
        np.asarray(Image.open(path)),
        np.asarray(Image.open(preview(made, tmp_path / "again.png", examples=3, views=2))),
    )
    assert first.shape == (8 + 18 + 3 * 186, 8 + 3 * 168, 3)
    assert (first == again).all()
    colors = [first[8 + 18 + row * 186 + 5, 8 + 5].tolist() for row in range(3)]
    assert [int(np.argmax(color)) for color in colors] == [
        2,
        1,
        0,
    ]  # blue, green, red: the classes in their order


def test_the_command_writes_the_sheet_and_prints_its_path(tmp_path, squares, timm_checkpoint):
    made = recipe("image-classification", timm_checkpoint, squares, preset="seeds")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(made), encoding="utf-8")
    sheet = tmp_path / "sheet.png"
    told = CliRunner().invoke(app, ["preview", str(tmp_path / "recipe.yaml"), "--output", str(sheet)])
    assert (told.exit_code, told.output) == (0, f"Written: {sheet}\n")
    with Image.open(sheet) as written, Image.open(preview(made, tmp_path / "same.png")) as same:
        assert (np.asarray(written) == np.asarray(same)).all()


def test_the_page_shows_tokens_as_the_model_reads_them(tmp_path, reviews, bert_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = recipe("text-classification", bert_checkpoint, reviews, mask=0.5)
    path = preview(made)
    assert str(path) == "preview.html"
    page = path.read_text(encoding="utf-8")
    assert page.count("<tr>") == 7 and "[MASK]" in page and "[PAD]" not in page
    original = prepare_data(str(reviews), modality=MODALITIES["text"]).train[0]["text"]
    assert f"<td>{original}</td>" in page


@pytest.mark.parametrize(
    ("task", "name", "told"),
    [
        (
            "image",
            "x.html",
            "must end in .png or .jpg or .jpeg for images. Got 'x.html'. For example preview.png.",
        ),
        ("text", "x.png", "must end in .html or .htm for texts. Got 'x.png'. For example preview.html."),
        ("text", "no/x.html", "must be in an existing folder. Got 'no/x.html'."),
    ],
)
def test_a_wrong_file_is_reported_before_any_file_is_read(tmp_path, monkeypatch, task, name, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        preview(recipe(f"{task}-classification", "nowhere", "nothing"), Path(name))
    assert str(caught.value) == f"--output {told}"


def test_normalized_images_are_shown_in_all_gray_levels(tmp_path, squares, timm_checkpoint):
    made = recipe("image-classification", timm_checkpoint, squares, preset="none")
    sheet = np.asarray(Image.open(preview(made, tmp_path / "sheet.png", examples=1, views=2)))
    one, other = (sheet[26:58, 8 + column * 168 : 40 + column * 168] for column in (1, 2))
    assert (one == other).all()
    assert torch.tensor(one).float().std() > 0
